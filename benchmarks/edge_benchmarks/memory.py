"""Peak memory of a process that loads a bundle and runs 50 frames: a fresh one for each bundle.

start     resident set once Python has imported ``edge_sdk`` (numpy with it).
loaded    peak after ``edge_sdk.load``, the golden vectors included.
peak      peak after 50 frames of 640x480. One drawn frame is used again and again, so it holds 0.9 MB.

Linux: VmHWM of /proc/self/status. Elsewhere ``ru_maxrss``, which on Linux would be wrong: it remembers the parent's
memory across exec. Shared libraries count in full, although two processes share them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_benchmarks import command
from edge_benchmarks.frames import draw

FRAMES = 50

_CHILD = """
import json, resource, sys
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
import edge_sdk
import numpy
start = peak()
model = edge_sdk.load(sys.argv[1], threads=int(sys.argv[3]) or None)
loaded = peak()
frame = numpy.load(sys.argv[2])
for _ in range(int(sys.argv[4])):
    model(frame)
print()
print(json.dumps({"start": start, "loaded": loaded, "peak": peak()}))
"""


def measure(path: Path, *, threads: int | None) -> dict[str, Any]:
    """Megabytes (10**6 bytes) at the three points, of one fresh process."""
    row: dict[str, Any] = {**command.label(path), "frames": FRAMES}
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npy"
        np.save(frame, draw(0))
        answer, _ = command.ask_fresh_process(_CHILD, str(path), str(frame), str(threads or 0), str(FRAMES))
    return row | {f"{point}_mb": answer[point] / 1e6 for point in ("start", "loaded", "peak")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command.parser("memory", __doc__)
    command.add_bundles(parser)
    parser.add_argument("--threads", type=command.positive, metavar="N", help="of the engine")
    return command.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    rows = [measure(p, threads=args.threads) for p in command.expand(args.bundles)]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"peak memory of a fresh process, MB, after {FRAMES} frames")
    print(f"{'':<26}{'start':>9}{'loaded':>9}{'peak':>9}")
    for row in rows:
        figures = "".join(f"{row[f'{point}_mb']:>9.1f}" for point in ("start", "loaded", "peak"))
        print(f"{row['target'] + '-' + row['precision']:<26}{figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
