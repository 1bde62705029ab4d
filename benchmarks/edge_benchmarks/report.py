"""What a run measured, as data: stages, verdict, and the JSON file. Method and schema: ``docs/benchmark-method.md``.

A figure is stated only if it can be known; what is not known is None here and ``null`` in JSON, with a reason beside it.
"""

from __future__ import annotations

import base64
import json
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_benchmarks.environment import Environment
from edge_benchmarks.stats import (
    MIN_SAMPLES,
    Histogram,
    Percentile,
    Samples,
    histogram,
    percentiles,
)
from edge_sdk.bundle import GateResult
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.files import read_file, write_atomically
from edge_sdk.schema import from_plain, to_plain

SCHEMA = 2
"""Of the file. It grows with every change that an older reader would misunderstand."""

PROTOCOL = "EB-1"
DERIVED = ("schema", "protocol", "verdict", "reasons", "unknown")
"""Keys of a run in the file that follow from the others: a reader computes them again and ignores what is written."""

END_TO_END = "end_to_end"
AT = "at"
"""Trace of when each decision was asked for, nanoseconds from the start of the measurement; no stage."""

MAX_BYTES = 2**28
"""Of a report file."""
MAX_SAMPLES = 2**25
"""Of all traces of a report together, 268 MB: six traces of a thousand decisions per second for an hour and a half."""
MAX_PARTS = 2_000_000
"""Objects, arrays and their elements in a report: each may take thirty times the memory of its two characters."""

MAX_BACKGROUND = 0.10
"""Share of all cores that others may take during a valid run."""

MAX_CLOCK_CV = 0.03
"""Standard deviation of the processor's clock during a valid run, as a share of its mean."""

ScenarioKind = Literal["single-stream", "paced", "multi-stream", "offline", "cold", "sustained"]


@dataclass(frozen=True)
class Scenario:
    """A scenario and its parameters; those that it does not have are None.

    Attributes:
        kind: see ``docs/benchmark-method.md``.
        duration_s: asked for; None for ``cold``, which counts processes.
        fps: of the camera that ``paced`` stands for.
        drop: what ``paced`` does with frames it has no time for: ``latest`` skips them, ``none`` queues them.
        streams: at once, in ``multi-stream`` and ``offline``.
        processes: of ``cold``.
        page_cache: in ``cold``: ``kept`` between the processes, or ``dropped`` before each.
    """

    kind: ScenarioKind
    duration_s: float | None = None
    fps: float | None = None
    drop: Literal["latest", "none"] | None = None
    streams: int | None = None
    processes: int | None = None
    page_cache: Literal["kept", "dropped"] | None = None


@dataclass(frozen=True)
class Stage:
    """Time that one stage took, every sample counted.

    Attributes:
        count: of samples.
        min_ms: shortest.
        mean_ms: of all.
        max_ms: longest.
        percentiles: by nearest rank; None where the samples are too few.
        histogram: of all samples.
    """

    count: int
    min_ms: float
    mean_ms: float
    max_ms: float
    percentiles: Mapping[str, Percentile | None]
    histogram: Histogram


@dataclass(frozen=True)
class WarmUp:
    """The warm-up before the measurement; its samples are not counted.

    Attributes:
        seconds: it took.
        frames: it ran.
        stable: three windows in a row agreed.
    """

    seconds: float
    frames: int
    stable: bool


@dataclass(frozen=True)
class FaceGroup:
    """Decisions on the pictures with one number of faces.

    Attributes:
        drawn: faces on each picture; None where nobody counted.
        decisions: made on them.
        reported: mean number of faces per decision that the network reported.
        p50_ms: median end to end; None where they are too few.
    """

    drawn: int | None
    decisions: int
    reported: float
    p50_ms: float | None


