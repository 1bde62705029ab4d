"""Ways to load a model with work, each measured end to end; the rules are in ``docs/benchmark-method.md``."""

from __future__ import annotations

import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from edge_benchmarks import accuracy, cold, energy, environment, memory, report, roofline, stats
from edge_benchmarks.frames import FrameSet, frame_set
from edge_benchmarks.monitor import Monitor
from edge_benchmarks.report import AT, END_TO_END, Run, Scenario, ScenarioKind
from edge_benchmarks.subject import Item, ModelSubject, NullModel, Subject, Supply, items_of, supply
from edge_sdk.errors import EdgeError, InputError
from edge_sdk.model import ModelInfo, load
from edge_sdk.target import LoadOptions, find_target
from edge_sdk.timing import now_ns
from edge_targets.threads import thread_count

SCENARIOS: tuple[ScenarioKind, ...] = (
    "single-stream", "paced", "multi-stream", "offline", "cold", "sustained",
)  # fmt: skip

Clock = Callable[[], int]
Progress = Callable[[int, int], None]

AGREEMENT = 0.03
"""Three warm-up windows in a row whose medians lie this close together end the warm-up."""

WINDOW_FRAMES = 100
MAX_WARM_UP_S = 60.0
SUSTAINED_S = 900.0
DEFAULT_S = 10.0
DEFAULT_FPS = 30.0
DEFAULT_STREAMS = 2
DEFAULT_PROCESSES = 20
NULL_FRAMES = 300
MAX_NAP_S = 0.05
"""Longest sleep while nothing is due: how late a request to stop may be heard."""

INTERRUPTED = "interrupted by the user"


