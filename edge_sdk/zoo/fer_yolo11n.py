"""fer-yolo11n: finds faces and names one of seven expressions; model card in ``fer-yolo11n.md``."""

from edge_sdk.spec import DetectionDecode, ModelSpec, Preprocessing
from edge_sdk.tensors import TensorSpec

_SIDE = 320
_STRIDES = (8, 16, 32)
_BINS = 16
_LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

SPEC = ModelSpec(
    name="fer-yolo11n",
    task="detection",
    labels=_LABELS,
    input=TensorSpec("pixels", (1, _SIDE, _SIDE, 3), "uint8", "NHWC"),
    outputs=tuple(
        TensorSpec(f"{kind}{stride}", (1, _SIDE // stride, _SIDE // stride, channels), "float32", "NHWC")
        for stride in _STRIDES
        for kind, channels in (("box", 4 * _BINS), ("cls", len(_LABELS)))
    ),
    # A crop of 48 pixels is shown at 96: larger would cost recall of what matters, not add detail.
    preprocessing=Preprocessing(kind="letterbox", pad=114, max_scale=2.0),
    decode=DetectionDecode(strides=_STRIDES, bins=_BINS, confidence=0.15, iou=0.5, max_faces=100),
    licence="Apache-2.0",
    provenance=(
        "FER2013 (ICML 2013 challenge; images collected from the web, research data, no redistribution grant): "
        "expressions; FER+ votes (MIT)",
        "Faker portraits (CC0) and SFHQ-T2I (MIT, (c) 2024 David Beniaguev): AI-made colour faces",
        "clothing (CC0), scikit-image and scikit-learn samples (CC0, BSD, CC BY 2.0), animal faces (MIT): backgrounds",
        "Ultra-Light RFB-640 (MIT): boxes on the AI-made portraits",
    ),
)
