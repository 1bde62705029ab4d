"""What the machine says about itself: board, clocks, temperatures, throttling, cameras.

Read from /proc and /sys, without root and without another package. Every function takes the root of a file system, so
that a recorded board reads like a live one, and answers with a :class:`Reading`: a value, or the reason why there is
none. What cannot be read is unknown, never assumed to be fine.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

ROOT = Path("/")
Family = Literal["raspberry-pi", "jetson", "intel", "amd", "other"]
T_co = TypeVar("T_co", covariant=True)

_COMMAND_TIMEOUT_S = 5.0
# Bits of the Raspberry Pi firmware's get_throttled; the same 16 bits higher: since boot.
_PI_THROTTLE = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
_PI_FIRMWARE = "sys/devices/platform/soc*/soc*firmware/get_throttled"
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd42": "Cortex-A78AE",
}


@dataclass(frozen=True)
class Reading(Generic[T_co]):
    """A fact, or why it is unknown.

    Attributes:
        value: None where it could not be read.
        reason: why it could not, in a few words; empty beside a value.
    """

    value: T_co | None
    reason: str = ""


@dataclass(frozen=True)
class Board:
    """What kind of machine this is.

    Attributes:
        model: as its maker calls it: from the device tree, else from DMI.
        family: whose facts it has: firmware flags, engines, cameras.
        cpu: name of the processor.
        machine: architecture, such as ``"aarch64"``.
        l4t: release of Jetson's system (``"36.3.0"``), None elsewhere.
    """

    model: str
    family: Family
    cpu: str | None
    machine: str
    l4t: str | None = None


@dataclass(frozen=True)
class Throttle:
    """Whether the processor is, or was, slowed to protect itself.

    Attributes:
        now: slowed at this moment; None where the machine keeps counters only.
        since_boot: slowed at any time since boot; None where the machine does not remember.
        causes: in words, such as ``"under-voltage now"``.
        counters: event counters by name: one that grows between two readings means slowed in between.
        source: what was read.
    """

    now: bool | None
    since_boot: bool | None
    causes: tuple[str, ...]
    counters: Mapping[str, int] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Clocks:
    """Clocks of the processor's cores.

    Attributes:
        governor: who sets them; several, if they differ, joined by ``,``.
        mhz: of each core at this moment.
        max_mhz: highest that the governor may set, over all cores.
    """

    governor: str
    mhz: tuple[float, ...]
    max_mhz: float | None


def board(root: Path = ROOT) -> Reading[Board]:
    """Model and family, from the device tree (ARM boards) or DMI (PCs)."""
    cpu = _cpu(root)
    found = _line(root / "proc/device-tree/model")
    compatible = (_text(root / "proc/device-tree/compatible") or "").split("\0")
    if found is not None:
        family = _family(compatible, found)
        return Reading(Board(found, family, cpu, platform.machine(), _l4t(root)))
    dmi = root / "sys/class/dmi/id"
    named = [v for n in ("sys_vendor", "product_name") if (v := _line(dmi / n)) is not None]
    maker = _cpuinfo(root).get("vendor_id", "")
    makers: dict[str, Family] = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}
    family = makers.get(maker, "other")
    if not named and cpu is None:
        return Reading(None, "neither a device tree nor DMI nor /proc/cpuinfo names this machine")
    return Reading(Board(" ".join(named) or "unnamed machine", family, cpu, platform.machine()))


def clocks(root: Path = ROOT) -> Reading[Clocks]:
    """Governor and clocks of the cores, from cpufreq."""
    folders = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    governors = {g for f in folders if (g := _line(f / "scaling_governor")) is not None}
    if not governors:
        return Reading(None, "no cpufreq here: a virtual machine, or clocks that are not the system's to set")
    mhz = tuple(v / 1e3 for f in folders if (v := _number(f / "scaling_cur_freq")) is not None)
    most = [v / 1e3 for f in folders if (v := _number(f / "scaling_max_freq")) is not None]
    return Reading(Clocks(",".join(sorted(governors)), mhz, max(most, default=None)))


def temperatures(root: Path = ROOT) -> Reading[Mapping[str, float]]:
    """Degrees Celsius by sensor, from thermal zones and, on PCs, the core sensors of hwmon."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        # A zone whose unit sleeps (a Jetson's GPU) answers with an error: it has no temperature now.
        value = _number(zone / "temp")
        if value is not None:
            found[_line(zone / "type") or zone.name] = value / 1e3
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = _line(chip / "name")
        if name in ("coretemp", "k10temp", "cpu_thermal") and name not in found:
            degrees = [v / 1e3 for p in chip.glob("temp*_input") if (v := _number(p)) is not None]
            if degrees:
                found[name] = max(degrees)
    return Reading(found) if found else Reading(None, "no thermal zone and no sensor can be read here")


