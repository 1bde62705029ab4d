"""FER2013: 35,887 grey 48x48 faces with an expression, official split, FER+ votes beside the labels.

The set has no redistribution grant; it is read from a folder that the caller names and never copied into the project.
Faces of your own come into the same form by ``edge_training.data.pack``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError
from edge_sdk.image import write_image

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 48
_TILES_ACROSS = 100
_ROWS_DOWN = 60
_BLANK = 2.0
"""Grey levels of standard deviation below which a picture shows nothing."""
# FER+ counts votes for these, in this order; contempt, unknown and "not a face" have no FER2013 class.
_VOTES_TO_LABEL = {
    "neutral": 6,
    "happiness": 3,
    "surprise": 5,
    "sadness": 4,
    "anger": 0,
    "disgust": 1,
    "fear": 2,
}


@dataclass(frozen=True)
class Faces:
    """Grey face crops with their labels.

    Attributes:
        images: (N, 48, 48) uint8.
        labels: (N,) int64 index into ``LABELS``.
        votes: (N, 7) float32, FER+ votes as a distribution over ``LABELS``; a row of zeros where there are none.
        duplicated: (N,) bool, the same picture also occurs in another split.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    votes: npt.NDArray[np.float32]
    duplicated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Faces:
        return Faces(self.images[keep], self.labels[keep], self.votes[keep], self.duplicated[keep])

    def targets(self, smoothing: float = 0.05) -> npt.NDArray[np.float32]:
        """(N, 7) training distribution: the FER2013 label, with ``smoothing`` spread over all classes."""
        hard = np.eye(len(LABELS), dtype=np.float32)[self.labels]
        return ((1 - smoothing) * hard + smoothing / len(LABELS)).astype(np.float32)


@dataclass(frozen=True)
class Fer2013:
    """The three official splits; ``training`` is without leaking and blank rows."""

    training: Faces
    public_test: Faces
    private_test: Faces


def read(folder: Path) -> Fer2013:
    """Read the set from its sheets of tiles (six of FER2013) and its label file.

    Args:
        folder: holds ``fer2013_sheet_0.png``, ``_1.png`` ... and ``fer2013_labels.npz``.

    Raises:
        InputError: a file is missing or unreadable, there are fewer pictures than labels, or a label is none of
            ``LABELS``.
    """
    sheets = max(1, len(list(folder.glob("fer2013_sheet_*.png"))))
    images = np.concatenate([_read_sheet(folder / f"fer2013_sheet_{k}.png") for k in range(sheets)])
    label_file = folder / "fer2013_labels.npz"
    try:
        with np.load(label_file, allow_pickle=False) as z:
            fields = {name: z[name] for name in z.files}
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {label_file}: {error}", remedy="name the folder that holds FER2013's files"
        ) from error
    labels = fields["labels"].astype(np.int64)
    if not 0 < len(labels) <= len(images):
        raise InputError(
            f"{folder} holds {len(images)} pictures for {len(labels)} labels, expected at least one for each",
            remedy="fetch the complete set again",
        )
    images = images[: len(labels)]  # the last sheet's empty tiles
    if labels.min() < 0 or labels.max() >= len(LABELS):
        raise InputError(
            f"{label_file} holds a label outside 0..{len(LABELS) - 1}",
            remedy="fetch the complete set again",
        )
    usage = fields["usage"]
    leaks, blank = fields["train_leaks_test"], fields["near_constant"]
    faces = Faces(images, labels, _vote_distribution(fields), _occurs_in_training(images, usage))
    return Fer2013(
        training=faces[(usage == 0) & ~leaks & ~blank],
        public_test=faces[usage == 1],
        private_test=faces[usage == 2],
    )


def write(
    folder: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], usage: npt.NDArray[np.int64]
) -> None:
    """Write a set in the form that ``read`` takes, without votes.

    Args:
        folder: made if missing.
        images: (N, 48, 48) uint8.
        labels: (N,) index into ``LABELS``.
        usage: (N,) 0 Training, 1 PublicTest, 2 PrivateTest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = -(-len(images) // _TILES_ACROSS)
    tiles = np.zeros((rows * _TILES_ACROSS, SIDE, SIDE), np.uint8)
    tiles[: len(images)] = images
    strips = tiles.reshape(rows, _TILES_ACROSS, SIDE, SIDE).transpose(0, 2, 1, 3).reshape(rows, SIDE, -1)
    for sheet in range(-(-rows // _ROWS_DOWN)):
        part = strips[sheet * _ROWS_DOWN : (sheet + 1) * _ROWS_DOWN]
        write_image(
            folder / f"fer2013_sheet_{sheet}.png", np.repeat(part.reshape(-1, part.shape[2], 1), 3, axis=2)
        )
    none = np.zeros(len(labels), bool)
    np.savez(
        folder / "fer2013_labels.npz",
        labels=labels,
        usage=usage,
        votes=np.zeros((len(labels), 0), np.int64),
        vote_names=np.zeros(0, "U1"),
        lossless=~none,
        train_leaks_test=_leaks(images, usage),
        near_constant=none | (images.std((1, 2)) < _BLANK),
    )


def _leaks(images: npt.NDArray[np.uint8], usage: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Training rows whose picture is also held out."""
    keys = [image.tobytes() for image in images]
    held_out = {key for key, use in zip(keys, usage, strict=True) if use != 0}
    return np.array([use == 0 and key in held_out for key, use in zip(keys, usage, strict=True)], dtype=bool)


def _read_sheet(path: Path) -> npt.NDArray[np.uint8]:
    sheet = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if sheet is None or sheet.shape[1] != SIDE * _TILES_ACROSS or sheet.shape[0] % SIDE:
        raise InputError(
            f"cannot read {path} as a sheet of {SIDE}-pixel tiles, {_TILES_ACROSS} a row",
            remedy="name the folder that holds FER2013's files",
        )
    tiles = sheet.reshape(-1, SIDE, _TILES_ACROSS, SIDE).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, SIDE, SIDE)).astype(np.uint8)


def _vote_distribution(fields: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    votes = np.zeros((len(fields["labels"]), len(LABELS)), np.float32)
    for column, name in enumerate(fields["vote_names"].tolist()):
        if name in _VOTES_TO_LABEL:
            votes[:, _VOTES_TO_LABEL[name]] = fields["votes"][:, column]
    votes[~fields["lossless"].astype(bool)] = 0  # re-encoded rows: which picture was voted on is unsure
    total = votes.sum(1, keepdims=True)
    shares: npt.NDArray[np.float32] = np.divide(votes, total, out=np.zeros_like(votes), where=total > 0)
    return shares


def _occurs_in_training(
    images: npt.NDArray[np.uint8], usage: npt.NDArray[np.generic]
) -> npt.NDArray[np.bool_]:
    keys = [image.tobytes() for image in images]
    training = {key for key, use in zip(keys, usage, strict=True) if use == 0}
    return np.array([use != 0 and key in training for key, use in zip(keys, usage, strict=True)], dtype=bool)