@dataclass(frozen=True)
class Frames:
    """The pictures of a run.

    Attributes:
        origin: ``"drawn"``, or the user's folder.
        sha256: over the pixels of the set.
        distinct: pictures in the set.
        size: widest and highest, such as ``"640x480"``.
        unit: of a decision: a whole ``frame``, or one ``face`` of it for networks that look at crops.
        faces_reported: mean number of faces per decision that the network reported during the measurement.
        groups: by faces on the picture.
    """

    origin: str
    sha256: str
    distinct: int
    size: str
    unit: Literal["frame", "face"]
    faces_reported: float
    groups: tuple[FaceGroup, ...]


@dataclass(frozen=True)
class Throughput:
    """Decisions per second over the whole measurement, with its 95 % interval if it lasted ten seconds or more."""

    per_s: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Pace:
    """How a ``paced`` run kept up with its camera.

    Attributes:
        due: frames the camera gave.
        dropped: of them, never looked at.
        behind_s: how late the last decision was begun.
    """

    due: int
    dropped: int
    behind_s: float


@dataclass(frozen=True)
class Drift:
    """Latency in the last tenth of a run against its first: what heat does.

    Attributes:
        first_p50_ms: median end to end of the first tenth.
        last_p50_ms: of the last.
        change: last over first, less one; ``low`` and ``high`` are its 95 % interval.
    """

    first_p50_ms: float
    last_p50_ms: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Health:
    """What disturbed the machine during the measurement; None means unknown.

    Attributes:
        throttled: it was slowed.
        throttle: how that is known, what slowed it, or why it is unknown.
        clock_cv: standard deviation of the clock over its mean.
        clock: how that is known, or why it is unknown.
        as_shipped: the user wants the governor as it is, so a moving clock is no reason against the run.
        background_share: part of all cores' time that others, or the hypervisor, took: 0..1.
        swapped_in: pages read back from swap.
        golden: the golden vectors were run on this device, and passed.
    """

    throttled: bool | None
    throttle: str
    clock_cv: float | None
    clock: str
    as_shipped: bool
    background_share: float | None
    swapped_in: int | None
    golden: bool


@dataclass(frozen=True)
class Series:
    """Readings between frames, about once per second; an entry is None where it could not be read.

    Attributes:
        at_s: seconds from the start of the measurement.
        clock_mhz: mean over the cores.
        temperature_c: of the hottest sensor.
        power_w: mean since the entry before.
    """

    at_s: tuple[float, ...] = ()
    clock_mhz: tuple[float | None, ...] = ()
    temperature_c: tuple[float | None, ...] = ()
    power_w: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Energy:
    """Energy per decision; figures are None where there is no source, for the ``reason``.

    Attributes:
        source: what was read.
        scope: what that covers.
        reason: why there is no figure; empty beside one.
        gross_mj: energy of the measurement over its decisions, millijoules.
        net_mj: the same less what the idle machine takes.
        mean_w: power during the measurement.
        idle_w: before the model was loaded.
        readings: of the source during the measurement.
    """

    source: str | None
    scope: str
    reason: str
    gross_mj: float | None
    net_mj: float | None
    mean_w: float | None
    idle_w: float | None
    readings: int


@dataclass(frozen=True)
class Memory:
    """Memory of a fresh process, megabytes (10**6 bytes); see ``edge_benchmarks.memory``.

    Attributes:
        start_mb: resident, with Python, numpy and the SDK imported.
        loaded_mb: peak once the bundle is loaded and has proved itself.
        peak_mb: peak after ``frames``.
        pss_mb: largest proportional set size seen, in which shared pages count in part; None off Linux.
        frames: it ran.
    """

    start_mb: float
    loaded_mb: float
    peak_mb: float
    pss_mb: float | None
    frames: int


