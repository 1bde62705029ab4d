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
"""Makes a classifier with a dropout rate; its two outputs are logits of FER2013's label and of the FER+ votes."""

DETECTORS: dict[str, Callable[[int], Detector]] = {"yolo11n": YOLO11n, "yolo12n": YOLO12n}
"""Makes a detector of so many classes; its backbone is that of the classifier of the same name."""


def of_model(name: str) -> nn.Module:
    """The untrained network of a zoo model, by the model's name."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "fer-yolo11n": lambda: YOLO11n(7),
        "fer-yolo12n": lambda: YOLO12n(7),
        "fer-gmenet": GMENet,
        "pad-minifasnet": PadNet,
    }
    return makers[name]()
