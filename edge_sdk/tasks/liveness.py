"""Bona fide or attack, in the terms of ISO/IEC 30107-3: an answer per face that fails closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError
from edge_sdk.image import Color, FaceCrop, Image, check_boxes, check_frame
from edge_sdk.per_face import CropInput, Floats, answer_each, check_crop_network, crop_tensors, softmax
from edge_sdk.results import Liveness
from edge_sdk.spec import MAX_SIDE, Head, ModelSpec, check_fraction, check_range, contradiction
from edge_sdk.state import State
from edge_sdk.target import Session
from edge_sdk.tasks.base import Faces, refuse_confidence
from edge_sdk.tensors import Tensors, TensorSpec
from edge_sdk.timing import now_ns

LABELS = ("bona fide", "attack")


@dataclass(frozen=True, slots=True)
class LivenessHead(Head):
    """When a face counts as bona fide; everything else does not.

    Output: ``logits`` (1, 2) float32.

    Attributes:
        kind: ``liveness``.
        labels: ``bona fide``, ``attack``.
        crop: how a face becomes the input.
        threshold: bona fide from this score on, 0..1. Found on a development set and kept through quantization.
        min_face: pixels of the box's shorter side; a smaller face is undecided.
        max_outside: share of the box's area that may lie outside the frame; a face cut off further is undecided.
    """

    error_rates: ClassVar[frozenset[str]] = frozenset(
        ("apcer_worst", "bpcer", "acer", "d_eer", "bpcer10", "bpcer20", "bpcer100")
    )

    kind: Literal["liveness"]
    crop: FaceCrop
    threshold: float
    min_face: int
    max_outside: float

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges (ManifestInvalid)."""
        if self.labels != LABELS:
            contradiction(f"labels of a liveness network are {self.labels}, expected {LABELS}")
        check_range("min_face", self.min_face, 1, MAX_SIDE)
        check_fraction("threshold", self.threshold)
        check_fraction("max_outside", self.max_outside)

    def check(self, spec: ModelSpec) -> None:
        """Raise ManifestInvalid unless the spec has one picture and these logits."""
        check_crop_network(spec, self.crop)

    def tensors(self, height: int, width: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """A crop of this size, and the logits."""
        return crop_tensors(height, width, len(self.labels))


class LivenessTask:
    """Pre- and postprocessing of a network that tells a face from a picture or a mask of one.

    Args:
        spec: of the network.
        confidence: must be None: it answers for every face it is given.

    Raises:
        InputError: a confidence was given.
    """

    faces: Faces = "required"

    def __init__(self, spec: ModelSpec, *, confidence: float | None = None) -> None:
        refuse_confidence(spec, confidence)
        assert isinstance(spec.head, LivenessHead)
        self.spec, self.head = spec, spec.head
        self._crop = CropInput(spec, self.head.crop)

    def preprocess(
        self, image: Image, color: Color = "rgb", box: npt.NDArray[np.float32] | None = None
    ) -> tuple[Tensors, None]:
        """Cut one face and its surroundings out of a frame; see :class:`edge_sdk.tasks.base.Task`.

        Returns:
            The crop (1, height, width, 3) uint8 RGB by its name, and nothing to undo.
        """
        return self._crop(image, box, color), None

    def run(
        self,
        session: Session,
        image: Image,
        *,
        boxes: npt.ArrayLike | None = None,
        color: Color = "rgb",
        state: State | None = None,
        target: str = "",
    ) -> Liveness:
        """Decide about each face; see :class:`edge_sdk.tasks.base.Task`."""
        start = now_ns()
        check_frame(image, color)
        if boxes is None:
            raise InputError(
                f"{self.spec.name} needs the faces' boxes: how much it sees around them is part of the model",
                remedy="give boxes=, such as a detector's .boxes",
            )
        checked = check_boxes(boxes, image)
        reasons = self.undecidable(image, checked)
        answers = answer_each(self, session, image, checked, color, state, start)
        found = self.postprocess(answers.logits, reasons)
        return found.answered(answers.times(), target, session.device)

    def undecidable(self, image: Image, boxes: npt.NDArray[np.float32]) -> tuple[str, ...]:
        """Why the network should not be asked about each face; an empty string where it may.

        Args:
            image: (H, W, 3) frame.
            boxes: (N, 4), already checked.
        """
        height, width = image.shape[:2]
        sides = boxes[:, 2:] - boxes[:, :2]
        inside = np.minimum(boxes[:, 2:], (width, height)) - np.maximum(boxes[:, :2], 0)
        outside = 1 - inside.prod(axis=1) / sides.prod(axis=1)
        return tuple(
            f"the face is {small:.0f} pixels wide, {self.head.min_face} are needed"
            if small < self.head.min_face
            else f"{cut:.0%} of the face lies outside the frame"
            if cut > self.head.max_outside
            else ""
            for small, cut in zip(sides.min(axis=1).tolist(), outside.tolist(), strict=True)
        )

    def postprocess(self, answers: Sequence[Floats], reasons: Sequence[str]) -> Liveness:
        """Each face's (1, 2) logits, or why there are none to trust, to a decision.

        Only a finite score at or above the threshold is bona fide; what the network cannot say is not.
        """
        logits = np.concatenate(answers) if answers else np.zeros((0, 2), np.float32)
        silent = np.logical_not(np.isfinite(logits).all(axis=1))
        scores = softmax(np.where(silent[:, None], np.float32(0), logits))[:, 0]
        found = [
            reason or ("the network gave no number" if broken else "")
            for reason, broken in zip(reasons, silent.tolist(), strict=True)
        ]
        good = scores >= self.head.threshold
        return Liveness(
            scores=np.where(silent, np.float32(0), scores),
            decisions=tuple(
                "undecided" if reason else "bona fide" if yes else "attack"
                for reason, yes in zip(found, good.tolist(), strict=True)
            ),
            reasons=tuple(found),
        )


HEAD = LivenessHead
TASK = LivenessTask
