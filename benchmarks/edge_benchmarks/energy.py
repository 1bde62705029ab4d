"""Sources of the machine's power draw, from which the energy per decision is computed. Nothing is estimated.

Sources, one of which is found or named: Jetson's INA3221 monitors through sysfs, the Raspberry Pi 5's power management
chip, Intel's and AMD's running average power limit (RAPL) counters, and the log of an external meter. They cover
different parts of a machine, so figures of different sources are never compared.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_sdk.errors import InputError
from edge_sdk.host_info import ROOT, Reading

POLL_S = 0.1
"""Seconds between readings of a source that tells power and not energy."""


class Source(Protocol):
    """Tells the energy drawn since some moment: a value that only grows.

    A counter does so by itself; a power monitor is integrated over the times at which it is read.
    """

    name: str
    scope: str
    poll_period_s: float
    """Seconds between two readings; a counter needs only one at the start and one at the end."""

    def joules(self, seconds: float) -> float:
        """Energy so far.

        Args:
            seconds: the time now, of any clock that does not jump.

        Raises:
            OSError: it cannot be read any more.
        """
        ...


class Rapl:
    """Energy counters of the processor's packages.

    Args:
        folders: powercap zones, one per processor package.

    Raises:
        OSError: they cannot be read; since Linux 5.10 only root may (CVE-2020-8694).
    """

    name = "RAPL"
    scope = "processor package, without memory, disk and power supply"
    poll_period_s = 10.0  # often enough to see the counter wrap around

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._ranges = [_number(f / "max_energy_range_uj") for f in folders]
        self._last = [_number(f / "energy_uj") for f in folders]
        self._total = 0

    def joules(self, seconds: float) -> float:
        """See :class:`Source`."""
        for i, (folder, wrap) in enumerate(zip(self._folders, self._ranges, strict=True)):
            value = _number(folder / "energy_uj")
            self._total += value - self._last[i] + (wrap if value < self._last[i] else 0)
            self._last[i] = value
        return self._total / 1e6


class _Integrated:
    """Power readings, integrated by the trapezoidal rule."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._watts = self._joules = 0.0

    def watts(self) -> float:
        """Power now."""
        raise NotImplementedError

    def joules(self, seconds: float) -> float:
        """See :class:`Source`."""
        watts = self.watts()
        if self._at is not None:
            self._joules += (seconds - self._at) * (watts + self._watts) / 2
        self._at, self._watts = seconds, watts
        return self._joules


class Ina3221(_Integrated):
    """Power monitors of a Jetson.

    Where there is a rail for the whole board's input (``VDD_IN``), that; else the sum of all rails.

    Args:
        rails: voltage and current files by label, millivolts and milliamperes.
    """

    name = "INA3221"
    poll_period_s = POLL_S

    def __init__(self, rails: dict[str, tuple[Path, Path]]) -> None:
        super().__init__()
        whole = {label: files for label, files in rails.items() if label in ("VDD_IN", "POM_5V_IN")}
        self._files = tuple((whole or rails).values())
        self.scope = "rails " + " + ".join(sorted(whole or rails))
        self.watts()

    def watts(self) -> float:
        """Power now."""
        return sum(_number(volts) * _number(amperes) for volts, amperes in self._files) / 1e6


class PiPmic(_Integrated):
    """Power management chip of a Raspberry Pi 5, asked through ``vcgencmd pmic_read_adc``."""

    name = "Pi 5 PMIC"
    scope = "rails behind the power management chip, without USB and what hangs on the 5 V input"
    poll_period_s = 0.5  # each reading starts a process

    def __init__(self, command: str) -> None:
        super().__init__()
        self._command = [command, "pmic_read_adc"]
        self.watts()

    def watts(self) -> float:
        """Power now."""
        try:
            done = subprocess.run(self._command, capture_output=True, text=True, timeout=5, check=True)
        except subprocess.SubprocessError as error:
            raise OSError(f"vcgencmd failed: {error}") from error
        return pmic_watts(done.stdout)


def pmic_watts(text: str) -> float:
    """Sum over all rails of what ``vcgencmd pmic_read_adc`` printed.

    Raises:
        OSError: no rail has both a current and a voltage, as on boards before the Pi 5.
    """
    found: dict[str, dict[str, float]] = {"current": {}, "volt": {}}
    for rail, kind, value in re.findall(r"(\w+)_[AV] (current|volt)\(\d+\)=([\d.]+)[AV]", text):
        found[kind][rail] = float(value)
    both = found["current"].keys() & found["volt"].keys()
    if not both:
        raise OSError("pmic_read_adc names no rail with current and voltage")
    return sum(found["current"][rail] * found["volt"][rail] for rail in both)


@dataclass(frozen=True)
class Meter:
    """The log of an external meter: unix seconds and watts, in order of time."""

    path: Path
    seconds: tuple[float, ...]
    watts: tuple[float, ...]

    def mean_watts(self, start: float, end: float) -> tuple[float, int] | None:
        """Mean power between two moments and the readings in there; None if the log does not cover them."""
        times, watts = np.array(self.seconds), np.array(self.watts)
        if not len(times) or times[0] > start or times[-1] < end or end <= start:
            return None
        inside = (times > start) & (times < end)
        at = np.concatenate([[start], times[inside], [end]])
        power = np.interp(at, times, watts)
        return float(np.sum(np.diff(at) * (power[1:] + power[:-1]) / 2) / (end - start)), int(inside.sum())


def read_meter(path: Path) -> Meter:
    """Read a meter's CSV: a header, then time (unix seconds, or ISO 8601 with a zone) and watts.

    Raises:
        InputError: the file cannot be read, or a line has another form.
    """
    rows: list[tuple[float, float]] = []
    try:
        with path.open(newline="", encoding="utf-8") as f:
            for number, row in enumerate(csv.reader(f), 1):
                if not row or number == 1:
                    continue
                try:
                    seconds, watts = _moment(row[0]), float(row[1])
                except (ValueError, IndexError):
                    raise InputError(
                        f"{path}:{number}: expected a time and watts, got {','.join(row)[:60]!r}",
                        remedy="write a header, then lines such as 1769942400.25,4.81 (unix seconds, watts)",
                    ) from None
                rows.append((seconds, watts))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", remedy="name the meter's CSV") from error
    rows.sort()
    return Meter(path, tuple(s for s, _ in rows), tuple(w for _, w in rows))


def find(root: Path = ROOT) -> Reading[Source]:
    """The machine's own source, or why there is none."""
    rails = {}
    for chip in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*")):
        for label in sorted(chip.glob("in*_label")):
            number, name = label.name[2:].split("_")[0], label.read_text().strip()
            volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
            if volts.exists() and amperes.exists():
                rails[name] = (volts, amperes)
    packages = [
        zone
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if zone.name.count(":") == 1 and (zone / "energy_uj").exists()
    ]
    try:
        if rails:
            return Reading(Ina3221(rails))
        if packages:
            return Reading(Rapl(packages))
        command = shutil.which("vcgencmd") if root == ROOT else None
        if command is not None:
            return Reading(PiPmic(command))
    except PermissionError as error:
        return Reading(None, f"{error.filename} needs root")
    except (OSError, ValueError) as error:
        return Reading(None, f"the power monitor cannot be read: {error}")
    return Reading(
        None, "no INA3221, Pi 5 PMIC or RAPL counter on this machine: name a meter's log with --meter"
    )


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        parsed = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        if parsed.tzinfo is None:
            raise ValueError("a time without a zone") from None
        return parsed.astimezone(timezone.utc).timestamp()


def _number(path: Path) -> int:
    return int(path.read_text())
