"""Boxes as (N, 4) float arrays of x1, y1, x2, y2 in pixels: overlap and non-maximum suppression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]


def area(boxes: Boxes) -> npt.NDArray[np.float32]:
    """(N,) areas; a box whose corners are swapped has area 0."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(min=0)
    product: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return product


def iou(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """(N, M) intersection over union of every box in ``a`` with every box in ``b``; 0 where both are empty."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (bottom_right - top_left).clip(min=0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - shared
    ratio: npt.NDArray[np.float32] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def nms(
    boxes: Boxes, scores: npt.NDArray[np.float32], *, iou_threshold: float, limit: int
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        limit: keep at most this many.

    Returns:
        Indices of the kept boxes, best first. Equal scores keep their order.
    """
    order = (-scores).argsort(kind="stable")
    if len(order) < 2:
        return order[:limit]
    corner = np.maximum(boxes[:, None, :2], boxes[:, :2])
    sides = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    sides -= corner
    np.maximum(sides, 0, out=sides)
    shared = sides[..., 0] * sides[..., 1]
    areas = area(boxes)
    # shared / union > threshold, without the division.
    worse = shared > iou_threshold * (areas[:, None] + areas - shared)
    dead = np.zeros(len(order), dtype=bool)
    kept: list[int] = []
    for index in order.tolist():
        if not dead[index]:
            kept.append(index)
            if len(kept) == limit:
                break
            dead |= worse[index]
    return np.asarray(kept, dtype=np.intp)
