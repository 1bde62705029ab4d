"""FER2013 and composed scenes as folders of pictures that ``edge-sdk build`` and ``evaluate`` read.

    python -m edge_training.data.unpack private-test --data ../shared/data -o runs/data/private-test

What it writes stays out of the repository: FER2013 may not be redistributed.

- ``public-test``, ``private-test``: ``DIR/LABEL/ROW.png``, the crops as they are; ``--without-duplicates`` leaves out
  the pictures that also occur in Training;
  ``--face N`` shrinks each to N pixels, as a camera would have seen a face that small; ``--face mixed`` every
  row to one of the sizes that fer-gmenet is trained for, in turn;
- ``crops-calibration``: training crops of all those sizes, without labels;
- ``pad-dev``, ``pad-test``, ``pad-calibration``: simulated presentations as 80-pixel crops, ``DIR/bona_fide`` and a
  folder per species, of portraits that training never saw (calibration: of those that it saw);
- ``calibration``: AI-made portraits, training crops and composed scenes, a third each, without labels;
- ``scenes``: composed pictures of PublicTest faces on backgrounds and portraits that training never saw, in YOLO layout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from edge_sdk.errors import EdgeError, InputError
from edge_sdk.files import replacing
from edge_sdk.image import read_image, write_image
from edge_training.data import augment, fer2013
from edge_training.data.attacks import SPECIES
from edge_training.data.augment import FACE_SIDES
from edge_training.data.portraits import HELD_OUT_EVERY, portrait_files, read_backgrounds
from edge_training.data.presentations import presentations
from edge_training.data.scenes import SceneMaker

SETS = (
    "public-test",
    "private-test",
    "calibration",
    "scenes",
    "crops-calibration",
    "pad-dev",
    "pad-test",
    "pad-calibration",
)
PRESENTATIONS = {"pad-dev": 3000, "pad-test": 6000, "pad-calibration": 256}
CALIBRATION_PICTURES = 256
SCENES = 400


def unpack(
    name: str,
    data: Path,
    output: Path,
    *,
    without_duplicates: bool = False,
    face: int | Literal["mixed"] = fer2013.SIDE,
) -> int:
    """Write one of ``SETS``, whole or not at all, and return the number of pictures.

    Args:
        name: of the set, one of ``SETS``.
        data: data folder, with ``fer2013/``, ``faces/``, ``backgrounds/`` and ``peers/``.
        output: folder to write, empty or missing.
        without_duplicates: leave out test rows that also occur in Training.
        face: side in pixels that each FER2013 face is shrunk to, or ``mixed`` for all of ``FACE_SIDES`` in turn.

    Raises:
        InputError: the data cannot be read, or ``output`` already holds something.
    """
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty", remedy="name a new folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Evaluations take a folder that exists as complete: an interrupted set must not look like a smaller one.
    with replacing(output) as partial:
        return _unpack(name, data, partial, without_duplicates, face)


def _unpack(
    name: str, data: Path, output: Path, without_duplicates: bool, face: int | Literal["mixed"]
) -> int:
    if name in PRESENTATIONS:
        return _presentations(name, data, output)
    sets = fer2013.read(data / "fer2013")
    if name == "crops-calibration":
        return _crops(sets.training, output)
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
        side = FACE_SIDES[row % len(FACE_SIDES)] if face == "mixed" else face
        picture = augment.three_channels(augment.shrink(faces.images[row], side))
        write_image(output / label / f"{row:05d}.png", picture)
    return len(rows)


def _crops(faces: fer2013.Faces, output: Path) -> int:
    output.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(2015).permutation(len(faces))[:CALIBRATION_PICTURES].tolist()
    for index, row in enumerate(rows):
        picture = augment.three_channels(
            augment.shrink(faces.images[row], FACE_SIDES[index % len(FACE_SIDES)])
        )
        write_image(output / f"{index:04d}.png", picture)
    return len(rows)


def _presentations(name: str, data: Path, output: Path) -> int:
    split = {"pad-dev": "dev", "pad-test": "test", "pad-calibration": "train"}[name]
    images, groups = presentations(data, split, PRESENTATIONS[name], SPECIES, seed=2016)
    for group in sorted(set(groups.tolist())):
        (output / group).mkdir(parents=True)
    for index, (image, group) in enumerate(zip(images, groups.tolist(), strict=True)):
        write_image(output / group / f"{index:05d}.png", image)
    return len(images)


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


def _face(text: str) -> int | Literal["mixed"]:
    if text == "mixed":
        return "mixed"
    if not (text.isdigit() and 4 <= int(text) <= fer2013.SIDE):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 4 to {fer2013.SIDE} nor 'mixed'")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.data.unpack", description=__doc__.split("\n")[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", type=Path, required=True, help="folder of training/README.md")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--without-duplicates", action="store_true")
    parser.add_argument(
        "--face",
        type=_face,
        default=fer2013.SIDE,
        metavar="N",
        help="pixels of a face, or 'mixed' (default: 48)",
    )
    args = parser.parse_args(argv)
    try:
        count = unpack(
            args.set, args.data, args.output, without_duplicates=args.without_duplicates, face=args.face
        )
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"{count} pictures in {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
