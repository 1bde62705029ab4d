"""The loops of ``docs/benchmark-method.md``: when each scenario asks for a decision, and what is recorded of it."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import numpy as np

from edge_benchmarks import report, stats
from edge_benchmarks.monitor import Monitor
from edge_benchmarks.report import AT, END_TO_END, Scenario, ScenarioKind
from edge_benchmarks.system_under_test import Item, ItemStream, ModelUnderTest, NullModel, SystemUnderTest
from edge_sdk.errors import EdgeError
from edge_sdk.timing import now_ns

Clock = Callable[[], int]
Progress = Callable[[int, int], None]

AGREEMENT = 0.03
"""Three warm-up windows in a row whose medians lie this close together end the warm-up."""

WINDOW_FRAMES = 100
NULL_FRAMES = 300
MAX_NAP_S = 0.05
"""Longest sleep in seconds while no frame is due: a request to stop is noticed no later than this."""

INTERRUPTED = "interrupted by the user"


class StopRequest:
    """Ctrl-C during a measurement: the first ends it after the current frame, a second one interrupts at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopRequest:
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
    """Collects the samples of one measurement and says when it is over.

    Args:
        columns: names of the stages of a row, whose values are nanoseconds.
        duration_s: seconds after which it is over.
        monitor: reads the machine's state between frames.
        clock: returns nanoseconds.
        progress: called with the milliseconds done and their total, at most ten times per second.
        stop: the user's request to end early.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        duration_s: float,
        monitor: Monitor | None = None,
        clock: Clock = now_ns,
        progress: Progress = lambda done, total: None,
        stop: StopRequest | None = None,
    ) -> None:
        self.columns = (AT, "item", "faces", *columns, END_TO_END)
        self.rows: list[tuple[int, ...]] = []
        self.extra: dict[str, list[int]] = {}
        self.incomplete: str | None = None
        self.clock = clock
        self.due = self.dropped = 0
        self._monitor, self._progress, self._stop = monitor, progress, stop or StopRequest()
        self._duration_ns = int(min(duration_s, 1e9) * 1e9)
        self._shown = -1
        self.start = self.end = clock()

    def begin(self) -> None:
        """The measurement starts now."""
        if self._monitor is not None:
            self._monitor.start()
        self.start = self.end = self.clock()

    def goes_on(self) -> bool:
        """Whether another frame is measured; also reads the machine and reports progress, between two frames."""
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
        """Run a loop; if an error or Ctrl-C ends it early, its samples are kept and ``incomplete`` says why."""
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


def columns_of(scenario: Scenario, subject: SystemUnderTest) -> tuple[str, ...]:
    """Names of the stages of a row: the waits of the scenario, then the stages of the system under test."""
    before = {"paced": ("queue", "capture"), "multi-stream": (), "offline": ()}
    return (*before.get(scenario.kind, ("capture",)), *subject.stages)


def warm_up(
    subject: SystemUnderTest,
    feed: ItemStream,
    *,
    cap_s: float,
    clock: Clock = now_ns,
    stop: StopRequest | None = None,
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
    measurement: Measurement, subjects: Sequence[SystemUnderTest], feed: ItemStream, scenario: Scenario
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


def paced(
    measurement: Measurement, subjects: Sequence[SystemUnderTest], feed: ItemStream, scenario: Scenario
) -> None:
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
    measurement: Measurement, subjects: Sequence[SystemUnderTest], feed: ItemStream, scenario: Scenario
) -> None:
    """Frames of all cameras arrive at once, each goes to a model of its own; the next ones come when all are done."""
    clock, rows, start = measurement.clock, measurement.rows, measurement.start
    queries = measurement.extra.setdefault("query", [])

    def decide(subject: SystemUnderTest, item: Item) -> tuple[Any, int]:
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


def offline(
    measurement: Measurement, subjects: Sequence[SystemUnderTest], feed: ItemStream, scenario: Scenario
) -> None:
    """All frames are there from the start; every model takes the next one when it is done with its last."""
    clock, rows, start = measurement.clock, measurement.rows, measurement.start
    over, lock = threading.Event(), threading.Lock()

    def work(subject: SystemUnderTest) -> None:
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


Loop = Callable[[Measurement, Sequence[SystemUnderTest], ItemStream, Scenario], None]
LOOPS: dict[ScenarioKind, Loop] = {
    "single-stream": single_stream,
    "sustained": single_stream,
    "paced": paced,
    "multi-stream": multi_stream,
    "offline": offline,
}


def harness_cost(count: int = NULL_FRAMES) -> report.Harness:
    """What the closed loop itself adds to a latency: the same loop around a null model that only touches memory."""
    model = NullModel()
    picture = np.zeros((8, 8, 3), np.uint8)
    measurement = Measurement(("capture", "preprocess", "infer", "postprocess"), duration_s=1e9)
    subject: Any = ModelUnderTest(model)  # type: ignore[arg-type]  # a null model is called as a model is
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
