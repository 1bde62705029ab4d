"""How long a user waits for the first answer: fresh processes, one after the other.

total     wall time from starting Python to the first frame's faces, seen from outside the process.
import    ``import edge_sdk`` and all it needs, OpenCV not included: that comes with the first load.
load      ``edge_sdk.load``: reading and hashing the bundle, the engine's import and compile, the golden vectors.
first     the first frame, 640x480, drawn.

What is left of the total is Python's own start, the reading of the frame and the pipe. The page cache is kept: one
process runs before those that count, so files come from memory; after a reboot it takes longer. That process also fills
an engine cache of this run's own, as the first start on a device does; ``--no-engine-cache`` compiles anew every time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_benchmarks import command
from edge_benchmarks.frames import draw

PHASES = ("total", "import", "load", "first")

_CHILD = """
import json, os, sys, time
os.environ["EDGE_SDK_ENGINE_CACHE"] = sys.argv[4]
t0 = time.perf_counter_ns()
import edge_sdk
t1 = time.perf_counter_ns()
model = edge_sdk.load(sys.argv[1], threads=int(sys.argv[3]) or None)
t2 = time.perf_counter_ns()
import numpy
frame = numpy.load(sys.argv[2])
t3 = time.perf_counter_ns()
model(frame)
t4 = time.perf_counter_ns()
print()
print(json.dumps({"import": t1 - t0, "load": t2 - t1, "first": t4 - t3}), flush=True)
"""


def measure(path: Path, *, count: int, threads: int | None, engine_cache: bool) -> dict[str, Any]:
    """Median, minimum and maximum milliseconds of each phase over ``count`` processes."""
    row: dict[str, Any] = {**command.label(path), "processes": count, "engine_cache": engine_cache}
    taken: dict[str, list[float]] = {phase: [] for phase in PHASES}
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npy"
        np.save(frame, draw(0))
        cache = str(Path(folder) / "engines") if engine_cache else "off"
        # The first one fills the caches, and does not count.
        for turn in range(-1, count):
            once = _start_once(path, frame, threads, cache)
            if turn >= 0:
                for phase in PHASES:
                    taken[phase].append(once[phase] / 1e6)
    for phase, ms in taken.items():
        row[f"{phase}_ms"] = {"median": statistics.median(ms), "min": min(ms), "max": max(ms)}
    return row


def _start_once(path: Path, frame: Path, threads: int | None, cache: str) -> dict[str, int]:
    """Nanoseconds of each phase of one fresh process."""
    answer, total = command.ask_fresh_process(_CHILD, str(path), str(frame), str(threads or 0), cache)
    return {"total": total, **answer}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command.parser("cold_start", __doc__)
    command.add_bundles(parser)
    parser.add_argument("--threads", type=command.positive, metavar="N", help="of the engine")
    parser.add_argument(
        "--count", type=command.positive, default=10, metavar="N", help="processes (default: 10)"
    )
    parser.add_argument(
        "--no-engine-cache", action="store_true", help="compile at every start, as the first one does"
    )
    return command.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    cached = not args.no_engine_cache
    rows = [
        measure(p, count=args.count, threads=args.threads, engine_cache=cached)
        for p in command.expand(args.bundles)
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    kept = "page and engine caches kept" if cached else "page cache kept, no engine cache"
    print(f"cold start, ms: median (min-max) of {args.count} processes, {kept}")
    print(f"{'':<22}" + "".join(f"{phase:>19}" for phase in PHASES))
    for row in rows:
        cells = (_cell(**row[f"{phase}_ms"]) for phase in PHASES)
        print(f"{row['target'] + '-' + row['precision']:<22}" + "".join(f"{cell:>19}" for cell in cells))
    return 0


def _cell(median: float, min: float, max: float) -> str:
    return f"{median:.0f} ({min:.0f}-{max:.0f})"


if __name__ == "__main__":
    sys.exit(main())
