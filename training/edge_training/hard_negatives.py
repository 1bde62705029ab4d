"""Mine what a detector takes for a face in photographs that show none.

    python -m edge_training.hard_negatives --data ../shared/data --work runs/face --checkpoint CHECKPOINT

Rectangles of training photographs at all sizes are shown to the detector; the surroundings of every box it makes up are
kept in the work folder's ``hard/``, and :mod:`edge_training.data.shards` shows them from then on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from edge_sdk.errors import EdgeError
from edge_sdk.image import Image
from edge_training.data.natural import LARGEST, SMALLEST, NaturalScenes
from edge_training.data.shards import SIDE, read_sources
from edge_training.face_training import load_network
from edge_training.stages.face_decode import found_by


def mine(
    network: torch.nn.Module, maker: NaturalScenes, scenes: int, confidence: float, seed: int
) -> list[Image]:
    """Windows of 1.2 to 2.5 box sides around each false box, at least 24 pixels wide.

    Args:
        network: a detector with a face logit.
        maker: has the photographs.
        scenes: to look at.
        confidence: from which a box is one.
        seed: of all draws.
    """
    windows = []
    for number in range(scenes):
        rng = np.random.default_rng((seed, number))
        size = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
        image = maker.face_free_mosaic(size, SIDE, rng).image
        for box in found_by(network, [image], confidence)[0].boxes:
            centre, half = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max()) * rng.uniform(0.6, 1.25)
            half = max(half, 12.0)
            low = np.maximum(centre - half, 0).astype(int)
            high = np.minimum(centre + half, SIDE).astype(int)
            if (high - low).min() >= 12:
                windows.append(np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]))
    return windows


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.hard_negatives", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=1000, help="default: 1000")
    parser.add_argument("--confidence", type=float, default=0.2, help="default: 0.2")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        maker = read_sources(args.data, args.work / "marks", ("training",)).scenes("training", kept_out=False)
        windows = mine(load_network(args.checkpoint), maker, args.scenes, args.confidence, args.seed)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    folder = args.work / "hard"
    folder.mkdir(parents=True, exist_ok=True)
    first = len(list(folder.glob("*.png")))
    for number, window in enumerate(windows, first):
        cv2.imwrite(str(folder / f"{number:05d}.png"), cv2.cvtColor(window, cv2.COLOR_RGB2BGR))
    print(f"{len(windows)} windows in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
