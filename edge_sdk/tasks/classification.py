"""Classes from a face's crop: cut, resize, and the softmax of what the network answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InferFailed
from edge_sdk.image import Color, FaceCrop, Image, check_boxes, check_frame
from edge_sdk.per_face import CropInput, Floats, answer_each, check_crop_network, crop_tensors, softmax
from edge_sdk.results import Classifications
from edge_sdk.spec import Head, ModelSpec
from edge_sdk.state import State
from edge_sdk.target import Session
from edge_sdk.tasks.base import Faces, refuse_confidence
from edge_sdk.tensors import Tensors, TensorSpec
from edge_sdk.timing import now_ns


@dataclass(frozen=True, slots=True)
class ClassificationHead(Head):
    """One set of class logits per face.

    Output: ``logits`` (1, classes) float32.

    Attributes:
        kind: ``classification``.
        labels: class names in the order of the logits.
        crop: how a face becomes the input.
    """

    kind: Literal["classification"]
    crop: FaceCrop

    def check(self, spec: ModelSpec) -> None:
        """Raise ManifestInvalid unless the spec has one picture and these logits."""
        check_crop_network(spec, self.crop)

    def tensors(self, height: int, width: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """A crop of this size, and the logits."""
        return crop_tensors(height, width, len(self.labels))


class ClassificationTask:
    """Pre- and postprocessing of a network that names what a face shows.

    Args:
        spec: of the network.
        confidence: must be None: it answers for every face it is given.

    Raises:
        InputError: a confidence was given.
    """

    faces: Faces = "given"

    def __init__(self, spec: ModelSpec, *, confidence: float | None = None) -> None:
        refuse_confidence(spec, confidence)
        assert isinstance(spec.head, ClassificationHead)
        self.spec, self.head = spec, spec.head
        self._crop = CropInput(spec, self.head.crop)

    def preprocess(
        self, image: Image, color: Color = "rgb", box: npt.NDArray[np.float32] | None = None
    ) -> tuple[Tensors, None]:
        """Cut one face out of a frame; see :class:`edge_sdk.tasks.base.Task`.

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
    ) -> Classifications:
        """Name what each face shows; without boxes the picture is one face."""
        start = now_ns()
        check_frame(image, color)
        places = (None,) if boxes is None else check_boxes(boxes, image)
        answers = answer_each(self, session, image, places, color, state, start)
        found = self.postprocess(answers.logits)
        return found.answered(answers.times(), target, session.device)

    def postprocess(self, answers: Sequence[Floats]) -> Classifications:
        """Each face's (1, classes) logits to what the faces show.

        Raises:
            InferFailed: logits are not numbers; there is no label for that.
        """
        logits = np.concatenate(answers) if answers else np.zeros((0, len(self.spec.labels)), np.float32)
        if not np.isfinite(logits).all():
            raise InferFailed(
                f"{self.spec.name} gave no number: there is no answer for this frame",
                remedy="run 'edge-sdk verify' on the bundle; report it with the frame if it passes",
            )
        return Classifications(softmax(logits), self.spec.labels)


HEAD = ClassificationHead
TASK = ClassificationTask
