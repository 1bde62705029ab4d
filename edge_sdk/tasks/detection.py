"""Faces from raw head maps: threshold the class logits first, decode only what survives, then suppress overlaps.

Nothing is computed over the full grid except one comparison: of the thousands of cells of a frame, a handful survive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.boxes import Boxes, nms
from edge_sdk.errors import InferFailed, InputError
from edge_sdk.image import Color, Image, Letterbox, LetterboxSpec, LetterboxTransform, check_frame
from edge_sdk.results import Detections
from edge_sdk.spec import (
    Head,
    ModelSpec,
    check_fraction,
    check_range,
    contradiction,
    expect_outputs,
    only_picture,
)
from edge_sdk.state import State
from edge_sdk.target import Session, infer
from edge_sdk.tasks.base import Faces
from edge_sdk.tensors import Tensors, TensorSpec
from edge_sdk.timing import StageTimes, now_ns

Floats = npt.NDArray[np.float32]

MAX_BINS = 64

MAX_CANDIDATES = 1000
"""Cells that reach suppression, best first: bounds the time of a frame whatever it shows."""


@dataclass(frozen=True, slots=True)
class DetectionHead(Head):
    """Raw head maps of an anchor-free detector, and how they become boxes.

    Outputs, per stride: the side logits ``boxN`` (1, h, w, 4 * bins) and the class logits ``clsN`` (1, h, w, classes),
    float32, h and w being the canvas's sides divided by the stride.

    Attributes:
        kind: ``detection``.
        labels: class names in the order of the class logits.
        letterbox: how a frame becomes the canvas.
        strides: canvas pixels that a cell of each level stands for.
        bins: of the distribution that a box side is predicted as (Distribution Focal Loss, arXiv 2006.04388).
        confidence: a face below this score is not reported.
        iou: of two boxes that overlap by more than this, the better one stays.
        max_faces: report at most this many.
    """

    kind: Literal["detection"]
    letterbox: LetterboxSpec
    strides: tuple[int, ...]
    bins: int
    confidence: float
    iou: float
    max_faces: int

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges (ManifestInvalid)."""
        Head.__post_init__(self)
        check_range("bins", self.bins, 2, MAX_BINS)
        check_range("max_faces", self.max_faces, 1, 10_000)
        check_fraction("confidence", self.confidence)
        check_fraction("iou", self.iou)
        check_range("pad", self.letterbox.pad, 0, 255)
        check_fraction("max_scale", self.letterbox.max_scale, 100.0)
        if not self.strides or len(set(self.strides)) != len(self.strides) or min(self.strides) < 1:
            contradiction(f"strides {self.strides} are none, repeated, or below 1")

    def check(self, spec: ModelSpec) -> None:
        """Raise ManifestInvalid unless the spec has one picture and this head's maps."""
        _, height, width, _ = only_picture(spec).shape
        if any(side % stride for stride in self.strides for side in (height, width)):
            contradiction(f"strides {self.strides} do not divide the input {height}x{width}")
        expect_outputs(spec, self.tensors(height, width)[1])

    def tensors(self, height: int, width: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """A canvas of this size, and the maps of each stride."""
        maps = (("box", 4 * self.bins), ("cls", len(self.labels)))
        return (TensorSpec("pixels", (1, height, width, 3), "uint8", "NHWC"),), tuple(
            TensorSpec(f"{kind}{stride}", (1, height // stride, width // stride, channels), "float32", "NHWC")
            for stride in self.strides
            for kind, channels in maps
        )


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

    faces: Faces = "found"

    def __init__(self, spec: ModelSpec, *, confidence: float | None = None, iou: float | None = None) -> None:
        assert isinstance(spec.head, DetectionHead)
        self.spec, self.head = spec, spec.head
        self.confidence = self.head.confidence if confidence is None else confidence
        self.iou = self.head.iou if iou is None else iou
        for name, value in (("confidence", self.confidence), ("iou", self.iou)):
            if not 0 < value < 1:
                raise InputError(
                    f"{name} must lie between 0 and 1, got {value}", remedy="give a fraction like 0.25"
                )
        pixels = only_picture(spec)
        _, height, width, _ = pixels.shape
        self._letterbox = Letterbox(side_x=width, side_y=height, spec=self.head.letterbox)
        self._inputs: Tensors = {pixels.name: self._letterbox.canvas}
        self._levels = tuple(
            _Level(f"box{s}", f"cls{s}", cell_centres(height // s, width // s, s)) for s in self.head.strides
        )
        self._bins = self.head.bins
        self._moments = _moments(self._bins)

    def preprocess(
        self, image: Image, color: Color = "rgb", box: Boxes | None = None
    ) -> tuple[Tensors, LetterboxTransform]:
        """Letterbox a frame; see :class:`edge_sdk.tasks.base.Task`. It looks at whole frames: ``box`` is ignored.

        Returns:
            The canvas (1, height, width, 3) uint8 RGB by its name, and the transform that undoes it.
        """
        return self._inputs, self._letterbox(image, color)

    def run(
        self,
        session: Session,
        image: Image,
        *,
        boxes: npt.ArrayLike | None = None,
        color: Color = "rgb",
        state: State | None = None,
        target: str = "",
    ) -> Detections:
        """Find the faces of a frame; see :class:`edge_sdk.tasks.base.Task`."""
        start = now_ns()
        check_frame(image, color)
        if boxes is not None:
            raise InputError(f"{self.spec.name} finds faces itself", remedy="leave boxes out")
        inputs, transform = self.preprocess(image, color)
        prepared = now_ns()
        outputs = infer(session, inputs, state)
        inferred = now_ns()
        found = self.postprocess(outputs, transform)
        times = StageTimes(prepared - start, inferred - prepared, now_ns() - inferred)
        return found.answered(times, target, session.device)

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
        best = np.maximum.reduce(logits)
        if not floor <= best < math.inf:
            if best < floor:
                return None
            # A NaN or an infinity: "no face" would be an answer, and there is none.
            raise _no_number(self.spec, level.cls)
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
        """Corners of each cell's box; see :func:`side_distances`."""
        distances = side_distances(sides, self._moments)
        distances *= cells[:, 2:]
        boxes = np.empty((len(cells), 4), np.float32)
        np.subtract(cells[:, :2], distances[:, :2], out=boxes[:, :2])
        np.add(cells[:, :2], distances[:, 2:], out=boxes[:, 2:])
        return boxes

    def decode_all(self, outputs: Tensors) -> tuple[Boxes, Floats]:
        """Every cell, whatever its score, for who looks at a network and not at a frame.

        Returns:
            (cells, 4) boxes in canvas pixels and (cells, classes) class logits, strides in the head's order.
        """
        boxes, logits = [], []
        for level in self._levels:
            sides = outputs[level.box].reshape(-1, 4, self._bins).astype(np.float32)
            boxes.append(self._decode(sides, level.cells))
            logits.append(outputs[level.cls].reshape(-1, len(self.spec.labels)))
        return np.concatenate(boxes), np.concatenate(logits)

    def postprocess(self, tensors: Tensors, transform: LetterboxTransform) -> Detections:
        """Head maps to faces in frame pixels; one expression per face, so suppression ignores classes.

        Every box is finite, ordered and inside the frame: one that lies in the border beside the picture is dropped.

        Raises:
            InferFailed: scores, or sides of a face's box, are not numbers.
        """
        boxes, logits, best = self.candidates(tensors, self.confidence)
        if not len(boxes):
            return Detections.empty(self.spec.labels)
        # Logits rank as scores do: only what is kept needs the sigmoid.
        kept = nms(boxes, best, iou_threshold=self.iou, limit=self.head.max_faces)
        places = transform.to_frame(boxes.take(kept, 0))
        # In plain Python, for the handful that it is. What is not a number is not less than another; it survives
        # suppression, which suppresses nothing because of it.
        seen = [i for i, (x1, y1, x2, y2) in enumerate(places.tolist()) if x1 < x2 and y1 < y2]
        if len(seen) < len(kept):
            if not np.isfinite(places).all():
                raise _no_number(self.spec, "a face's box")
            kept, places = kept[seen], places[seen]
        if not len(kept):
            return Detections.empty(self.spec.labels)
        each = sigmoid(logits.take(kept, 0))
        total: Floats = np.add.reduce(each, axis=1, keepdims=True)
        return Detections(
            boxes=places,
            scores=np.maximum.reduce(each, axis=1),
            class_ids=each.argmax(axis=1),
            probs=each / total,
            names=self.spec.labels,
        )


def _no_number(spec: ModelSpec, where: str) -> InferFailed:
    return InferFailed(
        f"{spec.name} gave no number in {where}: there is no answer for this frame",
        remedy="run 'edge-sdk verify' on the bundle; report it with the frame if it passes",
    )


def side_distances(sides: Floats, moments: Floats | None = None) -> Floats:
    """Distances of box sides from their cell's centre, in strides: the expectation over their bins (arXiv 2006.04388).

    Args:
        sides: (..., bins) float32 logits, overwritten.
        moments: (bins, 2) float32, the bins' numbers beside ones; None makes them.

    Returns:
        (...) float32.
    """
    if moments is None:
        moments = _moments(sides.shape[-1])
    sides -= np.maximum.reduce(sides, axis=-1, keepdims=True)
    np.exp(sides, out=sides)
    sums = sides @ moments
    distances: Floats = sums[..., 0] / sums[..., 1]
    return distances


def _moments(bins: int) -> Floats:
    """(bins, 2): one product gives both sums of an expectation, of the weighted bins and of the weights."""
    return np.stack((np.arange(bins), np.ones(bins)), axis=1).astype(np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Logistic function; the floor keeps ``exp`` finite and changes no float32 result that matters."""
    scores = np.maximum(logits, -60)
    np.negative(scores, out=scores)
    np.exp(scores, out=scores)
    scores += 1
    return np.divide(1, scores, out=scores)


def cell_centres(height: int, width: int, stride: int) -> Floats:
    """(height * width, 3) x and y of each cell's centre and the stride, in canvas pixels, row by row."""
    # In place, in the type it has in the end: a hostile spec may ask for millions.
    cells = np.empty((height, width, 3), np.float32)
    cells[..., 0] = (np.arange(width) + 0.5) * stride
    cells[..., 1] = (np.arange(height)[:, None] + 0.5) * stride
    cells[..., 2] = stride
    return cells.reshape(-1, 3)


HEAD = DetectionHead
TASK = DetectionTask
