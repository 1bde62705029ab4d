"""fer-gmenet: names the expression of a face of 12 to 48 pixels; model card in ``fer-gmenet.md``."""

from edge_sdk.spec import FaceCrop, ModelSpec
from edge_sdk.tensors import TensorSpec

_SIDE = 48
_LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

SPEC = ModelSpec(
    name="fer-gmenet",
    task="classification",
    labels=_LABELS,
    input=TensorSpec("pixels", (1, _SIDE, _SIDE, 3), "uint8", "NHWC"),
    outputs=(TensorSpec("logits", (1, len(_LABELS)), "float32", "NC"),),
    # FER2013's crops, which our detectors' boxes follow.
    preprocessing=FaceCrop(kind="crop", margin=1.0, outside="repeat"),
    decode=None,
    licence="Apache-2.0",
    provenance=(
        "FER2013 (ICML 2013 challenge; images collected from the web, research data, no redistribution grant); "
        "FER+ votes (MIT)",
    ),
)
