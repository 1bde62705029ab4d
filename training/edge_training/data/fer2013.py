"""FER2013: 35,887 grey 48x48 faces with an expression, official split, FER+ votes beside the labels.

The set may not be redistributed: it is read from a folder that the caller names, and never copied into the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 48
ROWS = 35_887
SHEETS = 6
_TILES_ACROSS = 100
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
    """Read the set from its six sheets of tiles and its label file.

    Args:
        folder: holds ``fer2013_sheet_0.png`` to ``_5.png`` and ``fer2013_labels.npz``.

    Raises:
        InputError: a file is missing or unreadable, or the number of rows or a label is not what FER2013 has.
    """
    images = np.concatenate([_read_sheet(folder / f"fer2013_sheet_{k}.png") for k in range(SHEETS)])
    images = images[:ROWS]
    label_file = folder / "fer2013_labels.npz"
    try:
        with np.load(label_file, allow_pickle=False) as z:
            fields = {name: z[name] for name in z.files}
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {label_file}: {error}", remedy="name the folder that holds FER2013's files"
        ) from error
    labels = fields["labels"].astype(np.int64)
    if len(labels) != ROWS or len(images) != ROWS:
        raise InputError(
            f"{folder} holds {len(images)} pictures and {len(labels)} labels, expected {ROWS} of each",
            remedy="fetch the complete set again",
        )
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


def _read_sheet(path: Path) -> npt.NDArray[np.uint8]:
    sheet = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if sheet is None or sheet.shape[1] != SIDE * _TILES_ACROSS or sheet.shape[0] % SIDE:
        raise InputError(
            f"cannot read {path} as a sheet of {SIDE}-pixel tiles, {_TILES_ACROSS} per row",
            remedy="name the folder that holds FER2013's files",
        )
    tiles = sheet.reshape(-1, SIDE, _TILES_ACROSS, SIDE).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, SIDE, SIDE)).astype(np.uint8)


def _vote_distribution(fields: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    votes = np.zeros((ROWS, len(LABELS)), np.float32)
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
