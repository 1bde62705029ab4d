"""How many threads an engine gets."""

from __future__ import annotations

import os

from edge_sdk.target import LoadOptions

MAX_AUTOMATIC = 4
"""More threads than this make a small network slower on boards with unequal cores."""


def thread_count(options: LoadOptions) -> int:
    """What the caller asked for, else the cores this process may use, at most ``MAX_AUTOMATIC``."""
    if options.threads is not None:
        return options.threads
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return min(MAX_AUTOMATIC, cores)
