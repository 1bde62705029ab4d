"""What this machine is, whether its engines work, and what to install: facts first, then findings with a remedy each."""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import shutil
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_sdk import host_info
from edge_sdk.host_info import ROOT, Board, Reading
from edge_sdk.profile import Profile, profile_names, read_profile
from edge_sdk.target import Target, find_target, target_names
from edge_targets.probe import TIMEOUT_S, Probe, probe

Level = Literal["error", "warning"]
HOT_C = 80.0
"""A Raspberry Pi slows down from 80 degrees on, and others not much later."""


@dataclass(frozen=True)
class Finding:
    """Something to mend.

    Attributes:
        level: ``error`` where the profile's engine cannot run because of it.
        what: is the matter.
        remedy: what to do about it.
    """

    level: Level
    what: str
    remedy: str


@dataclass(frozen=True)
class EngineOption:
    """A load option that one engine has, as ``LoadOptions.engine`` takes it.

    Attributes:
        name: of the option.
        type: of its value, in words.
        default: its value where nothing is asked for, as Python writes it.
    """

    name: str
    type: str
    default: str


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        profile: that was asked for, or that fits this board; None if none does.
        runs: whether the profile's engine answered here.
        facts: what the machine says of itself: a value, or why it is unknown.
        engines: what came of trying each.
        options: engine to the load options that it alone has.
        findings: what to mend, errors first.
    """

    profile: str | None
    runs: bool
    facts: Mapping[str, str]
    engines: tuple[Probe, ...]
    options: Mapping[str, tuple[EngineOption, ...]]
    findings: tuple[Finding, ...]


def examine(
    profile: Profile | None = None,
    *,
    root: Path = ROOT,
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Diagnosis:
    """Look around, and try every engine.

    Args:
        profile: board to hold this machine against; None takes the one that fits.
        root: of the file system to look at.
        timeout_s: for each engine.
        progress: called with (stage, done, of).
    """
    board = host_info.board(root)
    chosen = profile or suggest(board.value)
    engines = list(target_names())
    if chosen is not None and chosen.engine not in engines:
        engines.append(chosen.engine)
    probes = []
    for done, name in enumerate(engines):
        progress(f"engine {name}", done, len(engines))
        probes.append(probe(name, timeout_s=timeout_s))
    findings = [
        *_board(chosen, board.value),
        *_engines(chosen, probes, required=profile is not None),
        *_state(root),
        *_camera(board.value, root),
    ]
    answered = {p.engine for p in probes if p.works is not False}
    errors = any(f.level == "error" for f in findings)
    return Diagnosis(
        profile=None if chosen is None else chosen.name,
        runs=not errors and (chosen.engine in answered if chosen else bool(answered)),
        facts=_facts(root, board),
        engines=tuple(probes),
        options={name: options_of(find_target(name)) for name in engines},
        findings=tuple(sorted(findings, key=lambda f: f.level != "error")),
    )


def options_of(target: Target) -> tuple[EngineOption, ...]:
    """The load options that an engine alone has, with types and defaults."""
    hints = typing.get_type_hints(target.options)
    return tuple(
        EngineOption(f.name, _type_in_words(hints[f.name]), repr(f.default))
        for f in dataclasses.fields(target.options)
    )


def _type_in_words(kind: Any) -> str:
    origin: Any = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_type_in_words, arguments))
    return "None" if kind is type(None) else str(getattr(kind, "__name__", kind))


def suggest(board: Board | None) -> Profile | None:
    """The shipped profile that a board's own words mean, else the one of its family."""
    if board is None:
        return None
    profiles = [read_profile(name) for name in profile_names()]
    for profile in profiles:
        if any(word in board.model for word in profile.boards):
            return profile
    return next((p for p in profiles if board.family in p.families), None)


def _facts(root: Path, board: Reading[Board]) -> dict[str, str]:
    b, clocks, throttle = board.value, host_info.clocks(root), host_info.throttle(root)
    c, t = clocks.value, throttle.value
    temperatures, cameras, memory = (
        host_info.temperatures(root),
        host_info.cameras(root),
        host_info.memory_mb(root),
    )
    glibc, system = host_info.glibc(), host_info.system(root)
    return {
        "board": f"unknown: {board.reason}" if b is None else b.model,
        "cpu": "unknown" if b is None or b.cpu is None else b.cpu,
        "machine": platform.machine(),
        "system": _shown(system, str) + (f", L4T {b.l4t}" if b and b.l4t else ""),
        "glibc": _shown(glibc, str),
        "python": platform.python_version() + (", in a virtual environment" if _in_venv() else ""),
        "memory": _shown(memory, lambda mb: f"{mb / 1000:.1f} GB"),
        "clocks": f"unknown: {clocks.reason}" if c is None else _clocks(c),
        "temperature": _shown(temperatures, lambda f: ", ".join(f"{n} {v:.0f} °C" for n, v in f.items())),
        "throttling": f"unknown: {throttle.reason}" if t is None else "; ".join(t.causes) or "none",
        "cameras": _shown(cameras, lambda f: ", ".join(f"{p} ({n})" for p, n in f.items()) or "none"),
        "libcamera": "present" if _libcamera(root) else "absent",
    }


