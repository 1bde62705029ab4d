"""This Python in a process of its own, for what may crash, hang, or must start cold.

Every process that the SDK starts by ``-m`` or ``-c`` starts here. Python by itself puts the current folder first among
the places that it imports from, so that a ``json.py`` that lies there runs; a process that starts here never does that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_SAFE = "PYTHONSAFEPATH"
_HAS_SAFE_PATH = sys.version_info >= (3, 11)
_ROOT = Path(__file__).resolve().parents[1]
# What -P does from Python 3.11 on; sys is built in, and nothing else is imported before the path is clean.
_MODULE = (
    "import sys; sys.path = [p for p in sys.path if p]; import runpy; del sys.argv[0]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
_CODE = "import sys; sys.path = [p for p in sys.path if p]; exec({!r})"


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


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that runs this Python on these arguments without the current folder among its imports.

    Args:
        arguments: of the interpreter: ``-m`` and a module or ``-c`` and code first, then the program's own.
    """
    if _HAS_SAFE_PATH:
        return [sys.executable, "-P", *arguments]
    kind, what, *rest = arguments
    return [sys.executable, "-c", *((_MODULE, what) if kind == "-m" else (_CODE.format(what),)), *rest]


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a child that shall import what this process can import.

    The current folder is no place to import from, even where this process has it as one. Where the SDK itself lies
    there, as in a checkout, it comes last: nothing in it hides a module of Python's or of an installed package.

    Args:
        changes: variables that differ.
    """
    here = _current_folder()
    found = [os.path.abspath(p) for p in sys.path if p and here != Path(p).resolve()]
    if here == _ROOT:
        found.append(str(here))
    # Also for Pythons that the child starts in its turn; 3.10 does not know it.
    safe = {_SAFE: "1", "PYTHONPATH": os.pathsep.join(found)}
    return {**os.environ, **safe, **(changes or {})}


def _current_folder() -> Path | None:
    try:
        return Path.cwd().resolve()
    except OSError:  # it was deleted: nothing can lie there
        return None


@contextmanager
def isolated_children() -> Iterator[None]:
    """Pythons that libraries start meanwhile, such as a pool's, do not import from the current folder; from 3.11 on."""
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE]
        else:
            os.environ[_SAFE] = before


def start_python(
    arguments: Sequence[str],
    *,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    stderr: int | IO[Any] = subprocess.DEVNULL,
    changes: Mapping[str, str] | None = None,
    text: bool = False,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> subprocess.Popen[Any]:
    """Start this Python, isolated from the current folder, able to import what this process can.

    Args:
        arguments: as :func:`command` takes them.
        stdin: as of ``subprocess.Popen``, like the next two; nothing by default.
        stdout: where its output goes.
        stderr: where its errors go.
        changes: environment variables that differ from this process's.
        text: whether its pipes are of text.
        pass_fds: descriptors that it inherits.
        new_session: so that a Ctrl-C at the terminal does not reach it.
    """
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        command(arguments),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment(changes),
        text=text,
        pass_fds=pass_fds,
        start_new_session=new_session,
    )


def run_python(
    arguments: Sequence[str], *, timeout_s: float, changes: Mapping[str, str] | None = None
) -> Ended:
    """Run this Python with these arguments until it ends, is killed, or the time is up.

    Args:
        arguments: of the interpreter, such as ``("-m", "package.module", "argument")``.
        timeout_s: seconds after which the process is killed.
        changes: environment variables that differ from this process's.
    """
    with start_python(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, changes=changes) as process:
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
