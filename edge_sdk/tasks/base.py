"""What the runtime relies on in a task, and what most tasks share."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError
from edge_sdk.image import Color, Image
from edge_sdk.results import Result
from edge_sdk.spec import ModelSpec
from edge_sdk.state import State
from edge_sdk.target import Session
from edge_sdk.tensors import Tensors

Faces = Literal["found", "given", "required"]
Boxes = npt.NDArray[np.float32]


class Task(Protocol):
    """Pre- and postprocessing of one kind of network; knows pictures and no engine.

    One task serves one thread at a time: it draws every frame on the same canvas.
    """

    spec: ModelSpec
    faces: Faces
    """Whether it finds faces itself (``found``), takes boxes or else the whole picture as one face (``given``), or needs
    boxes, because how much is seen around a face is part of the model (``required``)."""

    def __init__(self, spec: ModelSpec, *, confidence: float | None = None) -> None:
        """Prepare for networks of this spec.

        Args:
            spec: of the network.
            confidence: report faces from this score on, 0..1; None takes the spec's.

        Raises:
            InputError: a confidence outside 0..1, or where it means nothing.
        """
        ...

    def preprocess(self, image: Image, color: Color = "rgb", box: Boxes | None = None) -> tuple[Tensors, Any]:
        """Make the inputs of one inference, without state.

        Args:
            image: (H, W, 3) uint8, already checked.
            color: order of the frame's channels.
            box: (4,) x1, y1, x2, y2 of a face in frame pixels; None for the whole frame.

        Returns:
            The inputs by name, overwritten by the next call, and what the task's postprocessing needs to undo them.
        """
        ...

    def run(
        self,
        session: Session,
        image: Image,
        *,
        boxes: npt.ArrayLike | None = None,
        color: Color = "rgb",
        state: State | None = None,
        target: str = "",
    ) -> Result:
        """A frame to a result, timed.

        Args:
            session: the loaded network.
            image: frame, not yet checked.
            boxes: (N, 4) x1, y1, x2, y2 of faces in frame pixels, where the task takes them.
            color: order of the frame's channels.
            state: what a recurrent network remembers; updated.
            target: engine and precision that answer, for the result.

        Raises:
            InputError: not such a frame or boxes.
            InferFailed: the engine failed.
        """
        ...


def refuse_confidence(spec: ModelSpec, confidence: float | None) -> None:
    """Raise InputError if a confidence was asked of a task that answers for every face it is given."""
    if confidence is not None:
        raise InputError(
            f"{spec.name} answers for every face: a confidence means nothing to it", remedy="leave it out"
        )
