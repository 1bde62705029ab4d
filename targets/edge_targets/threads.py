"""How many threads an engine gets: one budget for the process, whichever engines it loads."""

from __future__ import annotations

import math
import os
from pathlib import Path

from edge_sdk.errors import InputError
from edge_sdk.target import LoadOptions

BUDGET_VARIABLE = "EDGE_SDK_THREADS"
"""Environment variable: no engine of the process may take more threads than this."""
MAX_AUTOMATIC = 4
"""More threads than this make a small network slower on boards with unequal cores."""
_CGROUP = Path("/sys/fs/cgroup")


def thread_count(options: LoadOptions) -> int:
    """What the caller asked for, else the cores this process may use, at most ``MAX_AUTOMATIC``; never over budget.

    Raises:
        InputError: more threads were asked for than the budget allows, or the variable holds no number.
    """
    budget = _budget()
    if options.threads is None:
        return min(MAX_AUTOMATIC, cores(), budget or MAX_AUTOMATIC)
    if budget is not None and options.threads > budget:
        raise InputError(
            f"threads={options.threads} was asked for, {BUDGET_VARIABLE}={budget} allows less",
            remedy=f"ask for fewer threads, or raise {BUDGET_VARIABLE}",
        )
    return options.threads


def cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may use: its affinity, and its container's share of processor time, rounded up."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return max(1, count)


def _budget() -> int | None:
    text = os.environ.get(BUDGET_VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(
            f"{BUDGET_VARIABLE} is {text!r}, expected a number of threads", remedy="set it to 1 or more"
        )
    return int(text)
