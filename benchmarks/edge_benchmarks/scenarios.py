"""Ways to load a model, each measured end to end: so far ``single-stream``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from edge_benchmarks import environment, report
from edge_benchmarks.frames import FrameSet, frame_set
from edge_sdk.errors import InputError
from edge_sdk.image import Image
from edge_sdk.model import Model, load
from edge_sdk.results import Detections
from edge_sdk.target import LoadOptions, find_target
from edge_sdk.timing import now_ns
from edge_targets.threads import thread_count

SCENARIOS = ("single-stream",)

Clock = Callable[[], int]
Progress = Callable[[int, int], None]

AGREEMENT = 0.03
"""Three warm-up windows in a row whose medians lie this close together end the warm-up."""

MAX_WARM_UP_S = 60.0


@dataclass
class Samples:
    """Nanoseconds of every frame by stage, in order, and the faces that were reported."""

    stages: dict[str, list[int]] = field(default_factory=lambda: {stage: [] for stage in report.STAGES})
    faces: int = 0

    def __len__(self) -> int:
        """Frames so far."""
        return len(self.stages["end_to_end"])

    def add(self, found: Detections, end_to_end_ns: int) -> None:
        """Note one frame."""
        times = found.times
        self.stages["preprocess"].append(times.preprocess_ns)
        self.stages["infer"].append(times.infer_ns)
        self.stages["postprocess"].append(times.postprocess_ns)
        self.stages["end_to_end"].append(end_to_end_ns)
        self.faces += len(found)


def run(
    bundle: str | Path,
    *,
    scenario: str = "single-stream",
    duration_s: float = 10.0,
    threads: int | None = None,
    frames: str | Path | None = None,
    progress: Progress = lambda done, total: None,
) -> report.Run:
    """Measure a bundle on this device.

    Args:
        bundle: an ``.edge`` file, or a zoo name.
        scenario: ``single-stream``: a closed loop, the next frame starts when the last is done.
        duration_s: of the measurement; warm-up comes before it and takes as long again at most.
        threads: of the engine; None as :func:`edge_sdk.load` would.
        frames: folder of the user's own pictures; None takes the drawn ones.
        progress: called with milliseconds done and of how many.

    Raises:
        InputError: unknown scenario, a duration that is not positive and finite, or no pictures.
        EdgeError: what :func:`edge_sdk.load` raises.
    """
    if scenario not in SCENARIOS:
        raise InputError(f"unknown scenario {scenario!r}", remedy=f"use one of {', '.join(SCENARIOS)}")
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise InputError(
            f"the duration must be a positive number of seconds, got {duration_s}", remedy="try 10"
        )
    started, load_before = environment.now(), environment.load_average()
    pictures = frame_set(frames)
    with load(bundle, threads=threads) as model:
        images = cycle(pictures.images)
        warm = warm_up(model, images, cap_s=min(MAX_WARM_UP_S, duration_s))
        background = environment.Background()
        samples = measure(model, images, duration_s=duration_s, progress=progress)
        share = background.share()
        return report.Run(
            name=model.info.name,
            target=model.info.target,
            precision=model.info.precision,
            bundle=str(bundle),
            chosen=model.info.chosen,
            sha256=model.info.sha256,
            gate=model.info.gate,
            scenario=scenario,
            started=started,
            duration_s=round(sum(samples.stages["end_to_end"]) / 1e9, 3),
            count=len(samples),
            latency_ms={stage: report.percentiles(ns) for stage, ns in samples.stages.items()},
            warm_up=warm,
            frames=_describe(pictures, samples),
            environment=environment.describe(
                modules=find_target(model.info.target).modules,
                threads=thread_count(LoadOptions(threads)),
                load_before=load_before,
                background_share=share,
            ),
            notes=_notes(warm, samples),
            samples_ns={stage: tuple(ns) for stage, ns in samples.stages.items()},
        )


def warm_up(
    model: Model[Any], images: Iterator[Image], *, cap_s: float, clock: Clock = now_ns
) -> report.WarmUp:
    """Run until three windows in a row agree on the median within 3 %, or the cap is reached.

    A window lasts a twentieth of the cap and has at least as many frames as a median needs.
    """
    start = clock()
    cap_ns = int(cap_s * 1e9)
    medians: list[float] = []
    frames, stable = 0, False
    while not stable and clock() - start < cap_ns:
        window: list[int] = []
        opened = clock()
        while len(window) < report.MIN_SAMPLES["p50"] or clock() - opened < cap_ns // 20:
            before = clock()
            model(next(images))
            window.append(clock() - before)
            if clock() - start >= cap_ns:
                break
        frames += len(window)
        if len(window) >= report.MIN_SAMPLES["p50"]:
            medians.append(statistics.median(window))
        last = medians[-3:]
        stable = len(last) == 3 and max(last) <= min(last) * (1 + AGREEMENT)
    return report.WarmUp(round((clock() - start) / 1e9, 3), frames, stable)


def measure(
    model: Model[Any],
    images: Iterator[Image],
    *,
    duration_s: float,
    clock: Clock = now_ns,
    progress: Progress = lambda done, total: None,
) -> Samples:
    """Closed loop for ``duration_s``; every frame counts, the slowest too, and there is at least one."""
    samples = Samples()
    start = clock()
    duration_ns = int(duration_s * 1e9)
    shown = -1
    while not len(samples) or clock() - start < duration_ns:
        image = next(images)
        before = clock()
        found = model(image)
        samples.add(found, clock() - before)
        # A line of progress ten times a second at most, outside what is timed.
        done = min(duration_ns, clock() - start) // 1_000_000
        if done // 100 > shown:
            shown = done // 100
            progress(done, duration_ns // 1_000_000)
    return samples


def _describe(pictures: FrameSet, samples: Samples) -> report.Frames:
    return report.Frames(
        origin=pictures.origin,
        sha256=pictures.sha256,
        distinct=len(pictures.images),
        faces_drawn=sum(pictures.drawn) / len(pictures.drawn) if pictures.drawn else None,
        faces_reported=round(samples.faces / len(samples), 4),
    )


def _notes(warm: report.WarmUp, samples: Samples) -> tuple[str, ...]:
    notes = []
    if not warm.stable:
        notes.append(f"UNSTABLE after {warm.seconds:.1f} s and {warm.frames} frames of warm-up")
    if samples.faces == 0:
        notes.append("the network reported no face, so postprocess is what empty frames cost")
    notes.append("clock throttling is not read by this version")
    return tuple(notes)
