"""Cold start: how long a user waits for the first answer, measured in fresh processes one after the other.

total     wall time from starting Python to the first frame's answer: begun outside the process, ended inside, on one
          clock that all processes of a system share.
import    ``import edge_sdk`` and all it needs, OpenCV not included: that comes with the first load.
verify    reading and hashing the bundle.
load      the engine's import, and compiling or reading the network.
golden    running the golden vectors.
first     the first frame, 640x480, drawn.

What is left of the total is Python's own start and the reading of the frame. One process runs before those that count:
with the page cache kept, files come from memory, as they do unless the machine has just booted; and it fills an engine
cache of this run's own, as the first start on a device does. The program is ``edge_benchmarks.children.cold_start``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from edge_benchmarks import child_process
from edge_benchmarks.system_under_test import Item, write_item
from edge_sdk.errors import SourceUnavailable
from edge_sdk.timing import now_ns

PHASES = ("import", "verify", "load", "golden", "first")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

TIMEOUT_S = 1800.0
"""Of one process: a first start may compile for minutes."""


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
    """Start fresh processes one after the other, until there are enough or ``goes_on`` says no.

    Args:
        bundle: ``.edge`` file or zoo name.
        item: what each process answers first.
        processes: number of processes that are measured; one more runs before them.
        threads: number of threads of the engine.
        device: device that the engine must run on; None takes the usual one.
        page_cache: ``kept``, or ``dropped`` before each process.
        engine_cache: whether the processes share a cache of compiled engines, which the first one fills.
        goes_on: asked before each process; False ends the measurement.
        add: called with the result of each process: nanoseconds by phase and ``total``, and ``faces``, a count.

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
            begin = now_ns()
            answer = child_process.json_of(
                "cold_start",
                str(bundle),
                str(frame),
                str(threads),
                cache,
                device or "",
                timeout_s=TIMEOUT_S,
            )
            total = answer.pop("answered_at") - begin
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