@dataclass(frozen=True)
class Roofline:
    """Operations per second of the network beside the engine's measured peak; a figure is None for the ``reason``.

    Attributes:
        gmacs: multiply-accumulates of one inference, 10**9.
        counted: from what.
        achieved_gops: 10**9 operations per second, two per multiply-accumulate, over the median of ``infer``.
        peak_gops: of a stack of 1x1 convolutions (matrix products) through the same engine, precision and threads.
        share: achieved over peak.
        reason: why a figure is missing.
    """

    gmacs: float | None
    counted: str
    achieved_gops: float | None
    peak_gops: float | None
    share: float | None
    reason: str


@dataclass(frozen=True)
class Figure:
    """A metric and its 95 % interval, fractions; without one for what the gate measured before intervals existed."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Accuracy:
    """Of this bundle.

    Attributes:
        source: ``gate``: when it was built; ``measured``: in this run, on this machine.
        items: pictures.
        sha256: over them.
        metrics: by name.
    """

    source: Literal["gate", "measured"]
    items: int
    sha256: str
    metrics: Mapping[str, Figure]


@dataclass(frozen=True)
class Harness:
    """What the measurement itself costs, measured on a null model that only touches memory as an engine does.

    Attributes:
        inside_us: median of what it adds to a frame's end-to-end latency, microseconds.
        around_us: median of what it adds to the time between two frames, ``inside_us`` included, microseconds.
        frames: number of frames measured.
    """

    inside_us: float
    around_us: float
    frames: int


@dataclass(frozen=True)
class Run:
    """One bundle measured once.

    Attributes:
        name: of the model.
        target: engine.
        precision: of the graph.
        bundle: path or zoo name as asked for.
        chosen: why this bundle was taken.
        sha256: identity of the bundle.
        gate: what the accuracy gate measured when the bundle was built.
        scenario: and its parameters.
        started: time of day, UTC.
        duration_s: wall seconds of the measurement, without warm-up.
        count: decisions.
        stages: by name, in the order of a frame; ``end_to_end`` is the headline.
        throughput: decisions per second.
        warm_up: before it; None for ``cold``.
        frames: it looked at.
        environment: it ran in.
        health: of the machine meanwhile.
        series: clocks, temperature and power over time.
        energy: per decision.
        accuracy: of this bundle; None if nothing is known.
        harness: its own cost; None where there is no loop.
        pace: of ``paced``.
        drift: of ``sustained``.
        memory: if asked for.
        roofline: if asked for.
        incomplete: why the measurement ended early; what came before is here.
        notes: remarks for the reader.
        traces: name to nanoseconds of every sample, in order; only in saved files.
    """

    name: str
    target: str
    precision: str
    bundle: str
    chosen: str
    sha256: str
    gate: GateResult
    scenario: Scenario
    started: str
    duration_s: float
    count: int
    stages: Mapping[str, Stage]
    throughput: Throughput | None
    warm_up: WarmUp | None
    frames: Frames
    environment: Environment
    health: Health
    series: Series
    energy: Energy
    accuracy: Accuracy | None
    harness: Harness | None
    pace: Pace | None = None
    drift: Drift | None = None
    memory: Memory | None = None
    roofline: Roofline | None = None
    incomplete: str | None = None
    notes: tuple[str, ...] = ()
    traces: Mapping[str, Samples] = field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        """Model, target and precision: what a row of a table calls it."""
        return f"{self.name} {self.target} {self.precision}"

    def ms(self, stage: str, percentile: str) -> float | None:
        """A percentile in milliseconds; None where there is no such stage or too few samples."""
        found = self.stages[stage].percentiles.get(percentile) if stage in self.stages else None
        return None if found is None else found.ms

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the figures should not be quoted: one sentence per reason, none for a valid run."""
        h, found = self.health, []
        if self.incomplete is not None:
            found.append(f"incomplete: {self.incomplete}")
        # What heat does is what `sustained` measures; elsewhere it spoils the figures.
        if h.throttled and self.scenario.kind != "sustained":
            found.append(f"throttled: {h.throttle}")
        moved = h.clock_cv is not None and h.clock_cv > MAX_CLOCK_CV
        if moved and not h.as_shipped and self.scenario.kind != "sustained":
            found.append(
                f"the clock varied by {h.clock_cv:.1%}, at most {MAX_CLOCK_CV:.0%} allowed: fix the governor, "
                "or measure it with --governor-as-shipped"
            )
        if h.background_share is None:
            found.append("background load is unknown on this system")
        elif h.background_share > MAX_BACKGROUND:
            found.append(
                f"background load: others took {h.background_share:.0%} of all cores, "
                f"at most {MAX_BACKGROUND:.0%} allowed"
            )
        if h.swapped_in:
            found.append(f"swap: {h.swapped_in} pages were read back during the run")
        if not h.golden:
            found.append("golden vectors were not run on this device")
        if not self.gate.metrics:
            found.append("missing gate: the bundle does not say how accurate it is")
        if self.warm_up is not None and not self.warm_up.stable:
            found.append("UNSTABLE: latency still moved at the end of the warm-up")
        if self.count < MIN_SAMPLES["p50"]:
            found.append(f"too few samples: {self.count}, a median needs {MIN_SAMPLES['p50']}")
        if self.pace is not None and self.scenario.drop == "none" and self.pace.behind_s > 1:
            found.append(f"cannot keep up: {self.pace.behind_s:.1f} s behind at the end")
        return tuple(found)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Facts that this machine cannot tell, so that VALID does not cover them."""
        facts = {
            "throttling": self.health.throttled,
            "clocks": self.health.clock_cv,
            "swap": self.health.swapped_in,
        }
        return tuple(name for name, value in facts.items() if value is None)

    @property
    def verdict(self) -> Literal["VALID", "INVALID"]:
        """VALID if there is no reason against it; see ``unknown`` for what nobody could look at."""
        return "INVALID" if self.reasons else "VALID"

    def to_dict(self, *, traces: bool = False) -> dict[str, Any]:
        """Plain values for JSON, with or without the single samples."""
        plain: dict[str, Any] = to_plain(replace(self, traces={}))
        plain["traces"] = {name: pack(samples) for name, samples in self.traces.items()} if traces else {}
        return {
            "schema": SCHEMA,
            "protocol": PROTOCOL,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "unknown": list(self.unknown),
            **plain,
        }

    def save(self, path: str | Path) -> None:
        """Write this run alone; see :func:`save`."""
        save([self], path)


@dataclass(frozen=True)
class Failure:
    """A measurement that could not be made: its name, and the error's message and remedy."""

    what: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """Contents of a report file: runs, and measurements that could not be made."""

    runs: tuple[Run, ...]
    failures: tuple[Failure, ...] = ()


