"""The machine a benchmark ran on. What cannot be read is None: unknown, never assumed to be fine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CPUFREQ = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Environment:
    """Hardware and software of a run.

    Attributes:
        machine: architecture.
        board: name in the device tree, where there is one.
        cpu: model name.
        cores: this process may use.
        os: name and version of the system.
        kernel: release.
        python: version.
        sdk: version of face-edge-sdk.
        engine: distribution that ran the network.
        engine_version: of it.
        threads: of the engine.
        governor: of the processor's clock, all that are set, joined by ``,``.
        throttling: whether the processor was slowed; this version does not read it, so always None.
        load_before: one-minute load average before the run.
        load_after: the same after it.
        background_share: part of all cores' time that others, or the hypervisor, took during the measurement.
    """

    machine: str
    board: str | None
    cpu: str | None
    cores: int | None
    os: str | None
    kernel: str
    python: str
    sdk: str
    engine: str | None
    engine_version: str | None
    threads: int
    governor: str | None
    throttling: bool | None
    load_before: float | None
    load_after: float | None
    background_share: float | None


def describe(
    *,
    modules: Sequence[str],
    threads: int,
    load_before: float | None,
    background_share: float | None,
) -> Environment:
    """Look around, after a run.

    Args:
        modules: import names of the engine, any one of which is loaded.
        threads: of the engine.
        load_before: what :func:`load_average` said before the run.
        background_share: what :class:`Background` saw during it.
    """
    engine = next((m.replace("_", "-") for m in modules if m in sys.modules), None)
    return Environment(
        machine=platform.machine(),
        board=_line(Path("/proc/device-tree/model")),
        cpu=_cpu(),
        cores=cores(),
        os=_os(),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        sdk=_version("face-edge-sdk") or "unknown",
        engine=engine,
        engine_version=None if engine is None else _version(engine),
        threads=threads,
        governor=_governor(),
        throttling=None,
        load_before=load_before,
        load_after=load_average(),
        background_share=background_share,
    )


class Background:
    """What other processes took of all cores' time between construction and :meth:`share`."""

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
        """All cores' seconds so far: altogether, busy (the hypervisor's theft included), and this process's own."""
        try:
            ticks = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
            per_second = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        user, nice, system, idle, iowait, irq, softirq, steal = ticks
        busy = user + nice + system + irq + softirq + steal
        own = resource.getrusage(resource.RUSAGE_SELF)
        return (busy + idle + iowait) / per_second, busy / per_second, own.ru_utime + own.ru_stime


def load_average() -> float | None:
    """Processes that wanted a core in the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def cores() -> int | None:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count()


def now() -> str:
    """The time of day in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return fields.get("model name") or fields.get("Model") or fields.get("Hardware")


def _os() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _governor() -> str | None:
    found = {_line(p) for p in _CPUFREQ.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {None}
    return ",".join(sorted(str(g) for g in found)) or None


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip("\0\n ") or None
    except (OSError, UnicodeDecodeError):
        return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
