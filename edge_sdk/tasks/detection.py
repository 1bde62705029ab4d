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
from edge_sdk.spec import ModelSpec, Preprocessing
from edge_sdk.tensors import Array, Tensors

Floats = npt.NDArray[np.float32]

MAX_CANDIDATES = 1000
"""Cells that reach suppression, best first: bounds the time of a frame whatever it shows."""


@dataclass(frozen=True, slots=True)
class _Level:
    box: str
    cls: str
    cells: Floats
    """(cells, 3) x and y of each cell's centre and the stride, canvas pixels."""


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
        decode, preprocessing = spec.decode, spec.preprocessing
        # The spec has checked both; a type checker has not.
        assert decode is not None
        assert isinstance(preprocessing, Preprocessing)
        self.spec, self.decode = spec, decode
        self.confidence = decode.confidence if confidence is None else confidence
        self.iou = decode.iou if iou is None else iou
        for name, value in (("confidence", self.confidence), ("iou", self.iou)):
            if not 0 < value < 1:
                raise InputError(
                    f"{name} must lie between 0 and 1, got {value}", remedy="give a fraction like 0.25"
                )
        _, height, width, _ = spec.input.shape
        self._letterbox = Letterbox(
            side_x=width,
            side_y=height,
            pad=preprocessing.pad,
            max_scale=preprocessing.max_scale,
        )
        self._levels = tuple(
            _Level(f"box{s}", f"cls{s}", _cells(height // s, width // s, s)) for s in decode.strides
        )
        self._bins = decode.bins
        # (bins, 2): one product gives both sums of an expectation, of the weighted bins and of the weights.
        self._moments = np.stack((np.arange(self._bins), np.ones(self._bins)), axis=1).astype(np.float32)

    def preprocess(self, image: Image, color: Color = "rgb") -> tuple[Array, LetterboxTransform]:
        """Letterbox a frame.

        Args:
            image: (H, W, 3) uint8, already checked.
            color: order of the frame's channels.

        Returns:
            (1, height, width, 3) uint8 RGB, overwritten by the next call, and the transform that undoes it.
        """
        return self._letterbox(image, color)

    def candidates(self, tensors: Tensors, confidence: float) -> tuple[Boxes, Floats, Floats]:
        """Cells with at least one class score of ``confidence``, decoded; the ``MAX_CANDIDATES`` best if there are more.

        Returns:
            (N, 4) boxes in canvas pixels, (N, classes) class logits, and (N,) the greatest logit of each.
        """
        # score >= confidence is logit >= this: no sigmoid over the grid.
        floor = math.log(confidence / (1 - confidence))
        found = [part for level in self._levels if (part := self._survivors(level, tensors, floor))]
        if not found:
            none = np.zeros((0, len(self.spec.labels)), np.float32)
            return np.zeros((0, 4), np.float32), none, np.zeros(0, np.float32)
        if len(found) == 1:
            logits, sides, cells = found[0]
        else:
            logits, sides, cells = (np.concatenate(parts) for parts in zip(*found, strict=True))
        best = np.maximum.reduce(logits, axis=1)
        if len(best) > MAX_CANDIDATES:
            chosen = (-best).argsort(kind="stable")[:MAX_CANDIDATES]
            best, logits, sides, cells = best[chosen], logits[chosen], sides[chosen], cells[chosen]
        return self._decode(sides, cells), logits, best

    # After an inference caches are cold, and every distinct numpy path that is touched costs microseconds: hence the
    # ufuncs called directly where a method would do, and as few of them as will do.

    def _survivors(self, level: _Level, tensors: Tensors, floor: float) -> tuple[Floats, ...] | None:
        """Class logits (n, classes), side logits (n, 4, bins) and cells (n, 3) of one level, or None."""
        classes = len(self.spec.labels)
        logits = tensors[level.cls].reshape(-1)
        # One pass of SIMD tells that a level is empty, as two of three are for a single face.
        if not np.maximum.reduce(logits) >= floor:
            return None
        hits = (logits >= floor).nonzero()[0]
        # Hits come in order, so those of the same cell are neighbours here.
        hits //= classes
        first = np.empty(len(hits), bool)
        first[0] = True
        np.not_equal(hits[1:], hits[:-1], out=first[1:])
        rows = hits[first]
        sides = tensors[level.box].reshape(-1, 4, self._bins)
        return logits.reshape(-1, classes).take(rows, 0), sides.take(rows, 0), level.cells.take(rows, 0)

    def _decode(self, sides: Floats, cells: Floats) -> Boxes:
        """Sides as the expectation over their bins (arXiv 2006.04388), then corners."""
        sides -= np.maximum.reduce(sides, axis=2, keepdims=True)
        np.exp(sides, out=sides)
        sums = sides @ self._moments
        distances = sums[..., 0] / sums[..., 1]
        distances *= cells[:, 2:]
        boxes = np.empty((len(cells), 4), np.float32)
        np.subtract(cells[:, :2], distances[:, :2], out=boxes[:, :2])
        np.add(cells[:, :2], distances[:, 2:], out=boxes[:, 2:])
        return boxes

    def postprocess(self, tensors: Tensors, transform: LetterboxTransform) -> Detections:
        """Head maps to faces in frame pixels; one expression a face, so suppression ignores classes."""
        boxes, logits, best = self.candidates(tensors, self.confidence)
        if not len(boxes):
            return Detections.empty(self.spec.labels)
        # Logits rank as scores do: only what is kept needs the sigmoid.
        kept = nms(boxes, best, iou_threshold=self.iou, limit=self.decode.max_faces)
        each = sigmoid(logits.take(kept, 0))
        total: Floats = np.add.reduce(each, axis=1, keepdims=True)
        return Detections(
            boxes=transform.to_frame(boxes.take(kept, 0)),
            scores=np.maximum.reduce(each, axis=1),
            class_ids=each.argmax(axis=1),
            probs=each / total,
            names=self.spec.labels,
        )


def sigmoid(logits: Floats) -> Floats:
    """Logistic function; the floor keeps ``exp`` finite and changes no float32 result that matters."""
    scores = np.maximum(logits, -60)
    np.negative(scores, out=scores)
    np.exp(scores, out=scores)
    scores += 1
    return np.divide(1, scores, out=scores)


def _cells(height: int, width: int, stride: int) -> Floats:
    y, x = np.mgrid[0:height, 0:width]
    columns = (x.ravel() + 0.5) * stride, (y.ravel() + 0.5) * stride, np.full(height * width, stride)
    return np.stack(columns, axis=1).astype(np.float32)
