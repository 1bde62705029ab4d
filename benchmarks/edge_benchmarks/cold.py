"""How long a user waits for the first answer: fresh processes, one after the other.

total     wall time from starting Python to the first frame's answer, seen from outside the process.
import    ``import edge_sdk`` and all it needs, OpenCV not included: that comes with the first load.
verify    reading and hashing the bundle.
load      the engine's import, and compiling or reading the network.
golden    running the golden vectors.
first     the first frame, 640x480, drawn.

What is left of the total is Python's own start, the reading of the frame and the pipe. One process runs before those
that count: with the page cache kept, files come from memory, as they do unless the machine has just booted; and it
fills an engine cache of this run's own, as the first start on a device does.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from edge_benchmarks import module_cli
from edge_benchmarks.subject import Item, write_item
from edge_sdk.errors import SourceUnavailable

PHASES = ("import", "verify", "load", "golden", "first")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

_CHILD = """
import json, os, sys, time
clock = time.perf_counter_ns
os.environ["EDGE_SDK_ENGINE_CACHE"] = sys.argv[4]
t0 = clock()
import edge_sdk
t1 = clock()
import edge_sdk.model as loading
spent = {"verify": 0, "golden": 0}
def timed(name, work):
    def call(*args, **named):
        begin = clock()
        try:
            return work(*args, **named)
        finally:
            spent[name] += clock() - begin
    return call
loading.Bundle.open = timed("verify", loading.Bundle.open)
loading.check_golden = timed("golden", loading.check_golden)
t2 = clock()
model = edge_sdk.load(sys.argv[1], threads=int(sys.argv[3]) or None, device=sys.argv[5] or None)
t3 = clock()
import numpy
given = numpy.load(sys.argv[2])
boxes = given["boxes"] if "boxes" in given else None
image = given["image"]
t4 = clock()
faces = model(image, boxes=boxes)
t5 = clock()
load = t3 - t2 - spent["verify"] - spent["golden"]
print()
print(json.dumps({"import": t1 - t0, **spent, "load": load, "first": t5 - t4, "faces": len(faces)}), flush=True)
"""


def measure(
    bundle: str | Path,
    item: Item,
    *,
    processes: int,
    threads: int,
    device: str | None,
    page_cache: str,
    engine_cache: bool,
    goes_on: Callable[[], bool],
    add: Callable[[dict[str, int]], None],
) -> None:
    """Start processes until there are enough, or nobody wants more.

    Args:
        bundle: file or zoo name.
        item: that each looks at first.
        processes: that count.
        threads: of the engine.
        device: where it must run; None takes the usual one.
        page_cache: ``kept``, or ``dropped`` before each.
        engine_cache: whether a process finds what the first one compiled.
        goes_on: asked before each.
        add: given each one's nanoseconds by phase and ``total``, and its ``faces``.

    Raises:
        SourceUnavailable: the page cache cannot be dropped here.
        LoadFailed: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npz"
        write_item(frame, item)
        cache = str(Path(folder) / "engines") if engine_cache else "off"
        for turn in range(-1, processes):
            if not goes_on():
                return
            if page_cache == "dropped":
                drop_page_cache()
            answer, total = module_cli.ask_fresh_process(
                _CHILD, str(bundle), str(frame), str(threads), cache, device or ""
            )
            if turn >= 0:
                add({**answer, "total": total})


def drop_page_cache(control: Path = DROP_CACHES) -> None:
    """Make the kernel forget the files it has read.

    Raises:
        SourceUnavailable: it does not let this user.
    """
    try:
        os.sync()
        control.write_text("3\n")
    except OSError as error:
        raise SourceUnavailable(
            f"the page cache cannot be dropped: {error}",
            remedy="run it as root on the machine itself, or keep the cache: --page-cache kept",
        ) from error
