"""Peak memory of a process that loads a bundle and runs some frames: a fresh one, apart from every timing.

Linux: VmHWM of /proc/self/status, and PSS of /proc/self/smaps_rollup after every tenth of the frames. Elsewhere
``ru_maxrss``, which on Linux would be wrong: it remembers the parent's memory across exec. In the resident set shared
libraries count in full, although two processes share them; in the proportional one (PSS) each counts its part.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_benchmarks import module_cli
from edge_benchmarks.report import Memory
from edge_benchmarks.subject import Item, write_item

FRAMES = 50

_CHILD = """
import json, resource, sys
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
def pss():
    try:
        with open("/proc/self/smaps_rollup") as rollup:
            return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
import edge_sdk
import numpy
start, shared = peak(), pss()
model = edge_sdk.load(sys.argv[1], threads=int(sys.argv[3]) or None, device=sys.argv[5] or None)
loaded, shared = peak(), max(shared, pss())
given = numpy.load(sys.argv[2])
image, boxes = given["image"], given["boxes"] if "boxes" in given else None
frames = int(sys.argv[4])
for number in range(frames):
    model(image, boxes=boxes)
    if number % max(1, frames // 10) == 0:
        shared = max(shared, pss())
print()
print(json.dumps({"start": start, "loaded": loaded, "peak": peak(), "pss": shared}))
"""


def measure(
    bundle: str | Path, item: Item, *, threads: int, device: str | None = None, frames: int = FRAMES
) -> Memory:
    """Megabytes (10**6 bytes) of one fresh process that looks at one item again and again.

    Raises:
        LoadFailed: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.npz"
        write_item(path, item)
        answer, _ = module_cli.ask_fresh_process(
            _CHILD, str(bundle), str(path), str(threads), str(frames), device or ""
        )
    start, loaded, peak, pss = (answer[point] / 1e6 for point in ("start", "loaded", "peak", "pss"))
    return Memory(start, loaded, peak, pss or None, frames)
