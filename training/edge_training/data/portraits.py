"""Colour pictures of AI-made faces, boxed by a permissively licensed detector, and face-free photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk import boxes as geometry
from edge_sdk.errors import InputError
from edge_sdk.image import Image, read_image

HELD_OUT_EVERY = 10
"""Every tenth background and portrait never takes part in training."""

_BACKGROUNDS = ("clothing_cc0", "skimage_sklearn", "raccoon_mit")
_PORTRAITS = ("faker_portraits", "sfhq_t2i")
_CANDIDATES = 800
# These two of the sample pictures show a person.
_WITH_FACES = ("astronaut", "camera", "lfw")


@dataclass(frozen=True)
class Portrait:
    """A colour picture of one face; ``box`` is (4,) xyxy, square, cut the way FER2013 cuts faces."""

    image: Image
    box: npt.NDArray[np.float32]


def read_backgrounds(folder: Path, *, side: int = 400) -> list[Image]:
    """All face-free photographs, shrunk so that the longer side is at most ``side``, in name order."""
    paths = [p for name in _BACKGROUNDS for p in _pictures(folder / name / "images")]
    return [_at_most(read_image(p), side) for p in paths if not p.stem.startswith(_WITH_FACES)]


def read_portraits(folder: Path, detector: UltraLight) -> list[Portrait]:
    """All AI-made portraits on which the detector finds exactly one face, in name order."""
    found = []
    for path in portrait_files(folder):
        image = read_image(path)
        boxes = detector(image)
        if len(boxes) == 1:
            found.append(Portrait(image, fer_box(boxes[0])))
    return found


def portrait_files(folder: Path) -> list[Path]:
    """The AI-made portraits, in name order."""
    return [path for name in _PORTRAITS for path in _pictures(folder / name / "images")]


def fer_box(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A detector's face box to the square that FER2013 would have cut.

    Measured on 108 FER2013 crops: the detector's box is as high as the crop (1.02) and 0.81 as wide, its centre 2 % of
    the side above the crop's.
    """
    x1, y1, x2, y2 = box
    half = (y2 - y1) / 2
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2 + 0.02 * (y2 - y1)
    return np.array([cx - half, cy - half, cx + half, cy + half], np.float32)


class UltraLight:
    """The Ultra-Light RFB-640 face detector (MIT): (H, W, 3) RGB to (N, 4) boxes in pixels."""

    def __init__(self, model: Path, *, confidence: float = 0.7, size: tuple[int, int] = (640, 480)) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # the file lists its weights as inputs; each would be a warning
        if not model.exists():
            raise InputError(f"no detector at {model}", remedy="fetch the peers' folder")
        self.session: Any = onnxruntime.InferenceSession(str(model), options)
        self.confidence, self.size = confidence, size

    def __call__(self, image: Image) -> npt.NDArray[np.float32]:
        return self.found(image)[0]

    def found(self, image: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(N, 4) boxes in pixels and (N,) scores, best first."""
        height, width = image.shape[:2]
        pixels = (cv2.resize(image, self.size).astype(np.float32) - 127) / 128
        scores, boxes = self.session.run(None, {"input": pixels.transpose(2, 0, 1)[None]})
        sure = np.flatnonzero(scores[0, :, 1] > self.confidence)
        # At a low confidence there are thousands, and suppression compares each with each.
        sure = sure[(-scores[0, sure, 1]).argsort(kind="stable")[:_CANDIDATES]]
        candidates = boxes[0][sure] * np.array([width, height, width, height], np.float32)
        kept = geometry.nms(candidates, scores[0, sure, 1], iou_threshold=0.3, limit=300)
        return np.asarray(candidates[kept], np.float32), np.asarray(scores[0, sure, 1][kept], np.float32)


def _pictures(folder: Path) -> Sequence[Path]:
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise InputError(f"no pictures in {folder}", remedy="name the data folder that holds them")
    return paths


def _at_most(image: Image, side: int) -> Image:
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
