"""What tasks share whose networks look at one face at a time and answer with logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError
from edge_sdk.image import Color, Cropper, FaceCrop, Image
from edge_sdk.spec import ModelSpec, contradiction, expect_outputs, only_picture
from edge_sdk.state import State
from edge_sdk.target import Session, infer
from edge_sdk.tensors import Tensors, TensorSpec
from edge_sdk.timing import StageTimes, now_ns

Floats = npt.NDArray[np.float32]
LOGITS = "logits"


class PerFaceTask(Protocol):
    """A task that makes the inputs of one face."""

    spec: ModelSpec

    def preprocess(
        self, image: Image, color: Color = "rgb", box: npt.NDArray[np.float32] | None = None
    ) -> tuple[Tensors, Any]:
        """See :class:`edge_sdk.tasks.base.Task`."""
        ...


class CropInput:
    """The one picture input of a network, cut out of frames onto one reused canvas.

    Args:
        spec: of the network.
        crop: how a face is cut.
    """

    def __init__(self, spec: ModelSpec, crop: FaceCrop) -> None:
        pixels = only_picture(spec)
        _, height, width, _ = pixels.shape
        self._crop = Cropper(side_x=width, side_y=height, crop=crop)
        self._inputs: Tensors = {pixels.name: self._crop.canvas}

    def __call__(self, image: Image, box: npt.NDArray[Any] | None, color: Color) -> Tensors:
        """The crop (1, height, width, 3) uint8 RGB by its name, overwritten by the next call."""
        self._crop(image, box, color)
        return self._inputs


@dataclass(frozen=True, slots=True)
class FaceAnswers:
    """The logits of each face of a frame, and the time so far.

    Attributes:
        logits: (1, classes) float32 per face; copies, which stay when the session's memory does not.
        preprocess_ns: of all faces together.
        infer_ns: of all faces together.
        since_ns: when the last inference ended.
    """

    logits: list[Floats]
    preprocess_ns: int
    infer_ns: int
    since_ns: int

    def times(self) -> StageTimes:
        """Times of all stages, postprocessing until now."""
        return StageTimes(self.preprocess_ns, self.infer_ns, now_ns() - self.since_ns)


def answer_each(
    task: PerFaceTask,
    session: Session,
    image: Image,
    boxes: Sequence[None] | npt.NDArray[np.float32],
    color: Color,
    state: State | None,
    start_ns: int,
) -> FaceAnswers:
    """Ask a network about one face after another.

    Args:
        task: makes the inputs.
        session: the loaded network.
        image: frame, checked.
        boxes: of the faces, checked; None stands for the whole picture.
        color: order of the frame's channels.
        state: what a recurrent network remembers of its one face; updated.
        start_ns: when the work on this frame began.

    Raises:
        InputError: several faces with one state, which is untouched.
    """
    if state is not None and len(boxes) > 1:
        raise InputError(
            f"{task.spec.name} remembers one face, and {len(boxes)} were given with one state",
            remedy="give one face per call, and each face a state of its own",
        )
    preparing = inferring = 0
    answers: list[Floats] = []
    for box in boxes:
        inputs, _ = task.preprocess(image, color, box)
        prepared = now_ns()
        outputs = infer(session, inputs, state)
        inferred = now_ns()
        answers.append(outputs[LOGITS].astype(np.float32, copy=True))
        preparing, inferring, start_ns = (
            preparing + prepared - start_ns,
            inferring + inferred - prepared,
            inferred,
        )
    return FaceAnswers(answers, preparing, inferring, start_ns)


def crop_tensors(
    height: int, width: int, classes: int
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a network that sees a crop of this size and answers with ``logits`` (1, classes)."""
    return (
        (TensorSpec("pixels", (1, height, width, 3), "uint8", "NHWC"),),
        (TensorSpec(LOGITS, (1, classes), "float32", "NC"),),
    )


def check_crop_network(spec: ModelSpec, crop: FaceCrop) -> None:
    """Raise ManifestInvalid unless a spec has one picture, cut by a sensible margin, and the logits of its labels."""
    if not 0.5 <= crop.margin <= 10:
        contradiction(f"margin is {crop.margin}, expected 0.5 to 10")
    _, height, width, _ = only_picture(spec).shape
    expect_outputs(spec, crop_tensors(height, width, len(spec.labels))[1])


def softmax(logits: Floats) -> Floats:
    """(N, classes) shares; the greatest logit is taken off first, so nothing overflows."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: Floats = shares.sum(axis=1, keepdims=True)
    result: Floats = shares / total
    return result