@dataclass(frozen=True)
class Options:
    """What beside the scenario a run may be asked.

    Attributes:
        device: where the engine must run, such as ``"GPU"``; None takes the bundle's usual one.
        threads: of each engine; None takes as many as :func:`edge_sdk.load`, shared among the streams.
        frames: folder of the user's own pictures; None takes the drawn ones.
        size: (width, height) to scale the pictures to.
        as_shipped: the governor is meant to be as it is, so that a moving clock does not count against the run.
        energy: read what the machine draws.
        meter: log of an external meter, read when the measurement is over.
        idle_s: seconds of the idle machine before a run with energy.
        memory: measure peak memory too, in a process of its own.
        roofline: measure the engine's peak too, after the run.
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


class Stop:
    """A wish to end early: the first Ctrl-C is noted between frames, a second one interrupts at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Stop:
        """Listen."""
        self._ours = threading.current_thread() is threading.main_thread()
        if self._ours:
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Measurement:
    """The samples of one measurement, and when it is over.

    Args:
        columns: names of the nanoseconds of a row.
        duration_s: after which it is over.
        monitor: looks at the machine between frames.
        clock: in nanoseconds.
        progress: called with milliseconds done and of how many, ten times a second at most.
        stop: a wish to end early.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        duration_s: float,
        monitor: Monitor | None = None,
        clock: Clock = now_ns,
        progress: Progress = lambda done, total: None,
        stop: Stop | None = None,
    ) -> None:
        self.columns = (AT, "item", "faces", *columns, END_TO_END)
        self.rows: list[tuple[int, ...]] = []
        self.extra: dict[str, list[int]] = {}
        self.incomplete: str | None = None
        self.clock = clock
        self.due = self.dropped = 0
        self._monitor, self._progress, self._stop = monitor, progress, stop or Stop()
        self._duration_ns = int(min(duration_s, 1e9) * 1e9)
        self._shown = -1
        self.start = self.end = clock()

    def begin(self) -> None:
        """The measurement starts now."""
        if self._monitor is not None:
            self._monitor.start()
        self.start = self.end = self.clock()

    def goes_on(self) -> bool:
        """Whether another frame shall be measured; what must be seen to between frames is seen to here."""
        now = self.end = self.clock()
        if self._monitor is not None:
            self._monitor.poll(now)
        if self._stop.asked:
            self.incomplete = INTERRUPTED
            return False
        done = min(self._duration_ns, now - self.start) // 1_000_000
        if done // 100 > self._shown:
            self._shown = done // 100
            self._progress(done, self._duration_ns // 1_000_000)
        # There is at least one frame, however short the duration.
        return now - self.start < self._duration_ns or not self.rows

    def guard(self, loop: Callable[[], None]) -> None:
        """Run a loop; whatever ends it early, what it measured stays."""
        try:
            loop()
        except KeyboardInterrupt:
            self.incomplete = INTERRUPTED
        except Exception as error:  # an engine or a camera that vanishes raises whatever it likes
            text = error.message if isinstance(error, EdgeError) else str(error)
            self.incomplete = " ".join(f"{type(error).__name__}: {text}".split())
        self.end = self.clock()

    @property
    def seconds(self) -> float:
        """Wall time from the start to the end."""
        return (self.end - self.start) / 1e9

    def traces(self) -> dict[str, stats.Samples]:
        """Columns of the samples; ``item`` and ``faces`` are counts, the others nanoseconds."""
        table = np.array(self.rows, np.int64).reshape(len(self.rows), len(self.columns))
        named = {name: table[:, i].copy() for i, name in enumerate(self.columns)}
        return named | {name: np.array(values, np.int64) for name, values in self.extra.items()}


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
        scenario: one of ``SCENARIOS``, or one with its parameters.
        duration_s: of the measurement, for a scenario given by name; warm-up comes before it.
        threads: of the engine; the same as in ``options``.
        frames: folder of the user's own pictures; the same as in ``options``.
        options: everything else.
        progress: called with milliseconds done and of how many.

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
        scenario = described(scenario, duration_s=duration_s)
    check(scenario, asked)
    started, before = environment.now(), environment.moment()
    pictures = frame_set(asked.frames, asked.size)
    source = energy.find() if asked.energy and asked.meter is None else None
    monitor = Monitor(source, meter=asked.meter)
    monitor.rest(asked.idle_s)
    measure = _cold if scenario.kind == "cold" else _loop
    with Stop() as stop:
        done, first = measure(
            bundle, scenario, asked, pictures, _Watch(started, before, monitor, progress, stop)
        )
    # What would disturb is measured apart; not after an interrupt, whose user wants the end.
    return done if done.incomplete is not None else _with_extras(done, first, asked, progress)


def described(
    kind: str,
    *,
    duration_s: float | None = None,
    fps: float | None = None,
    drop: Literal["latest", "none"] | None = None,
    streams: int | None = None,
    processes: int | None = None,
    page_cache: Literal["kept", "dropped"] | None = None,
) -> Scenario:
    """A scenario by name, with the usual value of every parameter that it has and that is not given.

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
    """Refuse what cannot be measured.

    Raises:
        InputError: a number that is not positive and finite, or not of this machine's order.
    """
    for name, value, most, unit in (
        ("duration", scenario.duration_s, 7 * 86_400, "seconds"),
        ("camera rate", scenario.fps, 10_000, "frames a second"),
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
class _Watch:
    """What a run takes along."""

    started: str
    before: environment.Moment
    monitor: Monitor
    progress: Progress
    stop: Stop


def _loop(
    bundle: str | Path, scenario: Scenario, options: Options, pictures: FrameSet, watch: _Watch
) -> tuple[Run, Item]:
    """Every scenario that runs in this process; also the item that extras may look at."""
    assert scenario.duration_s is not None
    cost = harness_cost()
    streams = scenario.streams or 1
    threads = options.threads or max(1, thread_count(LoadOptions()) // streams)
    with ExitStack() as stack:
        models = [
            stack.enter_context(load(bundle, threads=threads, device=options.device)) for _ in range(streams)
        ]
        info = models[0].info
        items = items_of(pictures, info.task)
        subjects = [ModelSubject(model) for model in models]
        feed = supply(items)
        measurement = Measurement(
            _columns(scenario, subjects[0]),
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
            loop = _LOOPS[scenario.kind]
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
    bundle: str | Path, scenario: Scenario, options: Options, pictures: FrameSet, watch: _Watch
) -> tuple[Run, Item]:
    """Fresh processes; the bundle is loaded here once, to know it, before any of them is timed."""
    assert scenario.processes is not None
    assert scenario.page_cache is not None
    threads = options.threads or thread_count(LoadOptions())
    with load(bundle, threads=threads, device=options.device) as model:
        info = model.info
    items = items_of(pictures, info.task)
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
    watch: _Watch,
) -> Run:
    """A run of what was measured, without what only some scenarios have."""
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
        frames=describe_frames(pictures, items, traces, info.task),
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
    """The run with what was asked for beside the latencies; they stay, whatever cannot be known."""
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


def warm_up(
    subject: Subject, feed: Supply, *, cap_s: float, clock: Clock = now_ns, stop: Stop | None = None
) -> report.WarmUp:
    """Run until three windows in a row agree on the median within 3 %, or the cap is reached.

    A window has 100 frames, fewer if they take longer than a twentieth of the cap, but as many as a median needs. The
    warm-up lasts a sixth of the cap at least: 10 s before a run of a minute or more.
    """
    start = clock()
    cap_ns = int(cap_s * 1e9)
    least = stats.MIN_SAMPLES["p50"]
    medians: list[float] = []
    frames, stable = 0, False
    while not (stable and clock() - start >= cap_ns // 6) and clock() - start < cap_ns:
        window: list[int] = []
        opened = clock()
        while len(window) < least or (len(window) < WINDOW_FRAMES and clock() - opened < cap_ns // 20):
            before = clock()
            subject(next(feed))
            window.append(clock() - before)
            if clock() - start >= cap_ns or (stop is not None and stop.asked):
                break
        frames += len(window)
        if stop is not None and stop.asked:
            break
        if len(window) >= least:
            medians.append(statistics.median(window))
        last = medians[-3:]
        stable = len(last) == 3 and max(last) <= min(last) * (1 + AGREEMENT)
    return report.WarmUp(round((clock() - start) / 1e9, 3), frames, stable)


def single_stream(
    measurement: Measurement, subjects: Sequence[Subject], feed: Supply, scenario: Scenario
) -> None:
    """Closed loop: the next frame is asked for when the last is done."""
    (subject,), clock, rows = subjects, measurement.clock, measurement.rows
    start = measurement.start
    while measurement.goes_on():
        begin = clock()
        item = next(feed)
        captured = clock()
        decided = subject(item)
        done = clock()
        faces, times = subject.read(decided)
        rows.append((begin - start, item.number, faces, captured - begin, *times, done - begin))


def paced(measurement: Measurement, subjects: Sequence[Subject], feed: Supply, scenario: Scenario) -> None:
    """Open loop: frames are due at a camera's rate, and every latency counts from when its frame was due."""
    assert scenario.fps is not None
    assert scenario.duration_s is not None
    (subject,), clock, rows = subjects, measurement.clock, measurement.rows
    start, period = measurement.start, 1e9 / scenario.fps
    number = 0
    while measurement.goes_on():
        now = clock()
        newest = int((now - start) // period)
        if newest > number and scenario.drop == "latest":
            measurement.dropped += newest - number
            number = newest
        due = start + int(number * period)
        if now < due:
            time.sleep(min(MAX_NAP_S, (due - now) / 1e9))
            continue
        begin = clock()
        item = next(feed)
        captured = clock()
        decided = subject(item)
        done = clock()
        faces, times = subject.read(decided)
        rows.append((due - start, item.number, faces, begin - due, captured - begin, *times, done - due))
        number += 1
    # Frames that wait behind a stall when the time is up were due as well.
    measurement.due = max(number, int(min(clock() - start, scenario.duration_s * 1e9) // period))


def multi_stream(
    measurement: Measurement, subjects: Sequence[Subject], feed: Supply, scenario: Scenario
) -> None:
    """Frames of all cameras arrive at once, each goes to a model of its own; the next ones come when all are done."""
    clock, rows, start = measurement.clock, measurement.rows, measurement.start
    queries = measurement.extra.setdefault("query", [])

    def decide(subject: Subject, item: Item) -> tuple[Any, int]:
        decided = subject(item)
        return decided, clock()

    with ThreadPoolExecutor(len(subjects)) as pool:
        while measurement.goes_on():
            items = [next(feed) for _ in subjects]
            begin = clock()
            asked = [pool.submit(decide, s, item) for s, item in zip(subjects, items, strict=True)]
            answers = [future.result() for future in asked]
            queries.append(clock() - begin)
            for subject, item, (decided, done) in zip(subjects, items, answers, strict=True):
                faces, times = subject.read(decided)
                rows.append((begin - start, item.number, faces, *times, done - begin))


def offline(measurement: Measurement, subjects: Sequence[Subject], feed: Supply, scenario: Scenario) -> None:
    """All frames are there from the start; every model takes the next one when it is done with its last."""
    clock, rows, start = measurement.clock, measurement.rows, measurement.start
    over, lock = threading.Event(), threading.Lock()

    def work(subject: Subject) -> None:
        while not over.is_set():
            with lock:
                item = next(feed)
            begin = clock()
            decided = subject(item)
            done = clock()
            faces, times = subject.read(decided)
            rows.append((begin - start, item.number, faces, *times, done - begin))

    with ThreadPoolExecutor(len(subjects)) as pool:
        workers = [pool.submit(work, subject) for subject in subjects]
        try:
            while measurement.goes_on() and not any(worker.done() for worker in workers):
                time.sleep(MAX_NAP_S)
        finally:
            over.set()
        for worker in workers:
            worker.result()


Loop = Callable[[Measurement, Sequence[Subject], Supply, Scenario], None]
_LOOPS: dict[ScenarioKind, Loop] = {
    "single-stream": single_stream,
    "sustained": single_stream,
    "paced": paced,
    "multi-stream": multi_stream,
    "offline": offline,
}


def harness_cost(count: int = NULL_FRAMES) -> report.Harness:
    """What the closed loop adds to a model: the same loop around one that only walks through memory."""
    model = NullModel()
    picture = np.zeros((8, 8, 3), np.uint8)
    measurement = Measurement(("capture", "preprocess", "infer", "postprocess"), duration_s=1e9)
    subject: Any = ModelSubject(model)  # type: ignore[arg-type]  # a null model is called as a model is
    wanted = Scenario("single-stream", 1e9)
    feed: Iterator[Item] = iter([Item(0, picture, None, 0)] * count)
    measurement.guard(lambda: single_stream(measurement, [subject], feed, wanted))
    traces = measurement.traces()
    own = np.array(model.took_ns[:count], np.int64)
    inside = traces[END_TO_END] - own
    around = np.diff(traces[AT]) - own[:-1]
    return report.Harness(
        inside_us=round(float(np.median(inside)) / 1e3, 2),
        around_us=round(float(np.median(around)) / 1e3, 2),
        frames=len(own),
    )


def summaries(traces: dict[str, stats.Samples], seconds: float) -> dict[str, report.Stage]:
    """A summary of each stage that has samples."""
    return {
        name: report.stage(samples, duration_s=seconds)
        for name, samples in traces.items()
        if name not in (AT, "item", "faces") and len(samples)
    }


def throughput(at: stats.Samples, seconds: float) -> report.Throughput | None:
    """Decisions a second, with an interval from the counts of whole seconds if there are ten."""
    if not len(at) or seconds <= 0:
        return None
    whole = int(seconds)
    low = high = None
    if whole >= stats.MIN_BLOCKS:
        counts = np.bincount(np.minimum(at // 1_000_000_000, whole), minlength=whole + 1)[:whole]
        low, high = (
            float(v) for v in np.percentile(stats.resample_means(counts, block=1, seed=0), (2.5, 97.5))
        )
    return report.Throughput(len(at) / seconds, low, high)


def drift(samples: stats.Samples, seconds: float) -> report.Drift | None:
    """The last tenth against the first; None where a tenth is too short for a median."""
    tenth = len(samples) // 10
    if tenth < stats.MIN_SAMPLES["p50"]:
        return None
    block = stats.block_length(tenth, seconds / 10)
    middle = -(-tenth // 2) - 1
    first, last = (
        stats.resample(part, [middle], block=block, seed=seed)[:, 0]
        for seed, part in enumerate((samples[:tenth].copy(), samples[-tenth:].copy()))
    )
    low, high = np.percentile(last / first - 1, (2.5, 97.5))
    a, b = (float(np.sort(part)[middle]) / 1e6 for part in (samples[:tenth], samples[-tenth:]))
    return report.Drift(a, b, b / a - 1, float(low), float(high))


def age(traces: dict[str, stats.Samples], fps: float, due: int) -> stats.Samples:
    """How old the newest result is, seen once in every period of the camera, at a random moment of it.

    Dropped frames make it older although they have no latency of their own.
    """
    period = 1e9 / fps
    moments = (np.arange(due) + np.random.default_rng(0).random(due)) * period
    delivered = traces[AT] + traces[END_TO_END]
    newest = np.searchsorted(delivered, moments, side="right") - 1
    known = newest >= 0
    ages: stats.Samples = (moments[known] - traces[AT][newest[known]]).astype(np.int64)
    return ages


def describe_frames(
    pictures: FrameSet, items: Sequence[Item], traces: dict[str, stats.Samples], task: str
) -> report.Frames:
    """What was looked at, and what the network saw there."""
    drawn = np.array([-1 if item.drawn is None else item.drawn for item in items])[traces["item"]]
    groups = []
    for number in np.unique(drawn):
        mine = drawn == number
        total = np.sort(traces[END_TO_END][mine])
        middle = stats.rank("p50", len(total))
        groups.append(
            report.FaceGroup(
                drawn=None if number < 0 else int(number),
                decisions=int(mine.sum()),
                reported=round(float(traces["faces"][mine].mean()), 4),
                p50_ms=None if middle is None else float(total[middle]) / 1e6,
            )
        )
    height, width = np.max([image.shape[:2] for image in pictures.images], axis=0)
    return report.Frames(
        origin=pictures.origin,
        sha256=pictures.sha256,
        distinct=len(pictures.images),
        size=f"{width}x{height}",
        unit="frame" if task == "detection" else "face",
        faces_reported=round(float(traces["faces"].mean()), 4) if len(traces["faces"]) else 0.0,
        groups=tuple(groups),
    )


def _columns(scenario: Scenario, subject: Subject) -> tuple[str, ...]:
    """Stages of a row: what waits before the model's own."""
    before = {"paced": ("queue", "capture"), "multi-stream": (), "offline": ()}
    return (*before.get(scenario.kind, ("capture",)), *subject.stages)


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
