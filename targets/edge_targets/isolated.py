"""Running what may kill a process in one of its own: engines die of missing instructions, damaged files and hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        lines: of its standard output; whole lines only, however it ended.
        problem: how it failed, in words (``"died of SIGILL"``); None where it ended well.
        signal: that killed it, by name; None if none did.
        timed_out: it was stopped because it took too long.
        said: the last line of its standard error; empty if it said nothing.
    """

    lines: tuple[str, ...]
    problem: str | None
    signal: str | None = None
    timed_out: bool = False
    said: str = ""


def run_python(arguments: Sequence[str], *, timeout_s: float) -> Ended:
    """Run this Python with these arguments until it ends, is killed, or ``timeout_s`` have passed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(  # our own interpreter
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
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
    if timed_out:
        return Ended(lines, f"gave no answer within {timeout_s:g} s", timed_out=True, said=said)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return Ended(lines, f"died of {name}", signal=name, said=said)
    if process.returncode:
        return Ended(lines, f"ended with code {process.returncode}", said=said)
    return Ended(lines, None, said=said)
