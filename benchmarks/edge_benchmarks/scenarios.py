"""Measures a bundle in a scenario: latencies, and what a report states beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edge_benchmarks import accuracy, cold, energy, environment, memory, report, roofline, stats
from edge_benchmarks.frames import FrameSet, frame_set
from edge_benchmarks.loops import (
    INTERRUPTED,
    LOOPS,
    Measurement,
    Progress,
    StopRequest,
    columns_of,
    harness_cost,
    warm_up,
)
from edge_benchmarks.monitor import Monitor
from edge_benchmarks.report import AT, END_TO_END, Run, Scenario, ScenarioKind
from edge_benchmarks.summary import age, describe_frames, drift, summaries, throughput
from edge_benchmarks.system_under_test import Item, ModelUnderTest, item_stream, items_of
from edge_sdk.adapter import thread_count
from edge_sdk.errors import EdgeError, InputError
from edge_sdk.model import ModelInfo, load
from edge_sdk.target import LoadOptions, find_target
from edge_sdk.tasks import faces_of

SCENARIOS: tuple[ScenarioKind, ...] = (
    "single-stream", "paced", "multi-stream", "offline", "cold", "sustained",
)  # fmt: skip

MAX_WARM_UP_S = 60.0
SUSTAINED_S = 900.0
DEFAULT_S = 10.0
DEFAULT_FPS = 30.0
DEFAULT_STREAMS = 2
DEFAULT_PROCESSES = 20


@dataclass(frozen=True)
class Options:
    """Options of a run beside its scenario.

    Attributes:
        device: where the engine must run, such as ``"GPU"``; None takes the bundle's usual one.
        threads: number of threads of each engine; None takes as many as :func:`edge_sdk.load`, divided by the streams.
        frames: folder of the user's own pictures; None takes the drawn ones.
        size: (width, height) to scale the pictures to.
        as_shipped: the governor is meant to be as it is, so that a moving clock does not count against the run.
        energy: read the machine's own power monitor.
        meter: log of an external meter, read when the measurement is over.
        idle_s: seconds for which the idle machine's power is measured before a run with energy.
        memory: measure peak memory as well, in a fresh process.
        roofline: measure the engine's peak as well, after the run.
        data: labelled pictures to measure accuracy on, after the run.
        engine_cache: of ``cold``: processes find what the first one compiled.
    """

    device: str | None = None
    threads: int | None = None
    frames: str | Path | None = None
    size: tuple[int, int] | None = None
    as_shipped: bool = False
    energy: bool = False
    meter: Path | None = None
    idle_s: float = 30.0
    memory: bool = False
    roofline: bool = False
    data: Path | None = None
    engine_cache: bool = True


def run(
    bundle: str | Path,
    *,
    scenario: str | Scenario = "single-stream",
    duration_s: float | None = None,
    threads: int | None = None,
    frames: str | Path | None = None,
    options: Options | None = None,
    progress: Progress = lambda done, total: None,
) -> Run:
    """Measure a bundle on this device.

    Args:
        bundle: an ``.edge`` file, or a zoo name.
        scenario: a name of ``SCENARIOS``, or a scenario with its parameters.
        duration_s: seconds of the measurement, for a scenario given by name; warm-up comes before it.
        threads: number of threads of the engine; goes before that of ``options``.
        frames: folder of the user's own pictures; used where ``options`` has none.
        options: everything else.
        progress: called with the milliseconds done and with their total.

    Returns:
        The run; ``incomplete`` says so if Ctrl-C, or the engine's end, cut it short.

    Raises:
        InputError: unknown scenario, a duration that is not positive and finite, or no pictures.
        EdgeError: what :func:`edge_sdk.load` raises.
    """
    asked = options or Options()
    asked = replace(
        asked, threads=asked.threads if threads is None else threads, frames=asked.frames or frames
    )
    if isinstance(scenario, str):
        scenario = named_scenario(scenario, duration_s=duration_s)
    check(scenario, asked)
    started, before = environment.now(), environment.snapshot()
    pictures = frame_set(asked.frames, asked.size)
    source = energy.find() if asked.energy and asked.meter is None else None
    monitor = Monitor(source, meter=asked.meter)
    monitor.measure_idle(asked.idle_s)
    measure = _cold if scenario.kind == "cold" else _loop
    with StopRequest() as stop:
        done, first = measure(
            bundle, scenario, asked, pictures, _RunContext(started, before, monitor, progress, stop)
        )
    # What would disturb is measured apart; not after an interrupt, whose user wants the end.
    return done if done.incomplete is not None else _with_extras(done, first, asked, progress)


def named_scenario(
    kind: str,
    *,
    duration_s: float | None = None,
    fps: float | None = None,
    drop: Literal["latest", "none"] | None = None,
    streams: int | None = None,
    processes: int | None = None,
    page_cache: Literal["kept", "dropped"] | None = None,
) -> Scenario:
    """A scenario by name; its parameters that are not given take their default values.

    Raises:
        InputError: no such scenario, or a parameter that it does not have.
    """
    if kind not in SCENARIOS:
        raise InputError(f"unknown scenario {kind!r}", remedy=f"use one of {', '.join(SCENARIOS)}")
    usual: dict[str, dict[str, Any]] = {
        "single-stream": {"duration_s": DEFAULT_S},
        "paced": {"duration_s": DEFAULT_S, "fps": DEFAULT_FPS, "drop": "latest"},
        "multi-stream": {"duration_s": DEFAULT_S, "streams": DEFAULT_STREAMS},
        "offline": {"duration_s": DEFAULT_S, "streams": DEFAULT_STREAMS},
        "cold": {"processes": DEFAULT_PROCESSES, "page_cache": "kept"},
        "sustained": {"duration_s": SUSTAINED_S},
    }
    given: dict[str, Any] = {
        "duration_s": duration_s,
        "fps": fps,
        "drop": drop,
        "streams": streams,
        "processes": processes,
        "page_cache": page_cache,
    }
    has = usual[kind]
    # A duration is what every command line gives; a scenario that counts processes does without.
    foreign = [n for n, v in given.items() if v is not None and n not in has and n != "duration_s"]
    if foreign:
        raise InputError(f"{kind} has no {foreign[0]}", remedy=f"it has {', '.join(has)}")
    found: ScenarioKind = next(s for s in SCENARIOS if s == kind)
    return Scenario(found, **{n: v if given[n] is None else given[n] for n, v in has.items()})


def check(scenario: Scenario, options: Options) -> None:
    """Check the numbers of a scenario and of its options before anything is measured.

    Raises:
        InputError: a number that is not positive and finite or is too large, or a meter's log that is not there.
    """
    for name, value, most, unit in (
        ("duration", scenario.duration_s, 7 * 86_400, "seconds"),
        ("camera rate", scenario.fps, 10_000, "frames per second"),
        ("number of streams", scenario.streams, 64, "streams"),
        ("number of processes", scenario.processes, 1000, "processes"),
        ("number of threads", options.threads, 1024, "threads"),
        ("idle time", options.idle_s, 3600, "seconds"),
    ):
        if value is not None and not (math.isfinite(value) and 0 < value <= most):
            raise InputError(
                f"the {name} must be a positive number of {unit}, at most {most}, got {value:g}",
                remedy="try 10" if unit == "seconds" else "give a smaller positive number",
            )
    if options.size is not None and not all(16 <= side <= 8192 for side in options.size):
        raise InputError(
            f"pictures of {options.size[0]}x{options.size[1]} cannot be made", remedy="try 1280x720"
        )
    if options.meter is not None and not options.meter.is_file():
        raise InputError(
            f"no meter log {options.meter}", remedy="let the meter write it before the run starts"
        )


@dataclass(frozen=True)
class _RunContext:
    """What is known and set up before a run begins, for whoever measures it."""

    started: str
    before: environment.Snapshot
    monitor: Monitor
    progress: Progress
    stop: StopRequest


def _loop(
    bundle: str | Path, scenario: Scenario, options: Options, pictures: FrameSet, watch: _RunContext
) -> tuple[Run, Item]:
    """Measure a scenario that runs in this process; returns the run and the item that extras are measured on."""
    assert scenario.duration_s is not None
    cost = harness_cost()
    streams = scenario.streams or 1
    threads = options.threads or max(1, thread_count(LoadOptions()) // streams)
    with ExitStack() as stack:
        models = [
            stack.enter_context(load(bundle, threads=threads, device=options.device)) for _ in range(streams)
        ]
        info = models[0].info
        items = items_of(pictures, faces_of(info.task))
        subjects = [ModelUnderTest(model) for model in models]
        feed = item_stream(items)
        measurement = Measurement(
            columns_of(scenario, subjects[0]),
            duration_s=scenario.duration_s,
            monitor=watch.monitor,
            progress=watch.progress,
            stop=watch.stop,
        )
        cap_s = min(MAX_WARM_UP_S, scenario.duration_s)
        warm: list[report.WarmUp] = []
        measurement.guard(
            lambda: warm.extend(warm_up(s, feed, cap_s=cap_s, stop=watch.stop) for s in subjects)
        )
        measurement.begin()
        if measurement.incomplete is None:
            loop = LOOPS[scenario.kind]
            measurement.guard(lambda: loop(measurement, subjects, feed, scenario))
        worst = max(warm, key=lambda w: (not w.stable, w.seconds), default=report.WarmUp(0.0, 0, False))
        made = _assemble(
            bundle, models[0].info, scenario, options, pictures, items, measurement, threads, watch
        )
        traces = dict(made.traces)
        made = replace(
            made,
            throughput=throughput(traces[AT], measurement.seconds),
            warm_up=worst,
            harness=cost,
            pace=_pace(measurement, scenario),
            drift=drift(traces[END_TO_END], measurement.seconds) if scenario.kind == "sustained" else None,
            notes=(*info.notes, *_notes(scenario, worst, traces, info.gate.waiver)),
        )
        return made, items[0]


def _cold(
    bundle: str | Path, scenario: Scenario, options: Options, pictures: FrameSet, watch: _RunContext
) -> tuple[Run, Item]:
    """Measure cold starts in fresh processes; the bundle is loaded here once before, to read its manifest."""
    assert scenario.processes is not None
    assert scenario.page_cache is not None
    threads = options.threads or thread_count(LoadOptions())
    with load(bundle, threads=threads, device=options.device) as model:
        info = model.info
    items = items_of(pictures, faces_of(info.task))
    measurement = Measurement(cold.PHASES, duration_s=math.inf, monitor=watch.monitor, stop=watch.stop)
    measurement.begin()

    def add(answer: Mapping[str, int]) -> None:
        at = measurement.clock() - measurement.start - answer["total"]
        phases = (answer[phase] for phase in cold.PHASES)
        measurement.rows.append((at, 0, answer["faces"], *phases, answer["total"]))
        watch.progress(len(measurement.rows), scenario.processes or 0)

    measurement.guard(
        lambda: cold.measure(
            bundle,
            items[0],
            processes=scenario.processes or 0,
            threads=threads,
            device=options.device,
            page_cache=scenario.page_cache or "kept",
            engine_cache=options.engine_cache,
            goes_on=measurement.goes_on,
            add=add,
        )
    )
    made = _assemble(bundle, info, scenario, options, pictures, items, measurement, threads, watch)
    kept = "keep" if options.engine_cache else "have no"
    notes = [f"the processes {kept} an engine cache; the first one, which fills caches, does not count"]
    return replace(made, notes=(*info.notes, *notes)), items[0]


def _assemble(
    bundle: str | Path,
    info: ModelInfo,
    scenario: Scenario,
    options: Options,
    pictures: FrameSet,
    items: Sequence[Item],
    measurement: Measurement,
    threads: int,
    watch: _RunContext,
) -> Run:
    """The run as every scenario has it; the caller adds what only some scenarios have."""
    health, series, drawn = watch.monitor.finish(len(measurement.rows), as_shipped=options.as_shipped)
    traces = measurement.traces()
    if scenario.fps is not None:
        traces["age"] = age(traces, scenario.fps, measurement.due)
    modules = find_target(info.target).modules
    return Run(
        name=info.name,
        target=info.target,
        precision=info.precision,
        bundle=str(bundle),
        chosen=info.chosen,
        sha256=info.sha256,
        gate=info.gate,
        scenario=scenario,
        started=watch.started,
        duration_s=round(measurement.seconds, 3),
        count=len(measurement.rows),
        stages=summaries(traces, measurement.seconds),
        throughput=None,
        warm_up=None,
        frames=describe_frames(pictures, items, traces, faces_of(info.task)),
        environment=environment.describe(
            modules=modules, device_used=info.device, threads=threads, before=watch.before
        ),
        health=health,
        series=series,
        energy=drawn,
        accuracy=accuracy.of_gate(info.gate),
        harness=None,
        incomplete=measurement.incomplete,
        traces=traces,
    )


def _with_extras(done: Run, item: Item, options: Options, progress: Progress) -> Run:
    """Add memory, roofline and accuracy where they were asked for; what fails becomes a note, and the run is kept."""
    bundle, threads = done.bundle, done.environment.threads
    asked: dict[str, Any] = {"threads": threads, "device": options.device}
    wanted: dict[str, Callable[[], Any]] = {}
    if options.memory:
        wanted["memory"] = lambda: memory.measure(bundle, item, **asked)
    if options.roofline:
        wanted["roofline"] = lambda: roofline.measure(bundle, done.ms("infer", "p50"), **asked)
    if (data := options.data) is not None:
        wanted["accuracy"] = lambda: accuracy.measure(bundle, data, progress=progress, **asked)
    for name, measure in wanted.items():
        try:
            done = replace(done, **{name: measure()})
        except KeyboardInterrupt:
            return replace(done, incomplete=INTERRUPTED)
        except EdgeError as error:
            done = replace(done, notes=(*done.notes, f"no {name}: {error.message}; {error.remedy}"))
    return done


def _pace(measurement: Measurement, scenario: Scenario) -> report.Pace | None:
    if scenario.kind != "paced":
        return None
    queued = measurement.columns.index("queue")
    behind = measurement.rows[-1][queued] / 1e9 if measurement.rows else 0.0
    return report.Pace(measurement.due, measurement.dropped, round(behind, 4))


def _notes(
    scenario: Scenario, warm: report.WarmUp, traces: dict[str, stats.Samples], waiver: str | None
) -> tuple[str, ...]:
    notes = []
    if waiver is not None:
        notes.append(f"the gate failed and was waived: {waiver}")
    if not warm.stable:
        notes.append(f"UNSTABLE after {warm.seconds:.1f} s and {warm.frames} frames of warm-up")
    if len(traces["faces"]) and not traces["faces"].any():
        notes.append("the network reported no face, so postprocess is what empty frames cost")
    if scenario.kind == "sustained" and len(traces[AT]) < 10 * stats.MIN_SAMPLES["p50"]:
        notes.append("too few samples to tell a drift")
    if scenario.kind == "offline":
        notes.append(
            "offline: end to end is the time one worker spent on a frame; the headline is the throughput"
        )
    return tuple(notes)
