"""This Python in a process of its own, for what may crash, hang, or must start cold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        lines: its standard output; whole lines only, however it ended.
        problem: how it failed, in words (``"died of SIGILL"``); None where it ended well.
        code: its exit code; None where a signal ended it.
        signal: name of the signal that killed it; None if none did.
        timed_out: it was stopped because it took too long.
        said: the last line of its standard error; empty if it said nothing.
    """

    lines: tuple[str, ...]
    problem: str | None
    code: int | None = 0
    signal: str | None = None
    timed_out: bool = False
    said: str = ""


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a child that shall import what this process can import.

    Args:
        changes: variables that differ.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **(changes or {})}


def run_python(
    arguments: Sequence[str], *, timeout_s: float, changes: Mapping[str, str] | None = None
) -> Ended:
    """Run this Python with these arguments until it ends, is killed, or the time is up.

    Args:
        arguments: of the interpreter, such as ``("-m", "package.module", "argument")``.
        timeout_s: seconds after which the process is killed.
        changes: environment variables that differ from this process's.
    """
    with subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(changes),
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
            timed_out = False
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            timed_out = True
    text = out.decode(errors="replace")
    lines = tuple(text[: text.rfind("\n") + 1].splitlines())
    said = next((s for s in reversed(err.decode(errors="replace").splitlines()) if s.strip()), "").strip()
    code = process.returncode
    if timed_out:
        return Ended(lines, f"gave no answer within {timeout_s:g} s", None, timed_out=True, said=said)
    if code < 0:
        name = signal.Signals(-code).name
        return Ended(lines, f"died of {name}", None, signal=name, said=said)
    if code:
        return Ended(lines, f"ended with code {code}", code, said=said)
    return Ended(lines, None, said=said)
