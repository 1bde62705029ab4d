"""What surrounds a network: frame to tensor and tensors to result, without any engine."""

from edge_sdk.tasks.detection import DetectionTask

__all__ = ["DetectionTask"]
