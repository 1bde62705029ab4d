"""Peak memory of this process while it loads a bundle and answers some frames.

    python -m edge_benchmarks.children.peak_memory BUNDLE ITEM.npz THREADS FRAMES DEVICE

Arguments: the ``.edge`` file or zoo name; the item, as ``edge_benchmarks.system_under_test.write_item`` wrote it; the
number of threads (0: automatic); how many times the item is answered; the device (empty: the usual one).

Prints one line of JSON, all in bytes: the peak of the resident set at ``start`` (Python, numpy and the SDK imported),
with the bundle ``loaded``, and after all frames (``peak``); and ``pss``, the largest proportional set size seen, read
after every tenth of the frames; 0 where the system does not tell it.
"""

from __future__ import annotations

import json
import sys

from edge_benchmarks import process_memory


def main(bundle: str, item: str, threads: str, frames: str, device: str) -> None:
    """Load, answer, print; see the module's docstring for the arguments and for what is printed."""
    import numpy

    import edge_sdk

    start, shared = process_memory.peak_resident(), process_memory.proportional()
    model = edge_sdk.load(bundle, threads=int(threads) or None, device=device or None)
    loaded, shared = process_memory.peak_resident(), max(shared, process_memory.proportional())
    given = numpy.load(item)
    image, boxes = given["image"], given.get("boxes")
    count, state = int(frames), model.new_state()
    for number in range(count):
        model(image, boxes=boxes, state=state)
        if number % max(1, count // 10) == 0:
            shared = max(shared, process_memory.proportional())
    peak = process_memory.peak_resident()
    print("\n" + json.dumps({"start": start, "loaded": loaded, "peak": peak, "pss": shared}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
