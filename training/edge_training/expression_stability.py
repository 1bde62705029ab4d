"""Whether the size and the surroundings of a face change what a detector says that it expresses.

    python -m edge_training.expression_stability --data ../shared/data --work runs/face --checkpoint CHECKPOINT --json

The same PrivateTest faces, equally many of each class, at 32 to 300 pixels on a canvas of 320: as a bare crop on flat
grey, and blended into the head of a kept-out portrait before a photograph; sharp as a crop of 48 pixels is, and soft as
one of 24; in colour and in grey. The answer is that of the surest box with an IoU of 0.5 or more; a face without one is
answered wrongly.

- *UAR*: the mean over classes of the share answered rightly.
- *spread*: the greatest UAR from 48 to 300 pixels less the smallest.
- *changed*: of the faces found at both of two sizes from 48 pixels, the share with another answer; the pair of sizes
  where it is greatest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.boxes import iou
from edge_sdk.errors import EdgeError
from edge_sdk.image import Image
from edge_training import checkpoint
from edge_training.data import probe_scenes
from edge_training.data.natural import NaturalScenes
from edge_training.data.shards import read_sources
from edge_training.face_training import load_network
from edge_training.networks import DETECTORS
from edge_training.stages.base import to_float
from edge_training.stages.face_decode import Found, decode, found_by

SIZES = (32, 64, 96, 144, 200, 300)
JUDGED = 48
"""Pixels from which the spread and the changes are told."""
CONDITIONS: dict[str, dict[str, bool]] = {
    "bare": {"in_head": False},
    "bare, soft": {"in_head": False, "soft": True},
    "bare, colour": {"in_head": False, "colour": True},
    "head, colour": {"in_head": True, "colour": True},
    "head, grey": {"in_head": True},
    "head, soft, colour": {"in_head": True, "soft": True, "colour": True},
}
_LEAST = 0.02

Finder = Callable[[Sequence[Image]], list[Found]]


def with_face_logit(path: Path) -> Finder:
    """A checkpoint of :mod:`edge_training.face_training`."""
    network = load_network(path)
    return lambda images: found_by(network, images, _LEAST)


def with_class_scores(path: Path, name: str = "yolo11n") -> Finder:
    """Float weights of a detector whose greatest class score is the face's, and its class the answer."""
    network = DETECTORS[name](7)
    tensors, _ = checkpoint.load(path)
    network.load_state_dict({k: v.float() for k, v in tensors.items()})
    network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def found(images: Sequence[Image]) -> list[Found]:
        results = []
        for image in images:
            with torch.autocast("cpu", torch.bfloat16):
                boxes, classes = network(to_float(torch.from_numpy(image[None])))
            sides, scores = ([m[0].float().numpy() for m in kind] for kind in (boxes, classes))
            results.append(
                decode(sides, scores, [s.max(0, keepdims=True) for s in scores], confidence=_LEAST)
            )
        return results

    return found


def answers(
    finder: Finder, maker: NaturalScenes, rows: Sequence[int], size: int, condition: dict[str, bool]
) -> npt.NDArray[np.int64]:
    """(N,) the class answered for each face; -1 where no box is on it."""
    side = 320
    result = []
    for start in range(0, len(rows), 16):
        made = [
            probe_scenes.one_face(maker, row, size, side=side, **condition)
            for row in rows[start : start + 16]
        ]
        for found, (_, box) in zip(finder([image for image, _ in made]), made, strict=True):
            good = np.flatnonzero(iou(box[None], found.boxes.clip(0, side))[0] >= 0.5)
            result.append(int(found.probs[good[0]].argmax()) if len(good) else -1)
    return np.array(result, np.int64)


def uar(answer: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """Mean recall over the classes that occur."""
    return float(np.mean([(answer[labels == c] == c).mean() for c in np.unique(labels)]))


def changed(by_size: dict[int, npt.NDArray[np.int64]]) -> float:
    """The greatest share of faces that are answered differently at two sizes, of those found at both."""
    worst = 0.0
    for a, b in combinations([s for s in by_size if s >= JUDGED], 2):
        both = (by_size[a] >= 0) & (by_size[b] >= 0)
        if both.any():
            worst = max(worst, float((by_size[a] != by_size[b])[both].mean()))
    return worst


def measure(
    finder: Finder, maker: NaturalScenes, labels: npt.NDArray[np.int64], each: int
) -> dict[str, dict[str, float]]:
    """UAR by size, spread and changes of every condition, and changes between bare and in a head at one size.

    Args:
        finder: the detector.
        maker: has PrivateTest's faces and kept-out portraits.
        labels: of the faces.
        each: faces of each class.
    """
    rows = probe_scenes.marked_rows(maker, labels, each)
    truth = labels[rows]
    table: dict[str, dict[str, float]] = {}
    kept: dict[str, dict[int, npt.NDArray[np.int64]]] = {}
    for title, condition in CONDITIONS.items():
        by_size = {size: answers(finder, maker, rows, size, condition) for size in SIZES}
        kept[title] = by_size
        row = {f"{size} px": uar(answer, truth) for size, answer in by_size.items()}
        judged = [row[f"{size} px"] for size in SIZES if size >= JUDGED]
        row["spread"] = max(judged) - min(judged)
        row["changed"] = changed(by_size)
        row["found"] = float(np.mean([(by_size[s] >= 0).mean() for s in SIZES if s >= JUDGED]))
        table[title] = row
    surroundings = {}
    for size in SIZES:
        bare, head = kept["bare"][size], kept["head, grey"][size]
        both = (bare >= 0) & (head >= 0)
        surroundings[f"{size} px"] = float((bare != head)[both].mean()) if both.any() else 0.0
    judged = [surroundings[f"{size} px"] for size in SIZES if size >= JUDGED]
    table["bare against head, changed"] = {
        **surroundings,
        "spread": max(judged) - min(judged),
        "changed": max(judged),
        "found": 1.0,
    }
    return table


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(
        prog="edge_training.expression_stability", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder with marks/ from data.shards")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="with a face logit")
    parser.add_argument("--weights", type=Path, help="float weights of a detector without a face logit")
    parser.add_argument("--each", type=int, default=40, help="faces of each class (default: 40)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        sources = read_sources(args.data, args.work / "marks", ("private_test",))
        maker = sources.scenes("private_test", kept_out=True)
        finders = {path.stem: with_face_logit(path) for path in args.checkpoint}
        if args.weights is not None:
            finders[f"{args.weights.stem} (class scores)"] = with_class_scores(args.weights)
        labels = sources.faces.private_test.labels
        tables = {name: measure(finder, maker, labels, args.each) for name, finder in finders.items()}
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(tables, indent=2))
        return 0
    for name, table in tables.items():
        columns = list(next(iter(table.values())))
        print(f"{name}\n\n| | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
        for title, row in table.items():
            print(f"| {title} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |")
        print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
