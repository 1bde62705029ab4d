"""The detector's loss: task-aligned assignment, then CIoU, distribution focal loss and binary cross entropy.

Task alignment: arXiv 2108.07755 (TOOD). CIoU: arXiv 1911.08287. Distribution focal loss: arXiv 2006.04388.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_training.networks.yolo import REG_MAX, STRIDES


def anchor_points(sizes: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of all cells, level after level.

    Args:
        sizes: (height, width) of the map at each of ``STRIDES``, in cells.
        device: where the result lies.

    Returns:
        (A, 2) x and y in canvas pixels, and (A,) the stride of each.
    """
    points, strides = [], []
    for (h, w), stride in zip(sizes, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        points.append((torch.stack((x, y), -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((h * w,), float(stride)))
    return torch.cat(points).to(device), torch.cat(strides).to(device)


def flatten(maps: list[Tensor]) -> Tensor:
    """Maps (B, C, h, w) of all levels to (B, A, C) float32."""
    return torch.cat([m.float().flatten(2) for m in maps], 2).transpose(1, 2)


def decode_boxes(sides: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """(B, A, 4 * REG_MAX) side logits to (B, A, 4) xyxy canvas pixels: expectation over the bins."""
    bins = torch.arange(REG_MAX, device=sides.device, dtype=sides.dtype)
    distances = sides.reshape(*sides.shape[:-1], 4, REG_MAX).softmax(-1) @ bins * strides[:, None]
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def ciou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of boxes (..., 4), broadcast: IoU less centre distance and aspect-ratio penalties."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1, bx2 - bx1, by2 - by1
    inter = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(0) * (
        torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    ).clamp(0)
    iou = inter / (aw * ah + bw * bh - inter + eps)
    diagonal = (torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)) ** 2 + (
        torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    ) ** 2
    distance = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    v = (4 / math.pi**2) * (torch.atan(bw / (bh + eps)) - torch.atan(aw / (ah + eps))) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + 1 + eps)
    return iou - distance / (diagonal + eps) - v * alpha


@dataclass(frozen=True)
class Assignment:
    """Which anchor answers for which face.

    Attributes:
        positive: (B, A) bool.
        boxes: (B, A, 4) the face's box where positive.
        scores: (B, A, C) what the class scores should be; zero where not positive.
    """

    positive: Tensor
    boxes: Tensor
    scores: Tensor


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    faces: Tensor,
    classes: Tensor,
    present: Tensor,
    *,
    top: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    """Task-aligned assignment.

    Each face takes the ``top`` anchors inside it with the greatest ``score ** alpha * overlap ** beta``; an anchor that
    several faces want goes to the one it overlaps most. The class target of an anchor is its alignment, scaled so that
    a face's best anchor gets the face's best overlap.

    Args:
        scores: (B, A, C) predicted class probabilities.
        boxes: (B, A, 4) predicted boxes, canvas pixels.
        points: (A, 2) anchor centres.
        faces: (B, M, 4) true boxes, padded.
        classes: (B, M, C) each face's class as a distribution; its mode selects the score.
        present: (B, M) bool, false for padding.
        top: most anchors per face.
        alpha: exponent of the score.
        beta: exponent of the overlap.
    """
    label = classes.argmax(-1)
    score = scores.gather(2, label[:, None, :].expand(-1, scores.shape[1], -1)).transpose(1, 2)
    overlap = ciou(boxes[:, None], faces[:, :, None]).clamp(0)
    to_corner = torch.cat((points - faces[:, :, None, :2], faces[:, :, None, 2:] - points), -1)
    inside = (to_corner.amin(-1) > 1e-9) & present[..., None]
    alignment = score**alpha * overlap**beta * inside
    k = min(top, alignment.shape[-1])
    best = torch.zeros_like(inside).scatter_(2, alignment.topk(k, -1).indices, True)
    taken = best & inside
    # An anchor wanted twice goes to the face it overlaps most.
    owner = torch.where(taken, overlap, overlap.new_full((), -1.0)).argmax(1, keepdim=True)
    taken &= torch.zeros_like(taken).scatter_(1, owner, True)
    positive = taken.any(1)
    face_of = taken.float().argmax(1)
    alignment, overlap = alignment * taken, overlap * taken
    ceiling = overlap.amax(-1, keepdim=True) / (alignment.amax(-1, keepdim=True) + 1e-9)
    strength = (alignment * ceiling).amax(1)
    picked = face_of[..., None]
    return Assignment(
        positive=positive,
        boxes=faces.gather(1, picked.expand(-1, -1, 4)),
        scores=classes.gather(1, picked.expand(-1, -1, classes.shape[-1])) * strength[..., None],
    )


def distribution_focal(sides: Tensor, distances: Tensor) -> Tensor:
    """Cross entropy against the two bins around each true distance, mean over the four sides.

    Args:
        sides: (N, 4 * REG_MAX) logits.
        distances: (N, 4) true distances in strides.

    Returns:
        (N,).
    """
    distances = distances.clamp(0, REG_MAX - 1 - 0.01)
    low = distances.long()
    high_share = distances - low
    log_p = sides.reshape(-1, 4, REG_MAX).log_softmax(-1)
    at_low = log_p.gather(-1, low[..., None])[..., 0]
    at_high = log_p.gather(-1, low[..., None] + 1)[..., 0]
    each: Tensor = -(at_low * (1 - high_share) + at_high * high_share)
    return each.mean(-1)


class DetectionLoss:
    """The weighted sum of the detector's losses over a batch.

    Args:
        box_gain: weight of 1 - CIoU.
        class_gain: weight of the binary cross entropy.
        dfl_gain: weight of the distribution focal loss.
        expression_gain: weight of a softmax cross entropy between the classes of each positive anchor. Ours, not the
            papers': binary cross entropy mostly teaches where faces are, this one which expression they have.
    """

    def __init__(
        self,
        box_gain: float = 7.5,
        class_gain: float = 0.5,
        dfl_gain: float = 1.5,
        expression_gain: float = 0.0,
    ) -> None:
        self.box_gain, self.class_gain, self.dfl_gain = box_gain, class_gain, dfl_gain
        self.expression_gain = expression_gain

    def __call__(
        self,
        maps: tuple[list[Tensor], list[Tensor]],
        faces: Tensor,
        classes: Tensor,
        present: Tensor,
    ) -> tuple[Tensor, dict[str, float]]:
        """The scalar loss, and its parts by name.

        Args:
            maps: the network's side logits and class logits, each (B, C, h, w) per stride.
            faces: (B, M, 4) true boxes in canvas pixels, padded.
            classes: (B, M, C) class distributions.
            present: (B, M) bool.
        """
        sizes = [(m.shape[2], m.shape[3]) for m in maps[0]]
        points, strides = anchor_points(sizes, faces.device)
        sides, logits = flatten(maps[0]), flatten(maps[1])
        boxes = decode_boxes(sides, points, strides)
        target = assign(logits.sigmoid(), boxes.detach(), points, faces, classes, present)
        total = target.scores.sum().clamp(1)
        class_loss = nn.functional.binary_cross_entropy_with_logits(logits, target.scores, reduction="sum")
        class_loss = class_loss / total
        on = target.positive
        if on.any():
            weight = target.scores.sum(-1)[on]
            box_loss = ((1 - ciou(boxes[on], target.boxes[on])) * weight).sum() / total
            here, stride = points.expand_as(boxes[..., :2])[on], strides.expand(on.shape)[on]
            true = target.boxes[on]
            distances = torch.cat((here - true[:, :2], true[:, 2:] - here), -1) / stride[:, None]
            dfl_loss = (distribution_focal(sides[on], distances) * weight).sum() / total
            each = -(logits[on].log_softmax(-1) * target.scores[on]).sum(-1)  # the scores carry the weight
            expression_loss = each.sum() / total
        else:
            # Keeps every parameter in the graph for a batch without faces.
            box_loss = dfl_loss = expression_loss = sides.sum() * 0
        loss = (
            self.box_gain * box_loss
            + self.class_gain * class_loss
            + self.dfl_gain * dfl_loss
            + self.expression_gain * expression_loss
        )
        parts = {"box": box_loss, "cls": class_loss, "dfl": dfl_loss, "exp": expression_loss, "loss": loss}
        return loss, {name: float(value.detach()) for name, value in parts.items()}
