"""Labelled face crops of one's own, in place of FER2013.

The folder holds one folder per split and in it one per label, as ``edge-sdk evaluate`` reads them:

    FACES/train/happy/1.png       FACES/validation/happy/9.png
    FACES/train/sad/2.png         FACES/validation/sad/8.png

A picture shows one face, cut as FER2013 cuts it: a square from the brow to the chin. Colour is dropped, as FER2013 has
none.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_quantize.data import read_labelled, read_pictures
from edge_sdk.image import Image
from edge_training.data import fer2013


def read(folder: Path) -> fer2013.Fer2013:
    """Read a folder of ``train/LABEL`` and ``validation/LABEL``; labels are those of FER2013, and some may be missing.

    Args:
        folder: that holds the two splits.

    Returns:
        ``training`` and ``public_test`` (the validation) as (N, 48, 48) grey crops without FER+ votes. ``private_test``
        is empty: a test set that chose nothing is evaluated with ``edge-sdk evaluate``.

    Raises:
        InputError: a split is missing or empty, a folder names no label, or a picture cannot be read.
    """
    training, validation = _split(folder / "train"), _split(folder / "validation")
    return fer2013.Fer2013(training, validation, validation[:0])


def _split(folder: Path) -> fer2013.Faces:
    items = read_labelled(folder, fer2013.LABELS)
    images = np.stack([_grey_square(image) for _, image in read_pictures(items)])
    labels = np.array([item.classes[0] for item in items], np.int64)
    votes = np.zeros((len(items), len(fer2013.LABELS)), np.float32)
    return fer2013.Faces(images, labels, votes, np.zeros(len(items), bool))


def _grey_square(image: Image) -> npt.NDArray[np.uint8]:
    """The middle square of an (H, W, 3) RGB picture, grey, at FER2013's 48 pixels."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = cv2.cvtColor(image[top : top + side, left : left + side], cv2.COLOR_RGB2GRAY)
    size = (fer2013.SIDE, fer2013.SIDE)
    return cv2.resize(square, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
