"""From the raw maps of a detector with a face logit to faces: boxes, scores, probabilities.

The decode that a runtime has to do, in numpy, written out here until the runtime has it:

- inputs: (1, 3, S, S) float RGB in 0..1; outputs, three strides (8, 16, 32) each: ``box`` (1, 64, h, w), ``cls``
  (1, 7, h, w), ``face`` (1, 1, h, w);
- score = sigmoid(face); cells below the confidence are dropped first, so only a handful is decoded;
- box: per side (left, top, right, bottom) softmax over 16 bins, expectation, times the stride, from the cell's centre;
- probabilities = softmax(cls) of the cell;
- suppression: greedy by score; a box goes if it overlaps a better one by more than 0.45 IoU, or if one of the two lies
  inside the other by more than 0.7 of the smaller one's area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edge_sdk.boxes import area
from edge_sdk.image import Image
from edge_training.networks.yolo import REG_MAX, STRIDES
from edge_training.stages.base import to_float

Floats = npt.NDArray[np.float32]

OVERLAP, INSIDE = 0.45, 0.7


@dataclass(frozen=True)
class Found:
    """Faces of one picture, best first.

    Attributes:
        boxes: (N, 4) xyxy canvas pixels.
        scores: (N,) how surely each is a face, 0 to 1.
        probs: (N, 7) what each expresses.
    """

    boxes: Floats
    scores: Floats
    probs: Floats


def decode(
    boxes: Sequence[Floats], classes: Sequence[Floats], faces: Sequence[Floats], confidence: float
) -> Found:
    """Maps of one picture, (C, h, w) by stride, to its faces.

    Args:
        boxes: side logits, 64 channels.
        classes: class logits.
        faces: face logits, 1 channel.
        confidence: least score of a face.
    """
    least = float(np.log(confidence / (1 - confidence)))
    corners, scores, probs = [], [], []
    for side, cls, face, stride in zip(boxes, classes, faces, STRIDES, strict=True):
        y, x = np.nonzero(face[0] > least)
        if not len(y):
            continue
        bins = _softmax(side[:, y, x].T.reshape(-1, 4, REG_MAX)) @ np.arange(REG_MAX, dtype=np.float32)
        centre = np.stack((x, y), 1) + np.float32(0.5)
        corners.append(np.concatenate((centre - bins[:, :2], centre + bins[:, 2:]), 1) * stride)
        scores.append(1 / (1 + np.exp(-face[0, y, x])))
        probs.append(_softmax(cls[:, y, x].T))
    if not scores:
        count = classes[0].shape[0]
        return Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, count), np.float32))
    found = Found(*(np.concatenate(v).astype(np.float32) for v in (corners, scores, probs)))
    kept = suppress(found.boxes, found.scores)
    return Found(found.boxes[kept], found.scores[kept], found.probs[kept])


def suppress(
    boxes: Floats, scores: Floats, *, overlap: float = OVERLAP, inside: float = INSIDE, limit: int = 300
) -> npt.NDArray[np.intp]:
    """Greedy suppression that knows containment: a box in another is the same head.

    Args:
        boxes: (N, 4).
        scores: (N,).
        overlap: IoU with a better box from which one is dropped.
        inside: share of the smaller box that lies in the other, from which the worse one is dropped.
        limit: keep at most this many.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = (-scores).argsort(kind="stable")
    areas = area(boxes)
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for place, index in enumerate(order.tolist()):
        if not alive[place]:
            continue
        kept.append(index)
        if len(kept) == limit:
            break
        rest = order[place + 1 :]
        low = np.maximum(boxes[index, :2], boxes[rest, :2])
        high = np.minimum(boxes[index, 2:], boxes[rest, 2:])
        shared = (high - low).clip(min=0).prod(1)
        union = areas[index] + areas[rest] - shared
        smaller = np.minimum(areas[index], areas[rest])
        alive[place + 1 :] &= (shared <= overlap * union) & (shared <= inside * smaller)
    return np.asarray(kept, np.intp)


@torch.inference_mode()
def found_by(network: nn.Module, images: Sequence[Image], confidence: float) -> list[Found]:
    """Faces of pictures of one size, its sides multiples of 32."""
    network.eval()
    device = next(network.parameters()).device
    results = []
    for start in range(0, len(images), 16):
        batch = torch.from_numpy(np.stack(images[start : start + 16])).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            maps = network(to_float(batch))
        arrays = [[m.float().cpu().numpy() for m in kind] for kind in maps]
        for i in range(len(batch)):
            boxes, classes, faces = ([m[i] for m in kind] for kind in arrays)
            results.append(decode(boxes, classes, faces, confidence))
    return results


def _softmax(values: Floats) -> Floats:
    raised = np.exp(values - values.max(-1, keepdims=True))
    shares: Floats = raised / raised.sum(-1, keepdims=True)
    return shares
