"""fer-gmenet: names the expression of a face of 12 to 48 pixels; model card in ``fer-gmenet.md``."""

from edge_sdk.image import FaceCrop
from edge_sdk.spec import ModelSpec
from edge_sdk.tasks.classification import ClassificationHead

HEAD = ClassificationHead(
    kind="classification",
    labels=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    # FER2013's crops, which our detectors' boxes follow.
    crop=FaceCrop(margin=1.0, outside="repeat"),
)
_INPUTS, _OUTPUTS = HEAD.tensors(48, 48)

SPEC = ModelSpec(
    name="fer-gmenet",
    inputs=_INPUTS,
    outputs=_OUTPUTS,
    head=HEAD,
    licence="Apache-2.0",
    provenance=(
        "FER2013 (ICML 2013 challenge; images collected from the web, research data, no redistribution grant); "
        "FER+ votes (MIT)",
    ),
)
