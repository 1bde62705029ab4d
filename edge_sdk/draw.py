"""What a model said of a picture, drawn over it."""

from __future__ import annotations

from typing import Any

from edge_sdk.image import Image, opencv
from edge_sdk.results import Result

_GOOD, _ALARM, _TEXT = (0, 200, 80), (230, 60, 40), (0, 0, 0)


def annotate(image: Image, found: Result, boxes: Any = None) -> Image:
    """A copy of a picture with each face boxed and named; lines and letters grow with the picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: what a model answered to it.
        boxes: (N, 4) faces that the model was asked about, x1, y1, x2, y2 in pixels; None where it found them itself,
            or took the whole picture as one.

    Returns:
        (H, W, 3) uint8 RGB; what is to be warned of, such as an attack, is red.

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    cv2 = opencv()
    canvas = image.copy()
    height, width = image.shape[:2]
    unit = max(height, width) / 640
    thickness, size, font = max(1, round(2 * unit)), max(0.4, 0.6 * unit), cv2.FONT_HERSHEY_SIMPLEX
    for mark in found.marks(boxes, (width, height)):
        x1, y1, x2, y2 = (round(float(v)) for v in mark.box)
        colour = _ALARM if mark.alarm else _GOOD
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)
        (w, h), base = cv2.getTextSize(mark.text, font, size, thickness)
        left = max(0, min(x1, width - w))
        top = y1 - h - base if y1 >= h + base else y1
        cv2.rectangle(canvas, (left, top), (left + w, top + h + base), colour, -1)
        cv2.putText(canvas, mark.text, (left, top + h), font, size, _TEXT, thickness, cv2.LINE_AA)
    return canvas
