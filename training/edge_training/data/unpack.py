"""FER2013 and composed scenes as folders of pictures that ``edge-sdk build`` and ``evaluate`` read.

    python -m edge_training.data.unpack private-test --data ../shared/data -o runs/data/private-test

What it writes stays out of the repository: FER2013 may not be redistributed.

- ``public-test``, ``private-test``: ``DIR/LABEL/ROW.png``, the crops as they are; ``--without-duplicates`` leaves out
  the pictures that also occur in Training;
- ``calibration``: AI-made portraits, training crops and composed scenes, a third each, without labels;
- ``scenes``: composed pictures of PublicTest faces on backgrounds and portraits that training never saw, in YOLO layout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge_sdk.errors import EdgeError, InputError
from edge_sdk.image import read_image, write_image
from edge_training.data import augment, fer2013
from edge_training.data.portraits import HELD_OUT_EVERY, portrait_files, read_backgrounds
from edge_training.data.scenes import SceneMaker

SETS = ("public-test", "private-test", "calibration", "scenes")
CALIBRATION_PICTURES = 256
SCENES = 400


def unpack(name: str, data: Path, output: Path, *, without_duplicates: bool = False) -> int:
    """Write one of ``SETS``; returns how many pictures.

    Raises:
        InputError: the data cannot be read, or ``output`` already holds something.
    """
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty", remedy="name a new folder")
    sets = fer2013.read(data / "fer2013")
    if name == "calibration":
        return _calibration(sets.training, data, output)
    if name == "scenes":
        return _scenes(sets.public_test, data, output)
    faces = sets.public_test if name == "public-test" else sets.private_test
    rows = np.flatnonzero(~faces.duplicated) if without_duplicates else np.arange(len(faces))
    for label in fer2013.LABELS:
        (output / label).mkdir(parents=True)
    for row in tqdm(rows.tolist(), desc=name, disable=not sys.stderr.isatty()):
        label = fer2013.LABELS[faces.labels[row]]
        write_image(output / label / f"{row:05d}.png", augment.three_channels(faces.images[row]))
    return len(rows)


def _calibration(faces: fer2013.Faces, data: Path, output: Path) -> int:
    output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2013)
    backgrounds = [b for i, b in enumerate(read_backgrounds(data / "backgrounds")) if i % HELD_OUT_EVERY]
    maker = SceneMaker(faces.images, faces.targets(), backgrounds)
    rows = rng.permutation(len(faces))
    portraits = rng.permutation(np.array(portrait_files(data / "faces"), dtype=object))
    for index in range(CALIBRATION_PICTURES):
        # Clear colour faces give the highest scores: without them int8 would clip what it is surest of.
        if index % 3 == 0:
            picture = read_image(portraits[index])
        elif index % 3 == 1:
            picture = augment.three_channels(faces.images[rows[index]])
        else:
            picture = maker.scene(rows[-8 * index - 8 : -8 * index - 8 + index % 7].tolist(), 320, rng).image
        write_image(output / f"{index:04d}.png", picture)
    return CALIBRATION_PICTURES


def _scenes(faces: fer2013.Faces, data: Path, output: Path) -> int:
    (output / "images").mkdir(parents=True)
    (output / "labels").mkdir()
    rng = np.random.default_rng(2014)
    backgrounds = read_backgrounds(data / "backgrounds")[::HELD_OUT_EVERY]
    maker = SceneMaker(faces.images, faces.targets(smoothing=0.0), backgrounds)
    for index in range(SCENES):
        rows = rng.integers(0, len(faces), rng.integers(0, 7)).tolist()
        scene = maker.scene(rows, 320, rng)
        write_image(output / "images" / f"{index:04d}.png", scene.image)
        lines = []
        for (x1, y1, x2, y2), target in zip(scene.boxes / 320, scene.targets, strict=True):
            box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            lines.append(f"{int(target.argmax())} " + " ".join(f"{v:.6f}" for v in box))
        (output / "labels" / f"{index:04d}.txt").write_text("\n".join(lines) + "\n")
    return SCENES


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.data.unpack", description=__doc__.split("\n")[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--without-duplicates", action="store_true")
    args = parser.parse_args(argv)
    try:
        count = unpack(args.set, args.data, args.output, without_duplicates=args.without_duplicates)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"{count} pictures in {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