def throttle(root: Path = ROOT) -> Reading[Throttle]:
    """Throttling as the machine's own firmware or kernel reports it.

    Raspberry Pi: the firmware's flags (``vcgencmd get_throttled``). Jetson: throttle alerts and over-current events.
    Intel: the kernel's thermal throttle counters.
    """
    here = board(root).value
    family = "other" if here is None else here.family
    if family == "raspberry-pi":
        return _pi_throttle(root)
    if family == "jetson":
        return _jetson_throttle(root)
    return _intel_throttle(root)


def throttled_between(before: Reading[Throttle], after: Reading[Throttle]) -> bool | None:
    """Whether the processor was slowed at some time between two readings; None where that cannot be told.

    A flag that says "since boot" and was set before says nothing about the time in between: sample ``now`` as well.
    """
    first, last = before.value, after.value
    if first is None or last is None:
        return None
    if first.now or last.now or any(n > first.counters.get(k, 0) for k, n in last.counters.items()):
        return True
    if last.counters:
        return False
    if last.since_boot is None or first.since_boot:
        return None
    return last.since_boot


def cameras(root: Path = ROOT) -> Reading[Mapping[str, str]]:
    """Names of the video devices by file, such as ``{"/dev/video0": "HD Webcam"}``; empty where there is none."""
    folder = root / "sys/class/video4linux"
    if not folder.is_dir():
        return Reading(None, "this kernel has no video4linux")
    found = {f"/dev/{p.name}": _line(p / "name") or "" for p in sorted(folder.glob("video*"))}
    return Reading(found)


def memory_mb(root: Path = ROOT) -> Reading[float]:
    """Memory of the machine in megabytes (10**6 bytes)."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo") or "", re.MULTILINE)
    return Reading(int(found[1]) * 1024 / 1e6) if found else Reading(None, "/proc/meminfo cannot be read")


def available_mb(root: Path = ROOT) -> Reading[float]:
    """Memory that could still be had without swapping, in megabytes (10**6 bytes)."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo") or "", re.MULTILINE)
    return Reading(int(found[1]) * 1024 / 1e6) if found else Reading(None, "/proc/meminfo cannot be read")


def swapped_in(root: Path = ROOT) -> Reading[int]:
    """Pages that were read back from swap since boot: a counter."""
    found = re.search(r"^pswpin (\d+)$", _text(root / "proc/vmstat") or "", re.MULTILINE)
    return Reading(int(found[1])) if found else Reading(None, "/proc/vmstat counts no swapping")


def power_mode(root: Path = ROOT) -> Reading[str]:
    """Power mode of a Jetson, as nvpmodel keeps it across boots, with its name where the configuration has one."""
    status = _text(root / "var/lib/nvpmodel/status")
    found = re.search(r"pmode:0*(\d+)", status or "")
    if found is None:
        return Reading(None, "no nvpmodel status: not a Jetson")
    names = dict(
        re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", _text(root / "etc/nvpmodel.conf") or "")
    )
    return Reading(f"{found[1]} {names.get(found[1], '')}".strip())


