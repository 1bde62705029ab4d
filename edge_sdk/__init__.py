"""Face models on small devices: load a bundle that proves itself, call it on frames.

import edge_sdk as edge
model = edge.load("fer-yolo11n")
for face in model(frame):
    print(face.box, face.label, face.score)
"""

from edge_sdk.bundle import Bundle, Manifest
from edge_sdk.errors import (
    BundleError,
    CalibrationFailed,
    ChecksumMismatch,
    CompileFailed,
    EdgeError,
    GateFailed,
    InferFailed,
    InputError,
    LoadFailed,
    ManifestInvalid,
    MissingDependency,
    ModelBusy,
    QuantizeError,
    SignatureInvalid,
    SourceError,
    SourceUnavailable,
    TargetError,
    UnknownTarget,
    UnsupportedRecipe,
)
from edge_sdk.host import bench, build
from edge_sdk.image import FaceCrop, LetterboxSpec, read_image, write_image
from edge_sdk.model import Model, ModelInfo, load
from edge_sdk.reporting import switch_off
from edge_sdk.results import Classification, Classifications, Detections, Face, LiveFace, Liveness
from edge_sdk.signing import PublicKey
from edge_sdk.spec import ModelSpec, Recipe, StatePair
from edge_sdk.state import State
from edge_sdk.target import LoadOptions, available_targets, find_target
from edge_sdk.tensors import TensorSpec
from edge_sdk.timing import StageTimes
from edge_sdk.trust import Policy

# Nothing above imports an engine; whatever does so from here on finds it told not to report.
switch_off()

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "BundleError",
    "CalibrationFailed",
    "ChecksumMismatch",
    "Classification",
    "Classifications",
    "CompileFailed",
    "Detections",
    "EdgeError",
    "Face",
    "FaceCrop",
    "GateFailed",
    "InferFailed",
    "InputError",
    "LetterboxSpec",
    "LiveFace",
    "Liveness",
    "LoadFailed",
    "LoadOptions",
    "Manifest",
    "ManifestInvalid",
    "MissingDependency",
    "Model",
    "ModelBusy",
    "ModelInfo",
    "ModelSpec",
    "Policy",
    "PublicKey",
    "QuantizeError",
    "Recipe",
    "SignatureInvalid",
    "SourceError",
    "SourceUnavailable",
    "StageTimes",
    "State",
    "StatePair",
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
