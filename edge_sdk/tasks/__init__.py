"""What surrounds a network: frame to tensor and tensors to result, without any engine."""

from __future__ import annotations

from edge_sdk.errors import InputError
from edge_sdk.spec import ModelSpec
from edge_sdk.tasks.classification import ClassificationTask
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.tasks.liveness import LivenessTask

AnyTask = DetectionTask | ClassificationTask


def task_of(spec: ModelSpec, *, confidence: float | None = None) -> AnyTask:
    """What belongs around a network of this spec.

    Args:
        spec: of the network.
        confidence: for a detector: report faces from this score on; None takes the spec's.

    Raises:
        InputError: a confidence outside 0..1, or for a network that reports every face it is given.
    """
    if spec.task == "detection":
        return DetectionTask(spec, confidence=confidence)
    if confidence is not None:
        raise InputError(
            f"{spec.name} answers for every face: a confidence means nothing to it", remedy="leave it out"
        )
    return LivenessTask(spec) if spec.task == "liveness" else ClassificationTask(spec)


__all__ = ["AnyTask", "ClassificationTask", "DetectionTask", "LivenessTask", "task_of"]
