"""Memory of this process in bytes, read with the standard library alone: it is imported where memory is measured."""

from __future__ import annotations

import resource
import sys


def resident() -> int:
    """Resident set size now (VmRSS, Linux).

    Raises:
        OSError: this system has no ``/proc``.
    """
    found = _kilobytes("/proc/self/status", "VmRSS:")
    if found is None:
        raise OSError("/proc/self/status has no VmRSS")
    return found * 1024


def peak_resident() -> int:
    """Largest resident set size since the process began.

    VmHWM on Linux; elsewhere ``ru_maxrss``, which on Linux would be wrong: it remembers the parent's memory across exec.
    """
    found = _kilobytes("/proc/self/status", "VmHWM:")
    if found is not None:
        return found * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def proportional() -> int:
    """Proportional set size now, in which a page that n processes share counts as 1/n; 0 where it is not told."""
    return (_kilobytes("/proc/self/smaps_rollup", "Pss:") or 0) * 1024


def _kilobytes(path: str, field: str) -> int | None:
    try:
        with open(path) as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return None