def stage(samples_ns: npt.ArrayLike, *, duration_s: float) -> Stage:
    """Summarise at least one sample of one stage; see :func:`edge_benchmarks.stats.percentiles`."""
    samples = np.asarray(samples_ns, np.int64)
    return Stage(
        count=len(samples),
        min_ms=float(samples.min()) / 1e6,
        mean_ms=float(samples.mean()) / 1e6,
        max_ms=float(samples.max()) / 1e6,
        percentiles=percentiles(samples, duration_s=duration_s),
        histogram=histogram(samples),
    )


def pack(samples: Samples) -> dict[str, Any]:
    """Nanoseconds as text: differences of neighbours, little-endian int64, zlib, base64; about 4 bytes per sample."""
    differences = np.diff(samples, prepend=np.int64(0)).astype("<i8")
    return {
        "count": len(samples),
        "data": base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode(),
    }


def unpack(packed: object, limit: int = MAX_SAMPLES) -> Samples:
    """The samples that :func:`pack` packed.

    Args:
        packed: what it made.
        limit: samples that are read at most.

    Raises:
        ValueError: it was not made by that, or there are more.
    """
    if not isinstance(packed, dict) or set(packed) != {"count", "data"}:
        raise ValueError("a trace has a count and data")
    count = packed["count"]
    if type(count) is not int or not 0 <= count <= limit:
        raise ValueError(f"a trace of {count!r} samples, at most {MAX_SAMPLES:,} are read of a file")
    try:
        # A file may be anybody's: it shall not unpack to more than it says.
        engine = zlib.decompressobj()
        data = engine.decompress(base64.b64decode(packed["data"], validate=True), 8 * count + 1)
    except zlib.error as error:
        raise ValueError(f"a trace is damaged: {error}") from error
    if len(data) != 8 * count:
        raise ValueError(f"a trace of {len(data)} bytes instead of {8 * count}")
    return np.cumsum(np.frombuffer(data, "<i8"), dtype=np.int64)


