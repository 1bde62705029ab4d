"""Faces from raw head maps: threshold the class logits first, decode only what survives, then suppress overlaps.

Nothing is computed over the full grid except one comparison: of the thousands of cells of a frame, a handful survive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.boxes import Boxes, nms
from edge_sdk.errors import InputError
from edge_sdk.image import Color, Image, Letterbox, LetterboxTransform
from edge_sdk.results import Detections
from edge_sdk.spec import ModelSpec
from edge_sdk.tensors import Array, Tensors

Floats = npt.NDArray[np.float32]

MAX_CANDIDATES = 1000
"""Cells that reach suppression, best first: bounds the time of a frame whatever it shows."""


@dataclass(frozen=True, slots=True)
class _Level:
    box: str
    cls: str
    stride: int
    centres: Floats
    """(cells, 2) x and y of each cell's centre, canvas pixels."""


class DetectionTask:
    """Pre- and postprocessing of an anchor-free detector with separate box and class maps.

    Args:
        spec: of the network.
        confidence: report faces from this score on; None takes the spec's.
        iou: suppress boxes that overlap a better one by more; None takes the spec's.

    Raises:
        InputError: a threshold outside 0..1.
    """

    def __init__(self, spec: ModelSpec, *, confidence: float | None = None, iou: float | None = None) -> None:
        self.spec = spec
        self.confidence = spec.decode.confidence if confidence is None else confidence
        self.iou = spec.decode.iou if iou is None else iou
        for name, value in (("confidence", self.confidence), ("iou", self.iou)):
            if not 0 < value < 1:
                raise InputError(
                    f"{name} must lie between 0 and 1, got {value}", remedy="give a fraction like 0.25"
                )
        _, height, width, _ = spec.input.shape
        self._letterbox = Letterbox(
            side_x=width,
            side_y=height,
            pad=spec.preprocessing.pad,
            max_scale=spec.preprocessing.max_scale,
        )
        self._levels = tuple(
            _Level(f"box{s}", f"cls{s}", s, _centres(height // s, width // s, s)) for s in spec.decode.strides
        )
        self._bins = np.arange(spec.decode.bins, dtype=np.float32)

    def preprocess(self, image: Image, color: Color = "rgb") -> tuple[Array, LetterboxTransform]:
        """Letterbox a frame.

        Args:
            image: (H, W, 3) uint8, already checked.
            color: order of the frame's channels.

        Returns:
            (1, height, width, 3) uint8 RGB, overwritten by the next call, and the transform that undoes it.
        """
        return self._letterbox(image, color)

    def candidates(self, tensors: Tensors, confidence: float) -> tuple[Boxes, Floats]:
        """Cells with at least one class score of ``confidence``, decoded, best first, at most ``MAX_CANDIDATES``.

        Returns:
            (N, 4) boxes in canvas pixels and (N, classes) class logits.
        """
        # score >= confidence is logit >= this: no sigmoid over the grid.
        floor = math.log(confidence / (1 - confidence))
        classes = len(self.spec.labels)
        found: list[tuple[_Level, npt.NDArray[np.intp], Floats]] = []
        for level in self._levels:
            logits = tensors[level.cls].reshape(-1, classes)
            hits = np.flatnonzero(logits.ravel() >= floor)
            if len(hits):
                # Hits come in order, so neighbours of the same cell are neighbours here.
                cells = hits // classes
                cells = cells[np.r_[True, cells[1:] != cells[:-1]]]
                found.append((level, cells, logits[cells]))
        if not found:
            return np.zeros((0, 4), np.float32), np.zeros((0, classes), np.float32)
        boxes = np.concatenate([self._decode(level, cells, tensors) for level, cells, _ in found])
        logits = np.concatenate([part for _, _, part in found])
        order = np.argsort(-logits.max(axis=1), kind="stable")[:MAX_CANDIDATES]
        return boxes[order], logits[order]

    def _decode(self, level: _Level, cells: npt.NDArray[np.intp], tensors: Tensors) -> Boxes:
        """Sides as the expectation over their bins (arXiv 2006.04388), then corners."""
        bins = len(self._bins)
        sides = tensors[level.box].reshape(-1, 4, bins)[cells]
        weights = np.exp(sides - sides.max(axis=2, keepdims=True))
        distances = (weights @ self._bins) / weights.sum(axis=2) * level.stride
        centres = level.centres[cells]
        return np.concatenate((centres - distances[:, :2], centres + distances[:, 2:]), axis=1)

    def postprocess(self, tensors: Tensors, transform: LetterboxTransform) -> Detections:
        """Head maps to faces in frame pixels; one expression a face, so suppression ignores classes."""
        boxes, logits = self.candidates(tensors, self.confidence)
        if not len(boxes):
            return Detections.empty(self.spec.labels)
        each = sigmoid(logits)
        class_ids = each.argmax(axis=1)
        scores = each[np.arange(len(each)), class_ids]
        kept = nms(boxes, scores, iou_threshold=self.iou, limit=self.spec.decode.max_faces)
        each = each[kept]
        return Detections(
            boxes=transform.to_frame(boxes[kept]),
            scores=scores[kept],
            class_ids=class_ids[kept],
            probs=each / each.sum(axis=1, keepdims=True),
            names=self.spec.labels,
        )


def sigmoid(logits: Floats) -> Floats:
    """Logistic function; the clip keeps ``exp`` finite and changes no float32 result that matters."""
    scores: Floats = 1 / (1 + np.exp(-logits.clip(-60, 60)))
    return scores


def _centres(height: int, width: int, stride: int) -> Floats:
    y, x = np.mgrid[0:height, 0:width]
    return ((np.stack((x.ravel(), y.ravel()), axis=1) + 0.5) * stride).astype(np.float32)
