"""Bona fide or attack, in the terms of ISO/IEC 30107-3: a classifier whose answer fails closed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.image import Image
from edge_sdk.results import Liveness
from edge_sdk.spec import ModelSpec
from edge_sdk.tasks.classification import ClassificationTask, Floats, softmax


class LivenessTask(ClassificationTask):
    """Pre- and postprocessing of a network that tells a face from its picture.

    Args:
        spec: of the network.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        assert spec.decision is not None, "the spec has checked this"
        self.decision = spec.decision

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
            f"the face is {small:.0f} pixels wide, {self.decision.min_face} are needed"
            if small < self.decision.min_face
            else f"{cut:.0%} of the face lies outside the frame"
            if cut > self.decision.max_outside
            else ""
            for small, cut in zip(sides.min(axis=1).tolist(), outside.tolist(), strict=True)
        )

    def decide(self, answers: Sequence[Floats], reasons: Sequence[str]) -> Liveness:
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
        good = scores >= self.decision.threshold
        return Liveness(
            scores=np.where(silent, np.float32(0), scores),
            decisions=tuple(
                "undecided" if reason else "bona fide" if yes else "attack"
                for reason, yes in zip(found, good.tolist(), strict=True)
            ),
            reasons=tuple(found),
        )
