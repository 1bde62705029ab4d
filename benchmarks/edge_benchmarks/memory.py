"""Peak memory of a process that loads a bundle and answers some frames: a fresh one, apart from every timing.

The program is ``edge_benchmarks.children.peak_memory``; what it reads is in :mod:`edge_benchmarks.process_memory`. In
the resident set shared libraries count in full, although several processes share them; in the proportional one (PSS)
each process counts its part.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_benchmarks import child_process
from edge_benchmarks.report import Memory
from edge_benchmarks.system_under_test import Item, write_item

FRAMES = 50

TIMEOUT_S = 1800.0


def measure(
    bundle: str | Path, item: Item, *, threads: int, device: str | None = None, frames: int = FRAMES
) -> Memory:
    """Megabytes (10**6 bytes) of one fresh process that answers one item again and again.

    Args:
        bundle: ``.edge`` file or zoo name.
        item: what is answered.
        threads: number of threads of the engine.
        device: device that the engine must run on; None takes the usual one.
        frames: how many times the item is answered.

    Raises:
        LoadFailed: the process failed, or took longer than half an hour.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.npz"
        write_item(path, item)
        answer = child_process.json_of(
            "peak_memory",
            str(bundle),
            str(path),
            str(threads),
            str(frames),
            device or "",
            timeout_s=TIMEOUT_S,
        )
    start, loaded, peak, pss = (answer[point] / 1e6 for point in ("start", "loaded", "peak", "pss"))
    return Memory(start, loaded, peak, pss or None, frames)
