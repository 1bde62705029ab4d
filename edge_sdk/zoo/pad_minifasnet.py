"""pad-minifasnet: tells a face from a print, a replay or a textile mask of one; model card in ``pad-minifasnet.md``."""

from edge_sdk.image import FaceCrop
from edge_sdk.spec import ModelSpec
from edge_sdk.tasks.liveness import LABELS, LivenessHead

HEAD = LivenessHead(
    kind="liveness",
    labels=LABELS,
    crop=FaceCrop(margin=2.7, outside="shift"),
    # Where five of a hundred presentations of the worst species pass on the development set, by the float network.
    threshold=0.6805,
    min_face=40,
    max_outside=0.2,
)
_INPUTS, _OUTPUTS = HEAD.tensors(80, 80)

SPEC = ModelSpec(
    name="pad-minifasnet",
    inputs=_INPUTS,
    outputs=_OUTPUTS,
    head=HEAD,
    licence="Apache-2.0",
    provenance=(
        "Faker portraits (CC0) and SFHQ-T2I (MIT, (c) 2024 David Beniaguev): AI-made faces; attacks simulated on them",
        "clothing (CC0), scikit-image and scikit-learn samples (CC0, BSD, CC BY 2.0), animal faces (MIT): backgrounds",
        "Ultra-Light RFB-640 (MIT): boxes on the AI-made portraits",
        "MiniFASNetV2 (Apache-2.0 weights): three tenths of each training target",
    ),
)
