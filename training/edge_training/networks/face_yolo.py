"""YOLO11n and YOLO12n that ask first whether a cell shows a face, and then what the face expresses.

One more branch beside boxes and classes gives one face logit per cell (as YOLOX's objectness, arXiv 2107.08430, but
from a branch of its own). A face's score is the sigmoid of it; its probabilities are the softmax of the seven class
logits; where a score per class is asked for (mAP), it is their product. So a face without an expression label can
still teach what a face is, and an unsure expression does not make a face unsure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from edge_training.networks.yolo import (
    A2C2f,
    Backbone11n,
    Backbone12n,
    C3k2,
    Conv,
    Detector,
    Head,
    Neck,
)

Maps = tuple[list[Tensor], list[Tensor], list[Tensor]]


class FaceDetector(nn.Module):
    """A detector with a face logit: (B, 3, H, W) float in 0..1, H and W multiples of 32, to raw head maps.

    Returns:
        ``(boxes, classes, faces)``: lists over strides 8, 16, 32 of (B, 64, h, w) side logits, (B, classes, h, w)
        class logits and (B, 1, h, w) face logits.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = detector.backbone, detector.neck, detector.head
        hidden = Neck.channels[0]
        self.face = nn.ModuleList(
            nn.Sequential(
                Conv(c, c, 3, groups=c),
                Conv(c, hidden),
                Conv(hidden, hidden, 3, groups=hidden),
                Conv(hidden, hidden),
                nn.Conv2d(hidden, 1, 1),
            )
            for c in Neck.channels
        )
        for branch, stride in zip(self.face, (8, 16, 32), strict=True):
            nn.init.constant_(branch.get_parameter("4.bias"), math.log(5 / (640 / stride) ** 2))

    def forward(self, x: Tensor) -> Maps:
        features = self.neck(self.backbone(x))
        boxes, classes = self.head(features)
        return boxes, classes, [m(f) for m, f in zip(self.face, features, strict=True)]

    @torch.no_grad()
    def start_from(self, detector: Mapping[str, Tensor]) -> None:
        """Take a detector's weights; the face branch begins as its class branch with the greatest class's logit.

        A linear layer cannot take a maximum; the mean of its seven rows with the sum of their scores as bias is near
        enough to begin with.
        """
        own = self.state_dict()
        self.load_state_dict({**own, **{k: v.float() for k, v in detector.items()}})
        for branch, classes in zip(self.face, self.head.cls, strict=True):
            assert isinstance(branch, nn.Sequential)
            assert isinstance(classes, nn.Sequential)
            for i in range(4):
                branch[i].load_state_dict(classes[i].state_dict())
            weight, bias = classes.get_parameter("4.weight"), classes.get_parameter("4.bias")
            branch.get_parameter("4.weight").copy_(weight.mean(0, keepdim=True))
            branch.get_parameter("4.bias").fill_(float(bias.logsumexp(0)))


def _yolo11n(classes: int) -> Detector:
    return Detector(Backbone11n(), Neck(C3k2), Head(classes))


def _yolo12n(classes: int) -> Detector:
    return Detector(Backbone12n(), Neck(partial(A2C2f, n=1)), Head(classes))


FACE_DETECTORS: dict[str, Callable[[int], FaceDetector]] = {
    "yolo11n": lambda classes: FaceDetector(_yolo11n(classes)),
    "yolo12n": lambda classes: FaceDetector(_yolo12n(classes)),
}
"""From the number of classes to a detector with a face logit."""
