"""Labelled faces of your own, in the form that training reads.

    python -m edge_training.data.pack faces/ -o mydata/fer2013

``faces/`` holds ``train/LABEL/*.png``, ``val/LABEL/*.png`` and ``test/LABEL/*.png``: one face per picture, cut like the
faces that a detector's box cuts, of any size, grey or colour; LABEL is one of FER2013's seven. Pictures become grey and
48x48. Training learns from ``train`` but leaves out pictures that are also in the other two; it keeps the weights that
are best on ``val``; ``test`` is for the last measurement.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_quantize.data import read_labelled
from edge_sdk.errors import EdgeError, InputError
from edge_sdk.image import read_image
from edge_training.data import fer2013

PARTS = ("train", "val", "test")
"""Folders, in the order of FER2013's Training, PublicTest and PrivateTest."""


def pack(source: Path, output: Path) -> int:
    """Write labelled pictures as sheets and a label file; returns how many.

    Args:
        source: folder with ``train``, ``val`` and ``test``, each ``LABEL/*.png``.
        output: folder to write, missing or empty.

    Raises:
        InputError: a part is missing or empty, a picture is unreadable, a folder is no label, or ``output`` is not
            empty.
    """
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty", remedy="name a new folder")
    images, labels, usage = [], [], []
    for use, part in enumerate(PARTS):
        for item in read_labelled(source / part, fer2013.LABELS):
            images.append(_grey(item.path))
            labels.append(int(item.classes[0]))
            usage.append(use)
    # Whole or not at all: training must not find half of a set.
    half = output.with_name(output.name + ".partial")
    fer2013.write(half, np.stack(images), np.array(labels), np.array(usage))
    if output.exists():
        output.rmdir()
    half.rename(output)
    return len(images)


def _grey(path: Path) -> npt.NDArray[np.uint8]:
    picture = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
    if picture.shape[0] != picture.shape[1]:
        raise InputError(
            f"{path} is {picture.shape[1]}x{picture.shape[0]}, expected a square around one face",
            remedy="cut squares",
        )
    way = cv2.INTER_AREA if picture.shape[0] > fer2013.SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (fer2013.SIDE, fer2013.SIDE), interpolation=way), np.uint8)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(
        prog="edge_training.data.pack", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("source", type=Path, help="folder with train/, val/ and test/, each LABEL/*.png")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write: DATA/fer2013")
    args = parser.parse_args(argv)
    try:
        count = pack(args.source, args.output)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"{count} faces in {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
