"""fer-yolo11n: finds faces and names one of seven expressions; model card in ``fer-yolo11n.md``."""

from edge_sdk.image import LetterboxSpec
from edge_sdk.spec import ModelSpec
from edge_sdk.tasks.detection import DetectionHead

HEAD = DetectionHead(
    kind="detection",
    labels=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    # A crop of 48 pixels is shown at 96: larger would cost recall of what matters, not add detail.
    letterbox=LetterboxSpec(pad=114, max_scale=2.0),
    strides=(8, 16, 32),
    bins=16,
    confidence=0.15,
    iou=0.5,
    max_faces=100,
)
_INPUTS, _OUTPUTS = HEAD.tensors(320, 320)

SPEC = ModelSpec(
    name="fer-yolo11n",
    inputs=_INPUTS,
    outputs=_OUTPUTS,
    head=HEAD,
    licence="Apache-2.0",
    provenance=(
        "FER2013 (ICML 2013 challenge; images collected from the web, research data, no redistribution grant): "
        "expressions; FER+ votes (MIT)",
        "Faker portraits (CC0) and SFHQ-T2I (MIT, (c) 2024 David Beniaguev): AI-made colour faces",
        "clothing (CC0), scikit-image and scikit-learn samples (CC0, BSD, CC BY 2.0), animal faces (MIT): backgrounds",
        "Ultra-Light RFB-640 (MIT): boxes on the AI-made portraits",
    ),
)
