"""The machine a benchmark ran on. What cannot be read is None: unknown, never assumed to be fine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_sdk import host_info

TOP = 3
"""How many of the busiest other processes are named."""


@dataclass(frozen=True)
class Snapshot:
    """State of the machine at one moment.

    Attributes:
        load: mean number of processes that wanted a core in the last minute.
        clock_mhz: of each core; empty where there is no cpufreq.
        temperature_c: by sensor; empty where there is none.
        available_mb: memory that could still be had without swapping, megabytes (10**6 bytes).
        busiest: other processes, ``"name 12 %"`` of one core since they started, busiest first.
    """

    load: float | None
    clock_mhz: tuple[float, ...]
    temperature_c: Mapping[str, float]
    available_mb: float | None
    busiest: tuple[str, ...]


@dataclass(frozen=True)
class Environment:
    """Hardware and software of a run.

    Attributes:
        machine: architecture.
        board: as its maker calls it.
        cpu: name of the processor.
        cores: number of cores that this process may use.
        affinity: their numbers.
        memory_mb: memory of the machine, megabytes (10**6 bytes).
        os: name and version of the system.
        kernel: release.
        governor: of the processor's clock, all that are set, joined by ``,``.
        max_mhz: highest clock that the governor may set.
        power_mode: of a Jetson, as nvpmodel keeps it.
        python: version.
        numpy: version.
        opencv: version.
        sdk: version of face-edge-sdk.
        engine: distribution that ran the network.
        engine_version: of it.
        device: that ran the engine, such as ``"CPU"``.
        threads: of the engine.
        before: state of the machine before the measurement.
        after: state of the machine after it.
    """

    machine: str
    board: str | None
    cpu: str | None
    cores: int | None
    affinity: tuple[int, ...]
    memory_mb: float | None
    os: str | None
    kernel: str
    governor: str | None
    max_mhz: float | None
    power_mode: str | None
    python: str
    numpy: str
    opencv: str | None
    sdk: str
    engine: str | None
    engine_version: str | None
    device: str
    threads: int
    before: Snapshot
    after: Snapshot


def snapshot(root: Path = host_info.ROOT) -> Snapshot:
    """Read the state of the machine now."""
    clocks = host_info.clocks(root).value
    try:
        load: float | None = os.getloadavg()[0]
    except OSError:
        load = None
    return Snapshot(
        load=load,
        clock_mhz=() if clocks is None else clocks.mhz,
        temperature_c=host_info.temperatures(root).value or {},
        available_mb=host_info.available_mb(root).value,
        busiest=busiest(root),
    )


def describe(
    *, modules: Sequence[str], device_used: str, threads: int, before: Snapshot, root: Path = host_info.ROOT
) -> Environment:
    """Describe hardware and software after a run.

    Args:
        modules: import names that the engine may have; the one that is loaded is described.
        device_used: device that the engine ran on.
        threads: number of threads of the engine.
        before: state of the machine before the measurement.
        root: of the file system that ``/proc`` and ``/sys`` are read from.
    """
    engine = next((m.replace("_", "-") for m in modules if m in sys.modules), None)
    board, clocks = host_info.board(root).value, host_info.clocks(root).value
    return Environment(
        machine=platform.machine(),
        board=None if board is None else board.model,
        cpu=None if board is None else board.cpu,
        cores=cores(),
        affinity=_affinity(),
        memory_mb=host_info.memory_mb(root).value,
        os=host_info.system(root).value,
        kernel=f"{platform.system()} {platform.release()}",
        governor=None if clocks is None else clocks.governor,
        max_mhz=None if clocks is None else clocks.max_mhz,
        power_mode=host_info.power_mode(root).value,
        python=platform.python_version(),
        numpy=_version("numpy") or "unknown",
        opencv=getattr(sys.modules.get("cv2"), "__version__", None),
        sdk=_version("face-edge-sdk") or "unknown",
        engine=engine,
        engine_version=None if engine is None else _version(engine),
        device=device_used,
        threads=threads,
        before=before,
        after=snapshot(root),
    )


class CoreSeconds(NamedTuple):
    """Seconds that all cores have spent since boot.

    Attributes:
        total: busy and idle.
        busy: at work, the time that a hypervisor took included.
    """

    total: float
    busy: float


def core_seconds() -> CoreSeconds | None:
    """The kernel's own count (``/proc/stat``); None where there is none."""
    try:
        ticks = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        per_second = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = ticks
    busy = user + nice + system + irq + softirq + steal
    return CoreSeconds((busy + idle + iowait) / per_second, busy / per_second)


class Background:
    """Measures the share of all cores' time that other processes took since construction."""

    def __init__(self) -> None:
        self._start = self._sample()

    def share(self) -> float | None:
        """Busy time of the machine that was not ours, over all cores' time: 0..1, or None where it is unknown."""
        end = self._sample()
        if self._start is None or end is None or end[0] <= self._start[0]:
            return None
        total, busy, own = (b - a for a, b in zip(self._start, end, strict=True))
        # The kernel counts in hundredths of a second: a small negative rest is rounding.
        return min(1.0, max(0.0, (busy - own) / total))

    @staticmethod
    def _sample() -> tuple[float, float, float] | None:
        """All cores' seconds so far: altogether, busy (the hypervisor's theft included), and ours."""
        cores = core_seconds()
        if cores is None:
            return None
        # Children that ended count as ours: a cold start is made of them.
        own = sum(
            usage.ru_utime + usage.ru_stime
            for usage in (
                resource.getrusage(resource.RUSAGE_SELF),
                resource.getrusage(resource.RUSAGE_CHILDREN),
            )
        )
        return cores.total, cores.busy, own


def busiest(root: Path = host_info.ROOT) -> tuple[str, ...]:
    """The other processes that took most of a core since they started, at least 5 % of one."""
    try:
        uptime = float((root / "proc/uptime").read_text().split()[0])
        per_second = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return ()
    found: list[tuple[float, str]] = []
    for path in (root / "proc").glob("[0-9]*/stat"):
        try:
            # The name stands in brackets and may itself hold blanks and brackets.
            head, _, rest = path.read_text(errors="replace").rpartition(")")
            fields = rest.split()
            seconds = (int(fields[11]) + int(fields[12])) / per_second
            age = uptime - int(fields[19]) / per_second
        except (OSError, ValueError, IndexError):
            continue  # it ended while we looked
        pid, _, name = head.partition("(")
        if int(pid) != os.getpid() and age > 0 and seconds / age >= 0.05:
            found.append((seconds / age, "".join(c if c.isprintable() else "?" for c in name)))
    return tuple(f"{name} {share:.0%}" for share, name in sorted(found, reverse=True)[:TOP])


def cores() -> int | None:
    """Cores this process may use."""
    return len(_affinity()) or os.cpu_count()


def now() -> str:
    """The time of day in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _affinity() -> tuple[int, ...]:
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:  # not on Linux
        return ()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
