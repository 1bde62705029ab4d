"""What the SDK adds to the engine.

Two measurements for each bundle, on 640x480 frames with one face:

wrapper   model(frame) minus the engine's share of it, frame by frame: letterbox, decode, suppression, results and
          bookkeeping. The drawn one-face frames on which the network reports exactly one face are cycled; if there is
          none, the engine still runs, but its answer is replaced by the maps of one face on nine cells, and the row
          says "planted".
infer     the session's infer minus the vendor's own call, on the same engine and input: one of each per pair, the one
          that comes first alternating. Median of the pairs' differences, with a 95 % interval by bootstrap: an
          interval that spans 0 says that no difference was found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from edge_benchmarks import module_cli
from edge_benchmarks.frames import frame_set
from edge_benchmarks.system_under_test import network_inputs
from edge_sdk.adapter import SessionBase
from edge_sdk.model import Model, load
from edge_sdk.spec import ModelSpec, only_picture
from edge_sdk.target import Session
from edge_sdk.tasks.detection import DetectionHead
from edge_sdk.tensors import Tensors
from edge_sdk.testing import head_maps
from edge_sdk.timing import now_ns

GOAL_WRAPPER_MS = 0.6
GOAL_INFER_US = 50.0
WARM_UP = 20


class Planted(SessionBase):
    """A session that runs its engine as usual and replaces the answer by the maps of one face."""

    def __init__(self, session: Session, spec: ModelSpec) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self.device, self.notes = session.device, session.notes
        self._session = session
        _, height, width, _ = only_picture(spec).shape
        assert isinstance(spec.head, DetectionHead), "a detector's spec"
        cell = spec.head.strides[0]
        half = 6 * cell
        x, y = width // 2, height // 2
        face = np.array((x - half, y - half, x + half, y + half), np.float32)
        # A trained network marks some cells around a face's centre, and suppression keeps one of them.
        around = [face + np.array((dx, dy, dx, dy)) for dx in (-cell, 0, cell) for dy in (-cell, 0, cell)]
        self._maps = head_maps(spec, np.stack(around), [0] * len(around))

    def infer(self, inputs: Tensors) -> Tensors:
        """Run the engine, and put the face into its answer: where, and as warm, as the engine's own would be."""
        answer = self._session.infer(inputs)
        for name, planted in self._maps.items():
            np.copyto(answer[name], planted)
        return answer

    def close(self) -> None:
        """Free the engine."""
        self._session.close()


def measure_wrapper(model: Model[Any], count: int) -> dict[str, Any]:
    """Medians in milliseconds of ``count`` frames: everything but the engine, and its parts."""
    pictures, state = frame_set(), model.new_state()
    # A classifier takes the whole frame as its face; only where a task needs a box is the drawn face's given.
    one_face = [
        (image, boxes if model.task.faces == "required" else None)
        for image, boxes in zip(pictures.images, pictures.boxes, strict=True)
        if len(boxes) == 1
    ]
    seen = [(image, boxes) for image, boxes in one_face if len(model(image, boxes=boxes, state=state)) == 1]
    if not seen:
        model.session = Planted(model.session, model.spec)
    frames = cycle(seen or one_face)
    for _ in range(WARM_UP):
        image, boxes = next(frames)
        model(image, boxes=boxes, state=state)
    rows = np.empty((count, 3))
    for row in rows:
        image, boxes = next(frames)
        before = now_ns()
        times = model(image, boxes=boxes, state=state).times
        row[:] = now_ns() - before - times.infer_ns, times.preprocess_ns, times.postprocess_ns
    wrapper, preprocess, postprocess = (float(v) / 1e6 for v in np.median(rows, axis=0))
    rest = float(np.median(rows[:, 0] - rows[:, 1] - rows[:, 2])) / 1e6
    return {
        "wrapper_ms": wrapper,
        "preprocess_ms": preprocess,
        "postprocess_ms": postprocess,
        "rest_ms": rest,
        "frames": count,
        "faces": f"{len(seen)} frames" if seen else "planted",
    }


def measure_infer(ours: Callable[[], object], raw: Callable[[], object], count: int) -> Any:
    """Time two calls alternately: their medians, and the median of their differences, in microseconds.

    Args:
        ours: the session's infer, on some inputs.
        raw: the vendor's own call, on the same inputs and the same handle: two handles with equal settings differ by
            more than what is looked for, since their memory lies elsewhere.
        count: number of pairs that are measured.
    """
    calls = (ours, raw)
    taken = np.empty((count, 2))
    for turn in range(-WARM_UP, count):
        for which in (turn % 2, 1 - turn % 2):
            before = now_ns()
            calls[which]()
            if turn >= 0:  # the ones before are warm-up
                taken[turn, which] = now_ns() - before
    taken /= 1e3
    # A turn's two calls share whatever the machine did just then: their difference is steadier than either.
    differences = taken[:, 0] - taken[:, 1]
    rng = np.random.default_rng(0)
    low, high = np.percentile(np.median(rng.choice(differences, (1000, count)), axis=1), (2.5, 97.5))
    session_us, raw_us = (float(v) for v in np.median(taken, axis=0))
    return {
        "session_us": session_us,
        "raw_us": raw_us,
        "difference_us": float(np.median(differences)),
        "low_us": float(low),
        "high_us": float(high),
        "pairs": count,
    }


def measure(path: Path, *, count: int, threads: int | None) -> dict[str, Any]:
    """Both measurements of one bundle."""
    with load(path, threads=threads) as model:
        session = model.session
        (inputs,) = network_inputs(model.task, 1)
        infer = measure_infer(lambda: session.infer(inputs), session.vendor_call(inputs), count)
        return {**module_cli.label(path), "wrapper": measure_wrapper(model, count), "infer": infer}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = module_cli.parser("wrapper", __doc__)
    module_cli.add_bundles(parser)
    parser.add_argument("--threads", type=module_cli.positive, metavar="N", help="of the engine")
    parser.add_argument(
        "--count", type=module_cli.positive, default=300, metavar="N", help="frames (default: 300)"
    )
    return module_cli.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    rows = [measure(p, count=args.count, threads=args.threads) for p in module_cli.expand(args.bundles)]
    if args.json:
        goals = {"wrapper_ms": GOAL_WRAPPER_MS, "infer_difference_us": GOAL_INFER_US}
        print(json.dumps({"goals": goals, "rows": rows}, indent=2))
        return 0
    print(f"wrapper, p50 ms (goal <= {GOAL_WRAPPER_MS} ms)")
    print(f"{'':<26}{'wrapper':>9}{'pre':>9}{'post':>9}{'rest':>9}  one face")
    for row in rows:
        w = row["wrapper"]
        parts = "".join(f"{w[k]:>9.3f}" for k in ("wrapper_ms", "preprocess_ms", "postprocess_ms", "rest_ms"))
        print(f"{row['target'] + '-' + row['precision']:<26}{parts}  {w['faces']}")
    print(f"infer, p50 us (goal: difference <= {GOAL_INFER_US:g} us)")
    print(f"{'':<26}{'session':>9}{'raw':>9}{'diff':>9}  95 % interval")
    for row in rows:
        i = row["infer"]
        figures = f"{i['session_us']:>9.0f}{i['raw_us']:>9.0f}{i['difference_us']:>+9.1f}"
        print(
            f"{row['target'] + '-' + row['precision']:<26}{figures}  {i['low_us']:+.1f} to {i['high_us']:+.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
