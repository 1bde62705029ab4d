"""One cold start, phase by phase: import the SDK, load a bundle, answer one frame.

    python -m edge_benchmarks.children.cold_start BUNDLE ITEM.npz THREADS ENGINE_CACHE DEVICE

Arguments: the ``.edge`` file or zoo name; the item, as ``edge_benchmarks.system_under_test.write_item`` wrote it; the
number of threads (0: automatic); the folder of the engine cache, or ``off``; the device (empty: the usual one).

Prints one line of JSON: nanoseconds of ``import``, ``verify``, ``load``, ``golden`` and ``first`` (see
:mod:`edge_benchmarks.cold`); ``faces``, the number that the first frame's answer holds; and ``answered_at``, the reading
of the system-wide clock ``time.perf_counter_ns`` when the answer was there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def main(bundle: str, item: str, threads: str, engine_cache: str, device: str) -> None:
    """Start, answer, print; see the module's docstring for the arguments and for what is printed."""
    clock = time.perf_counter_ns
    os.environ["EDGE_SDK_ENGINE_CACHE"] = engine_cache
    begin = clock()
    import edge_sdk

    imported = clock()
    import edge_sdk.verify as proving
    from edge_sdk.bundle import Bundle

    spent = {"verify": 0, "golden": 0}

    def timed(phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            before = clock()
            try:
                return work(*positional, **named)
            finally:
                spent[phase] += clock() - before

        return call

    # What a load calls by these names is timed where it stands; nothing else of it is changed.
    bundles: Any = Bundle
    bundles.open = timed("verify", bundles.open)
    names: Any = proving
    names.check_golden = timed("golden", names.check_golden)
    before_load = clock()
    model = edge_sdk.load(bundle, threads=int(threads) or None, device=device or None)
    loaded = clock()
    import numpy

    given = numpy.load(item)
    image, boxes = given["image"], given.get("boxes")
    state = model.new_state()
    before_first = clock()
    faces = model(image, boxes=boxes, state=state)
    answered_at = clock()
    answer = {
        "import": imported - begin,
        **spent,
        "load": loaded - before_load - spent["verify"] - spent["golden"],
        "first": answered_at - before_first,
        "faces": len(faces),
        "answered_at": answered_at,
    }
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