def system(root: Path = ROOT) -> Reading[str]:
    """Name and version of the operating system."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / path) or "", re.MULTILINE)
        if found:
            return Reading(found[1])
    return Reading(None, "no os-release")


def glibc() -> Reading[str]:
    """Version of the C library this Python runs on: wheels ask for a lowest one."""
    name, version = platform.libc_ver()
    return (
        Reading(version) if name == "glibc" else Reading(None, "not a glibc system: engines have no wheels")
    )


def _family(compatible: Iterable[str], model: str) -> Family:
    if any(c.startswith("raspberrypi,") for c in compatible) or model.startswith("Raspberry Pi"):
        return "raspberry-pi"
    if any(c.startswith("nvidia,tegra") for c in compatible) or "Jetson" in model:
        return "jetson"
    return "other"


def _l4t(root: Path) -> str | None:
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else None


def _cpuinfo(root: Path) -> dict[str, str]:
    """Fields of the first processor."""
    fields: dict[str, str] = {}
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _cpu(root: Path) -> str | None:
    fields = _cpuinfo(root)
    return (
        fields.get("model name")
        or _ARM_CORES.get(fields.get("CPU part", ""))
        or fields.get("Hardware")
        or fields.get("Model")
    )


def _pi_throttle(root: Path) -> Reading[Throttle]:
    for path in sorted(root.glob(_PI_FIRMWARE)):
        text = _line(path)
        if text is not None:
            return _pi_flags(text, f"/{path.relative_to(root)}")
    if root != ROOT:
        return Reading(None, "the recording has no get_throttled")
    command = shutil.which("vcgencmd")
    if command is None:
        return Reading(None, "vcgencmd is not installed: apt install raspi-utils")
    try:
        done = subprocess.run(  # noqa: S603  # a command found on the PATH, no shell
            [command, "get_throttled"], capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Reading(None, f"vcgencmd failed ({error}): is this user in the group video?")
    return _pi_flags(done.stdout.strip(), "vcgencmd get_throttled")


def _pi_flags(text: str, source: str) -> Reading[Throttle]:
    try:
        bits = int(text.rpartition("=")[2], 16)
    except ValueError:
        return Reading(None, f"{source} said {text[:40]!r}")
    now = tuple(f"{name} now" for bit, name in _PI_THROTTLE.items() if bits >> bit & 1)
    before = tuple(f"{name} since boot" for bit, name in _PI_THROTTLE.items() if bits >> (bit + 16) & 1)
    return Reading(Throttle(bool(now), bool(before), now + before, source=source))


def _jetson_throttle(root: Path) -> Reading[Throttle]:
    active, alerts = [], 0
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        name, state = _line(device / "type") or "", _number(device / "cur_state")
        if name.endswith("-throttle-alert") and state is not None:
            alerts += 1
            if state:
                active.append(f"{name} now")
    counters = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        for path in sorted(chip.glob("oc*_event_cnt")):
            if (events := _number(path)) is not None:
                counters[path.name.removesuffix("_event_cnt")] = events
    for path in sorted((root / "sys/devices/platform").glob("*-throttle-alert/thermal_trip_event")):
        if (events := _number(path)) is not None:
            counters[path.parent.name] = events
    if not alerts and not counters:
        return Reading(None, "no throttle alert and no over-current counter in /sys")
    happened = tuple(f"{name} {n} times since boot" for name, n in counters.items() if n)
    return Reading(
        Throttle(
            bool(active) if alerts else None,
            bool(happened or active) if counters else True if active else None,
            (*active, *happened),
            counters,
            "throttle alerts and event counters in /sys",
        )
    )


def _intel_throttle(root: Path) -> Reading[Throttle]:
    counters: dict[str, int] = {}
    for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")):
        for name in ("core", "package"):
            if (events := _number(folder / f"{name}_throttle_count")) is not None:
                counters[f"{folder.parent.name} {name}"] = events
    if not counters:
        return Reading(
            None, "this kernel counts no throttling here: a virtual machine, or another maker's processor"
        )
    most = {
        kind: max((n for k, n in counters.items() if k.endswith(kind)), default=0)
        for kind in ("core", "package")
    }
    happened = tuple(f"{kind} throttled {n} times since boot" for kind, n in most.items() if n)
    return Reading(
        Throttle(None, bool(happened), happened, counters, "/sys/devices/system/cpu/*/thermal_throttle")
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _line(path: Path) -> str | None:
    return (_text(path) or "").strip("\0\n\t ") or None


def _number(path: Path) -> int | None:
    try:
        return int(_line(path) or "")
    except ValueError:
        return None
