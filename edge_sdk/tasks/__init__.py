"""What surrounds a network: frame to tensor and tensors to result, without any engine."""

from __future__ import annotations

from typing import Protocol

from edge_sdk.image import Color, Image, LetterboxTransform
from edge_sdk.results import Detections
from edge_sdk.spec import ModelSpec
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.tensors import Array, Tensors

__all__ = ["DetectionTask", "Task", "task_of"]


class Task(Protocol):
    """Pure pre- and postprocessing of one kind of network."""

    spec: ModelSpec

    def preprocess(self, image: Image, color: Color = "rgb") -> tuple[Array, LetterboxTransform]:
        """Frame to input tensor (reused by the next call) and the transform that undoes it."""
        ...

    def postprocess(self, tensors: Tensors, transform: LetterboxTransform) -> Detections:
        """The network's tensors to a result in frame pixels."""
        ...


def task_of(spec: ModelSpec) -> DetectionTask:
    """The task that a spec names."""
    return DetectionTask(spec)
