"""Networks by the name that a recipe gives as ``network``."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edge_training.networks.gmenet import GMENet
from edge_training.networks.pad import PadNet
from edge_training.networks.yolo import (
    Backbone11n,
    Backbone12n,
    BackboneClassifier,
    Detector,
    YOLO11n,
    YOLO12n,
)

CLASSIFIERS: dict[str, Callable[[float], nn.Module]] = {
    "yolo11n": lambda dropout: BackboneClassifier(Backbone11n(), dropout=dropout),
    "yolo12n": lambda dropout: BackboneClassifier(Backbone12n(), dropout=dropout),
    "gmenet": lambda dropout: GMENet(dropout=dropout),
}
"""From dropout to a network that answers crops with logits of FER2013's label and of the FER+ votes."""

DETECTORS: dict[str, Callable[[int], Detector]] = {"yolo11n": YOLO11n, "yolo12n": YOLO12n}
"""From the number of classes to a detector, whose backbone is the classifier's of the same name."""


def of_model(name: str) -> nn.Module:
    """The network of a zoo model, untrained."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "fer-yolo11n": lambda: YOLO11n(7),
        "fer-yolo12n": lambda: YOLO12n(7),
        "fer-gmenet": GMENet,
        "pad-minifasnet": PadNet,
    }
    return makers[name]()