def _clocks(clocks: host_info.Clocks) -> str:
    most = "" if clocks.max_mhz is None else f", at most {clocks.max_mhz:.0f} MHz"
    return f"governor {clocks.governor}{most}"


def _shown(reading: Reading[host_info.T_co], text: Callable[[host_info.T_co], str]) -> str:
    return f"unknown: {reading.reason}" if reading.value is None else text(reading.value)


def _board(profile: Profile | None, board: Board | None) -> list[Finding]:
    """Whether this machine is what the profile is for."""
    if profile is None:
        return [Finding("warning", "no profile fits this machine", "name one: --profile generic-cpu")]
    found = []
    if profile.boards and (board is None or not any(word in board.model for word in profile.boards)):
        model = "unknown" if board is None else board.model
        found.append(
            Finding(
                "warning", f"{profile.name} is for {profile.title}; this is {model}", "take another profile"
            )
        )
    if profile.machine not in (None, platform.machine()):
        found.append(
            Finding(
                "error",
                f"{profile.name} is for {profile.machine}, this is {platform.machine()}",
                "run doctor on the board; its wheels can be collected here: edge-sdk wheelhouse",
            )
        )
    glibc = host_info.glibc().value
    if profile.glibc and glibc and _version(glibc) < _version(profile.glibc):
        found.append(
            Finding(
                "warning",
                f"glibc is {glibc}, {profile.name} expects {profile.glibc}: the newest wheels may not load",
                "update the system, or install the engine's older version",
            )
        )
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if profile.pythons and python not in profile.pythons:
        found.append(
            Finding(
                "warning",
                f"Python is {python}, images of {profile.name} have {' or '.join(profile.pythons)}",
                "engines may have no wheel for it: take the system's Python",
            )
        )
    return found


def _engines(profile: Profile | None, probes: Sequence[Probe], *, required: bool) -> list[Finding]:
    """An engine that is not installed is nobody's problem but the profile's, and no error where another one answers."""
    required = required or not any(tried.works for tried in probes)
    found = []
    for tried in probes:
        wanted = profile is not None and profile.engine == tried.engine
        if tried.works is True or (tried.version is None and not wanted):
            continue
        if tried.works is None:
            found.append(
                Finding("warning", f"{tried.engine}: {tried.problem}", "try it with a bundle of yours")
            )
            continue
        remedy = profile.install if wanted and profile and tried.version is None else tried.remedy
        found.append(
            Finding("error" if wanted and required else "warning", f"{tried.engine}: {tried.problem}", remedy)
        )
    return found


def _state(root: Path) -> list[Finding]:
    """What makes a working machine slow."""
    found = []
    clocks, throttle = host_info.clocks(root).value, host_info.throttle(root).value
    temperatures = host_info.temperatures(root).value
    if clocks is not None and clocks.governor not in ("performance", "schedutil", "ondemand"):
        found.append(
            Finding(
                "warning",
                f"the governor is {clocks.governor}",
                "for steady figures: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
            )
        )
    if throttle is not None and throttle.causes:
        causes = "; ".join(throttle.causes)
        supply = "under-voltage" in causes or "oc" in causes
        remedy = "use the maker's power supply and a short cable" if supply else "cool it, or lower the load"
        found.append(Finding("warning", f"the processor is or was slowed: {causes}", remedy))
    if temperatures is not None and (hottest := max(temperatures.values())) >= HOT_C:
        found.append(Finding("warning", f"{hottest:.0f} °C", "cool it: from here on it slows down"))
    return found


def _camera(board: Board | None, root: Path) -> list[Finding]:
    """A Raspberry Pi's camera library comes from apt, which an ordinary virtual environment does not see."""
    if board is None or board.family != "raspberry-pi":
        return []
    if importlib.util.find_spec("libcamera") is not None:
        return []
    if not _libcamera(root):
        return [
            Finding(
                "warning",
                "picamera2 is not installed: no camera of the ribbon cable",
                "sudo apt install python3-picamera2 (USB cameras need nothing)",
            )
        ]
    if _in_venv():
        return [
            Finding(
                "warning",
                "libcamera is installed, and this virtual environment does not see the system's packages",
                "make it anew: python3 -m venv --system-site-packages venv; or set "
                "include-system-site-packages = true in its pyvenv.cfg",
            )
        ]
    return []


def _libcamera(root: Path) -> bool:
    commands = ("rpicam-hello", "libcamera-hello", "cam") if root == ROOT else ()
    packages = root / "usr/lib/python3/dist-packages"
    return any((packages / n).is_dir() for n in ("libcamera", "picamera2")) or any(
        map(shutil.which, commands)
    )


def _in_venv() -> bool:
    return sys.prefix != sys.base_prefix


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
