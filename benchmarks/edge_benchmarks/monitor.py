"""Reads clocks, temperatures, throttling, swap and power while a benchmark runs: between frames, never inside one.

No thread and no second process does this: either would take processor time from the model that is measured. A reading
takes some tenths of a millisecond about once per second, and lies outside of every latency.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np

from edge_benchmarks import energy, environment
from edge_benchmarks.report import Energy, Health, Series
from edge_sdk import host_info
from edge_sdk.host_info import Reading
from edge_sdk.timing import now_ns

SAMPLE_PERIOD_S = 1.0
MIN_CLOCK_READINGS = 5
"""Number of clock readings from which the clock's variation is stated."""

FOREVER = 1 << 62


class Monitor:
    """Watches the machine during one measurement.

    Args:
        source: where energy is read, or why there is none; None if energy was not asked for.
        meter: CSV log of an external meter, instead of a source; read when the measurement is over.
        root: of the file system that ``/proc`` and ``/sys`` are read from.
    """

    def __init__(
        self,
        source: Reading[energy.Source] | None = None,
        *,
        meter: Path | None = None,
        root: Path = host_info.ROOT,
    ) -> None:
        self._source, self._meter, self._root = source, meter, root
        self._lost = ""
        self._next = FOREVER
        self._idle_watts: float | None = None
        self._idle_span: tuple[float, float] | None = None

    def measure_idle(self, seconds: float) -> None:
        """Measure the idle machine's power for ``seconds``, for the net energy; without a source it returns at once."""
        source = self._source.value if self._source is not None else None
        if source is None and self._meter is None:
            return
        begun_at, begun = time.time(), time.perf_counter()
        try:
            first = source.joules(begun) if source is not None else 0.0
            last = first
            while (left := seconds - (time.perf_counter() - begun)) > 0:
                time.sleep(min(left, source.poll_period_s if source is not None else left))
                if source is not None:
                    last = source.joules(time.perf_counter())
        except OSError as error:
            self._lost = f"the power monitor vanished: {error}"
            return
        if source is not None:
            self._idle_watts = (last - first) / (time.perf_counter() - begun)
        self._idle_span = (begun_at, time.time())

    def start(self) -> None:
        """Begin: everything is counted from here."""
        self._started_at, self._start = time.time(), now_ns()
        self._background = environment.Background()
        self._throttle_before = host_info.throttle(self._root)
        self._swap_before = host_info.swapped_in(self._root).value
        self._throttled_seen: list[str] = []
        self._rows: list[tuple[float, float | None, float | None, float | None]] = []
        self._energy_read = 0
        self._joules: float | None = None
        self._first_joules: float | None = None
        self._row_joules: tuple[float, float] | None = None
        self._next_sample = self._next = self._start

    def poll(self, now: int) -> None:
        """Take a reading if one is due; call it between frames.

        Args:
            now: nanoseconds, of the clock that latencies are taken with.
        """
        if now >= self._next:
            self._sample_machine(now)

    def _sample_machine(self, now: int) -> None:
        self._read_energy()
        if now >= self._next_sample:
            self._next_sample = now + int(SAMPLE_PERIOD_S * 1e9)
            clocks = host_info.clocks(self._root).value
            degrees = host_info.temperatures(self._root).value
            throttle = host_info.throttle(self._root).value
            if throttle is not None and throttle.now:
                self._throttled_seen += [c for c in throttle.causes if c not in self._throttled_seen]
            at = (now - self._start) / 1e9
            watts = None
            if self._joules is not None:
                if self._row_joules is not None and at > self._row_joules[0]:
                    watts = (self._joules - self._row_joules[1]) / (at - self._row_joules[0])
                self._row_joules = (at, self._joules)
            self._rows.append(
                (
                    round(at, 3),
                    None if clocks is None or not clocks.mhz else round(float(np.mean(clocks.mhz)), 1),
                    max(degrees.values()) if degrees else None,
                    None if watts is None else round(watts, 4),
                )
            )
        source = self._source.value if self._source is not None and not self._lost else None
        self._next = self._next_sample
        if source is not None:
            self._next = min(self._next, now + int(source.poll_period_s * 1e9))

    def _read_energy(self) -> None:
        source = self._source.value if self._source is not None else None
        if source is None or self._lost:
            return
        try:
            self._joules = source.joules(time.perf_counter())
        except (OSError, ValueError) as error:
            self._lost = f"the power monitor vanished: {error}"
            return
        self._energy_read += 1
        if self._first_joules is None:
            self._first_joules = self._joules

    def finish(self, decisions: int, *, as_shipped: bool) -> tuple[Health, Series, Energy]:
        """End the measurement and summarise what was read.

        Args:
            decisions: number of decisions made during the measurement.
            as_shipped: whether the user accepts a moving clock.
        """
        end = now_ns()
        self._read_energy()
        share = self._background.share()
        seconds = (end - self._start) / 1e9
        after = host_info.throttle(self._root)
        throttled = host_info.throttled_between(self._throttle_before, after)
        if self._throttled_seen:
            throttled = True
        swap = host_info.swapped_in(self._root).value
        series = (
            Series(*(tuple(column) for column in zip(*self._rows, strict=True))) if self._rows else Series()
        )
        mhz = [v for v in series.clock_mhz if v is not None]
        known = len(mhz) >= MIN_CLOCK_READINGS
        health = Health(
            throttled=throttled,
            throttle=_throttle_text(throttled, after, self._throttled_seen),
            clock_cv=round(float(np.std(mhz) / np.mean(mhz)), 5) if known else None,
            clock=f"{len(mhz)} readings of cpufreq"
            if known
            else host_info.clocks(self._root).reason
            or f"too short: {len(mhz)} readings, {MIN_CLOCK_READINGS} needed",
            as_shipped=as_shipped,
            background_share=share,
            swapped_in=None if swap is None or self._swap_before is None else swap - self._swap_before,
            golden=True,
        )
        return health, series, self._energy(seconds, decisions)

    def _energy(self, seconds: float, decisions: int) -> Energy:
        if self._meter is not None:
            return self._metered(seconds, decisions)
        if self._source is None:
            return Energy(None, "", "not asked for: --energy, or --meter with a meter's log", *_NOTHING)
        source = self._source.value
        if source is None or self._lost:
            return Energy(None, "", self._lost or self._source.reason, *_NOTHING)
        if self._joules is None or self._first_joules is None or self._energy_read < 2 or not decisions:
            return Energy(source.name, source.scope, "too short to read it twice", *_NOTHING)
        return _per_decision(
            source.name,
            source.scope,
            (self._joules - self._first_joules) / seconds,
            self._idle_watts,
            seconds,
            decisions,
            self._energy_read,
        )

    def _metered(self, seconds: float, decisions: int) -> Energy:
        assert self._meter is not None
        meter = energy.read_meter(self._meter)
        name, scope = f"meter {self._meter.name}", "whatever the meter stands before"
        found = meter.mean_watts(self._started_at, self._started_at + seconds)
        if found is None or not decisions:
            return Energy(None, scope, f"{self._meter} does not cover the time of this run", *_NOTHING)
        idle = None if self._idle_span is None else meter.mean_watts(*self._idle_span)
        rest = None if idle is None else idle[0]
        return _per_decision(name, scope, found[0], rest, seconds, decisions, found[1])


_NOTHING = (None, None, None, None, 0)


def _per_decision(
    name: str, scope: str, watts: float, idle: float | None, seconds: float, decisions: int, readings: int
) -> Energy:
    gross = watts * seconds / decisions * 1e3
    net = None if idle is None else gross - idle * seconds / decisions * 1e3
    reason = "" if idle is not None else "no net figure: the idle machine was not measured"
    assert math.isfinite(gross)
    return Energy(name, scope, reason, gross, net, watts, idle, readings)


def _throttle_text(throttled: bool | None, after: Reading[host_info.Throttle], seen: list[str]) -> str:
    if after.value is None:
        return after.reason
    if throttled is None:
        return f"{after.value.source} remembers an earlier time: {', '.join(after.value.causes)}"
    causes = ", ".join(seen or after.value.causes) if throttled else "no"
    return f"{causes} ({after.value.source})"