def save(runs: Sequence[Run], path: str | Path, failures: Sequence[Failure] = ()) -> None:
    """Write runs with every sample as JSON, whole or not at all: under a temporary name, then renamed.

    More samples than a reader takes are left out, with a warning; the figures and histograms made of them are not.

    Raises:
        InputError: the folder is missing, not writable or full; an older file of that name is untouched.
    """
    samples = sum(len(trace) for run in runs for trace in run.traces.values())
    if samples > MAX_SAMPLES:
        warnings.warn(
            f"{path}: {samples:,} single samples are left out, {MAX_SAMPLES:,} can be read", stacklevel=2
        )
    plain = {
        "schema": SCHEMA,
        "protocol": PROTOCOL,
        "runs": [run.to_dict(traces=samples <= MAX_SAMPLES) for run in runs],
        "failures": to_plain(tuple(failures)),
    }
    write_atomically(path, json.dumps(plain, indent=1, allow_nan=False) + "\n")


def read(path: str | Path) -> tuple[Run, ...]:
    """The runs of a file that :func:`save` wrote.

    Raises:
        InputError: the file cannot be read, or is not a report of this version.
    """
    return read_report(path).runs


def read_report(path: str | Path) -> Report:
    """Everything in a file that :func:`save` wrote.

    Raises:
        InputError: the file cannot be read, or is not a report of this version.
    """
    remedy = "name a file that 'edge-sdk bench -o' of this version wrote"
    try:
        text = read_file(path, limit=MAX_BYTES, what="benchmark report").decode("utf-8")
        if (parts := sum(map(text.count, "{[,"))) > MAX_PARTS:
            raise InputError(f"{path} has {parts:,} parts, a report at most {MAX_PARTS:,}", remedy=remedy)
        plain = json.loads(text)
        if not isinstance(plain, dict) or "schema" not in plain:
            raise InputError(f"{path} is not a benchmark report", remedy=remedy)
        if plain["schema"] != SCHEMA:
            raise InputError(
                f"{path} is a benchmark report of schema {plain['schema']!r}, this version reads {SCHEMA}",
                remedy="measure again, or read it with the version that wrote it",
            )
        runs, left = [], MAX_SAMPLES
        for i, run in enumerate(plain["runs"]):
            runs.append(_run(run, f"runs[{i}]", left))
            left -= sum(len(samples) for samples in runs[-1].traces.values())
        failures = tuple(
            from_plain(Failure, failure, f"failures[{i}]")
            for i, failure in enumerate(plain.get("failures", ()))
        )
        return Report(tuple(runs), failures)
    except (RecursionError, ValueError, KeyError, TypeError, AttributeError, ManifestInvalid) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a benchmark report: {error}", remedy=remedy) from error


def _run(plain: Mapping[str, Any], where: str, limit: int) -> Run:
    rest = {key: value for key, value in plain.items() if key not in (*DERIVED, "traces")}
    traces: dict[str, Samples] = {}
    for name, packed in plain["traces"].items():
        traces[str(name)] = unpack(packed, limit)
        limit -= len(traces[str(name)])
    return replace(from_plain(Run, rest, where), traces=traces)
