"""What the resident set of this process gains while one session of the contract suite's small network answers calls.

    python -m edge_benchmarks.children.memory_growth TARGET PRECISION CALLS

Prints one line of JSON: ``target``, ``precision`` and ``calls`` as given; then for ``canvas`` (the same array given anew
at each call) and ``new`` (a new array for each call): ``KIND_kb``, kilobytes (1024 bytes) that the resident set gained
from a tenth of the calls to the last, and ``KIND_us``, mean microseconds per call. Linux only.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edge_benchmarks.process_memory import resident


def main(target: str, precision: str, calls: str) -> None:
    """Build, call, print; see the module's docstring for the arguments and for what is printed."""
    from edge_sdk.cli_common import stdout_is_ours
    from edge_sdk.target import find_target
    from edge_targets.conformance import Kit
    from edge_targets.conformance.network import pixels

    count = int(calls)
    recipe: Any = precision  # a name that the contract suite does not know is its error to raise
    answer: dict[str, Any] = {"target": target, "precision": precision, "calls": count}
    with tempfile.TemporaryDirectory() as folder, stdout_is_ours():
        kit = Kit.build(find_target(target), recipe, Path(folder))
        for kind in ("canvas", "new"):
            with kit.session() as session:
                canvas = pixels().copy()
                early = 0
                started = time.perf_counter()
                for call in range(count):
                    session.infer({"pixels": canvas if kind == "canvas" else canvas.copy()})
                    if call + 1 == count // 10:
                        early = resident()
                answer[f"{kind}_kb"] = (resident() - early) // 1024
                answer[f"{kind}_us"] = (time.perf_counter() - started) / count * 1e6
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
