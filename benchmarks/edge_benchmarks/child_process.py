"""The one place where the benchmarks start a process and wait for its end.

:func:`json_of` and :func:`call_main` start this Python; :func:`run_program` starts another program, such as the Python
of another environment. All of them have a time limit. What talks with its child while it runs does not come here: a
suite passes Ctrl-C on, a sweep's cell must end with its parent, and a peer answers request after request.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from edge_sdk.child import run_python
from edge_sdk.errors import InferFailed, LoadFailed

CHILDREN = "edge_benchmarks.children"


def json_of(child: str, *arguments: str, timeout_s: float) -> dict[str, Any]:
    """Run a module of ``edge_benchmarks.children`` to its end.

    Args:
        child: name of the module in that package.
        arguments: for it.
        timeout_s: seconds after which it is killed.

    Returns:
        The JSON object of the first line that starts with a brace.

    Raises:
        LoadFailed: it failed, took too long, or printed no such line.
    """
    ended = run_python(["-m", f"{CHILDREN}.{child}", *arguments], timeout_s=timeout_s)
    line = next((text for text in ended.lines if text.startswith("{")), None)
    if ended.problem is None and line is not None:
        answer: dict[str, Any] = json.loads(line)
        return answer
    raise LoadFailed(
        f"a fresh process {ended.problem or 'gave no answer'}: {ended.said or 'it printed nothing'}",
        remedy="load the bundle in this process to see more",
    )


def call_main(module: str, arguments: Sequence[str], *, timeout_s: float) -> None:
    """Run ``main()`` of an installed package's module to its end.

    Args:
        module: import name.
        arguments: for it.
        timeout_s: seconds after which it is killed.

    Raises:
        InferFailed: it failed, or took too long.
    """
    ended = run_python(["-m", f"{CHILDREN}.call_main", module, *arguments], timeout_s=timeout_s)
    if ended.problem is not None:
        last = ended.lines[-1] if ended.lines else "it printed nothing"
        raise InferFailed(
            f"{module} {ended.problem}: {ended.said or last}",
            remedy=f"run it by hand: python -m {CHILDREN}.call_main {module} {' '.join(arguments)}",
        )


def run_program(
    arguments: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> str | None:
    """Run a program to its end; its output is dropped.

    Args:
        arguments: the program and its arguments.
        timeout_s: seconds after which it is killed.
        environment: variables of the process; None passes this process's own on.

    Returns:
        None if it ended well; else how it failed, in words, with the last line that it printed.
    """
    try:
        subprocess.run(
            arguments, check=True, capture_output=True, text=True, timeout=timeout_s, env=environment
        )
    except OSError as error:
        return f"cannot be started: {error}"
    except subprocess.TimeoutExpired:
        return f"took more than {timeout_s:.0f} s"
    except subprocess.CalledProcessError as error:
        printed = (error.stderr or error.stdout or "").strip().splitlines() or ["it printed nothing"]
        return f"failed: {printed[-1]}"
    return None
