"""The loss of a detector with a face logit: where faces are, and apart from it what those with a label express."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edge_training.losses import anchor_points, assign, ciou, decode_boxes, distribution_focal, flatten
from edge_training.networks.face_yolo import Maps


@dataclass(frozen=True)
class FaceTruth:
    """The faces of a batch, padded to as many as its fullest picture has.

    Attributes:
        boxes: (B, M, 4) xyxy canvas pixels.
        present: (B, M) bool, faces to be found.
        ignored: (B, M) bool, faces too hidden to ask for and too visible to deny.
        expressions: (B, M, C) distributions.
        weights: (B, M) how much each expression counts; 0 where there is no label.
    """

    boxes: Tensor
    present: Tensor
    ignored: Tensor
    expressions: Tensor
    weights: Tensor


class FaceDetectionLoss:
    """Total loss of a batch.

    Args:
        box_gain: weight of 1 - CIoU.
        face_gain: weight of the binary cross entropy of the face logit.
        dfl_gain: weight of the distribution focal loss.
        expression_gain: weight of the softmax cross entropy of the classes, at the anchors of labelled faces only.
    """

    def __init__(
        self,
        box_gain: float = 7.5,
        face_gain: float = 1.0,
        dfl_gain: float = 1.5,
        expression_gain: float = 1.0,
    ) -> None:
        self.box_gain, self.face_gain, self.dfl_gain = box_gain, face_gain, dfl_gain
        self.expression_gain = expression_gain

    def __call__(self, maps: Maps, truth: FaceTruth) -> tuple[Tensor, dict[str, float]]:
        """Loss and its parts."""
        sizes = [(m.shape[2], m.shape[3]) for m in maps[0]]
        points, strides = anchor_points(sizes, truth.boxes.device)
        sides, logits, faces = (flatten(m) for m in maps)
        boxes = decode_boxes(sides, points, strides)
        # One class, "face": the targets of its score say how well an anchor's box fits, 1 at each face's best one, so
        # that a face's score says that it is one and not how small it is.
        one = torch.ones_like(truth.boxes[..., :1])
        target = assign(faces.sigmoid(), boxes.detach(), points, truth.boxes, one, truth.present)
        on = target.positive
        owner = _owner(target.boxes, truth)
        strength = _to_one(target.scores[..., 0], owner, on, truth.boxes.shape[1])
        total = strength.sum().clamp(1)
        asked = on | ~_inside(points, truth)
        each = functional.binary_cross_entropy_with_logits(faces[..., 0], strength, reduction="none")
        face_loss = (each * asked).sum() / total
        if on.any():
            weight = strength[on]
            box_loss = ((1 - ciou(boxes[on], target.boxes[on])) * weight).sum() / total
            here, stride = points.expand_as(boxes[..., :2])[on], strides.expand(on.shape)[on]
            true = target.boxes[on]
            distances = torch.cat((here - true[:, :2], true[:, 2:] - here), -1) / stride[:, None]
            dfl_loss = (distribution_focal(sides[on], distances) * weight).sum() / total
            expressions = truth.expressions.gather(1, owner[..., None].expand(-1, -1, logits.shape[-1]))
            # Every face counts alike, however many anchors answer for it.
            share = _normalised(strength, owner, on, truth.boxes.shape[1]) * truth.weights.gather(1, owner)
            entropy = -(logits[on].log_softmax(-1) * expressions[on]).sum(-1) * share[on]
            expression_loss = entropy.sum() / truth.weights.sum().clamp(1)
        else:
            # Keeps every parameter in the graph for a batch without faces.
            box_loss = dfl_loss = expression_loss = (sides.sum() + logits.sum()) * 0
        loss = (
            self.box_gain * box_loss
            + self.face_gain * face_loss
            + self.dfl_gain * dfl_loss
            + self.expression_gain * expression_loss
        )
        parts = {"box": box_loss, "face": face_loss, "dfl": dfl_loss, "exp": expression_loss, "loss": loss}
        return loss, {name: float(value.detach()) for name, value in parts.items()}


def _owner(assigned: Tensor, truth: FaceTruth) -> Tensor:
    """(B, A) the face whose box each anchor was given."""
    apart = (assigned[:, :, None] - truth.boxes[:, None]).abs().sum(-1)
    return apart.masked_fill(~truth.present[:, None], torch.inf).argmin(-1)


def _most(values: Tensor, owner: Tensor, on: Tensor, faces: int) -> Tensor:
    """(B, A) the greatest value among the anchors of the same face."""
    best = values.new_zeros(values.shape[0], faces)
    best.scatter_reduce_(1, owner, values * on, "amax")
    return best.gather(1, owner)


def _to_one(values: Tensor, owner: Tensor, on: Tensor, faces: int) -> Tensor:
    return torch.where(on, values / _most(values, owner, on, faces).clamp(1e-9), 0.0)


def _normalised(values: Tensor, owner: Tensor, on: Tensor, faces: int) -> Tensor:
    """(B, A) values whose sum over the anchors of a face is 1."""
    total = values.new_zeros(values.shape[0], faces).scatter_add_(1, owner, values * on)
    return torch.where(on, values / total.gather(1, owner).clamp(1e-9), 0.0)


def _inside(points: Tensor, truth: FaceTruth) -> Tensor:
    """(B, A) whether an anchor lies in a face that nothing is asked of."""
    boxes = truth.boxes[:, :, None]
    within = (points >= boxes[..., :2]).all(-1) & (points <= boxes[..., 2:]).all(-1)
    return (within & truth.ignored[..., None]).any(1)
