"""Face models on small devices: load a bundle that proves itself, call it on frames.

import edge_sdk as edge
model = edge.load("fer-yolo11n")
for face in model(frame):
    print(face.box, face.label, face.score)
"""

from edge_sdk.bench import bench
from edge_sdk.build import build
from edge_sdk.bundle import Bundle, Manifest
from edge_sdk.errors import (
    BundleError,
    CalibrationFailed,
    ChecksumMismatch,
    CompileFailed,
    EdgeError,
    FingerprintMismatch,
    GateFailed,
    InferFailed,
    InputError,
    LoadFailed,
    ManifestInvalid,
    MissingDependency,
    QuantizeError,
    SignatureInvalid,
    SourceEnded,
    SourceError,
    SourceStalled,
    SourceUnavailable,
    TargetError,
    UnknownTarget,
    UnsupportedRecipe,
)
from edge_sdk.image import read_image, write_image
from edge_sdk.model import Model, ModelInfo, load
from edge_sdk.results import Classification, Classifications, Detections, Face, LiveFace, Liveness
from edge_sdk.spec import DetectionDecode, FaceCrop, LivenessDecision, ModelSpec, Preprocessing, Recipe
from edge_sdk.target import LoadOptions, available_targets, find_target
from edge_sdk.tensors import TensorSpec
from edge_sdk.timing import StageTimes

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "BundleError",
    "CalibrationFailed",
    "ChecksumMismatch",
    "Classification",
    "Classifications",
    "CompileFailed",
    "DetectionDecode",
    "Detections",
    "EdgeError",
    "Face",
    "FaceCrop",
    "FingerprintMismatch",
    "GateFailed",
    "InferFailed",
    "InputError",
    "LiveFace",
    "Liveness",
    "LivenessDecision",
    "LoadFailed",
    "LoadOptions",
    "Manifest",
    "ManifestInvalid",
    "MissingDependency",
    "Model",
    "ModelInfo",
    "ModelSpec",
    "Preprocessing",
    "QuantizeError",
    "Recipe",
    "SignatureInvalid",
    "SourceEnded",
    "SourceError",
    "SourceStalled",
    "SourceUnavailable",
    "StageTimes",
    "TargetError",
    "TensorSpec",
    "UnknownTarget",
    "UnsupportedRecipe",
    "available_targets",
    "bench",
    "build",
    "find_target",
    "load",
    "read_image",
    "write_image",
]
