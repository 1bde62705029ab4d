"""Pictures on their way to a network: checks, reading, and the letterbox with its inverse.

Pictures are (H, W, 3) uint8, RGB. This is the only module that touches OpenCV on a frame's path, and it imports it on
first use, so that a board's own build of OpenCV serves as well as the one from PyPI.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.boxes import Boxes
from edge_sdk.errors import InputError, MissingDependency
from edge_sdk.files import read_file, write_atomically
from edge_sdk.picture_header import picture_size

Image = npt.NDArray[np.uint8]
Color = Literal["rgb", "bgr"]

MAX_PIXELS = 64_000_000
"""Larger frames are refused: no camera of an edge device makes them, and a hostile file could."""
MAX_FILE_BYTES = 2**28
"""Of a picture file: the largest frame, not compressed at all."""


EXACT_SIDE = 2048
"""Pixels: a larger square that reaches over the frame is averaged down to this before its border is made, which would
otherwise take gigabytes; every other crop is exact."""


@dataclass(frozen=True, slots=True)
class LetterboxSpec:
    """How a frame becomes a detector's input: resized with its aspect kept, centred, the rest padded.

    Normalisation, casting and axis order are inside the graph; the host only resizes.

    Attributes:
        pad: value of the border, 0..255.
        max_scale: frames are enlarged by at most this factor.
    """

    pad: int
    max_scale: float


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """How a face of a frame becomes an input: a square around the middle of its box, resized.

    Attributes:
        margin: side of the square divided by the longer side of the box: 1 shows the box, 2.7 its surroundings too.
        outside: where the square reaches over the frame: ``repeat`` the frame's edge, or ``shift`` the square into the
            frame and make it smaller if it must be, so that no pixel is made up.
    """

    margin: float
    outside: Literal["repeat", "shift"]


@functools.cache
def opencv() -> Any:
    """The module ``cv2``.

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependency(
            "OpenCV (cv2) is not installed",
            remedy="pip install 'face-edge-sdk[opencv]', or use the board's own OpenCV package",
        ) from error
    return cv2


def check_image(image: object) -> None:
    """Raise InputError unless ``image`` is a non-empty (H, W, 3) uint8 array of at most 64 megapixels."""
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"a frame must be a numpy array, got {type(image).__name__}",
            remedy="read files with edge_sdk.read_image, or use 'edge-sdk predict'",
        )
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        if 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS:
            return
        problem, remedy = "has no pixels or too many", f"give 1 to {MAX_PIXELS:,} pixels"
    elif image.dtype != np.uint8:
        problem, remedy = "is not uint8", "give pixel values 0..255 as uint8, not normalised"
    elif image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        problem, remedy = "is grey", "make it RGB: cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)"
    elif image.ndim == 3 and image.shape[2] == 4:
        problem, remedy = "has an alpha channel", "drop it: cv2.cvtColor(frame, cv2.COLOR_RGBA2RGB)"
    else:
        problem, remedy = "is not a picture", "give one frame at a time, axes height, width, channel"
    raise InputError(
        f"frame {problem}: expected uint8 (height, width, 3), got {image.dtype} {image.shape}",
        remedy=remedy,
    )


def check_frame(image: object, color: str) -> None:
    """Raise InputError unless ``image`` is a frame, see :func:`check_image`, and ``color`` names its channels' order."""
    check_image(image)
    if color not in ("rgb", "bgr"):
        raise InputError(f"color must be 'rgb' or 'bgr', got {color!r}", remedy="name the order")


def check_boxes(boxes: npt.ArrayLike, image: Image) -> Boxes:
    """Boxes of faces in a frame as (N, 4) float32.

    Raises:
        InputError: not (N, 4) finite numbers x1 < x2, y1 < y2, or a box that does not touch the frame or is more than
            four times as large.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # not finite then, and refused below
            found = np.asarray(boxes, np.float32)
    except (TypeError, ValueError, OverflowError):  # OverflowError: a number beyond all floats
        found = np.zeros((), np.float32)
    if found.shape == (0,) or found.shape == (0, 4):
        return np.zeros((0, 4), np.float32)
    if found.ndim != 2 or found.shape[1] != 4:
        raise InputError(
            f"boxes must be (N, 4) numbers, got shape {np.shape(found)}",
            remedy="give x1, y1, x2, y2 in pixels for each face, such as a detector's .boxes",
        )
    height, width = image.shape[:2]
    with np.errstate(invalid="ignore"):
        sides = found[:, 2:] - found[:, :2]
    touches = (found[:, 2:] > 0).all(1) & (found[:, 0] < width) & (found[:, 1] < height)
    good = np.isfinite(found).all(1) & (sides > 0).all(1) & (sides <= 4 * max(height, width)).all(1) & touches
    if not good.all():
        wrong = int(np.flatnonzero(~good)[0])
        raise InputError(
            f"box {wrong} is {found[wrong].tolist()}, which marks no face of a {width}x{height} frame",
            remedy="give x1 < x2 and y1 < y2 in pixels of this frame",
        )
    return found


def read_image(path: str | Path) -> Image:
    """Read a picture file as (H, W, 3) uint8 RGB, upright as its EXIF tag says.

    Raises:
        InputError: the file is missing, no complete JPEG, PNG, BMP or WebP picture, or too large; nothing is decoded
            of a picture that says it has more pixels than a frame may have.
    """
    cv2 = opencv()
    data = read_file(path, limit=MAX_FILE_BYTES, what="picture")
    size = picture_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{path} has {size[0]}x{size[1]} pixels, at most {MAX_PIXELS:,} are read",
            remedy="make it smaller",
        )
    try:
        image = None if size is None else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # more pixels than OpenCV decodes
        image = None
    if image is None:
        raise InputError(
            f"{path} is not a picture that OpenCV can read ({len(data)} bytes)",
            remedy="give a complete JPEG, PNG, BMP or WebP file",
        )
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return rgb


def write_image(path: str | Path, image: Image) -> None:
    """Write an RGB picture as PNG or JPEG, whole or not at all.

    Raises:
        InputError: the suffix names no picture format, or the folder cannot be written.
    """
    cv2 = opencv()
    path = Path(path)
    try:
        ok, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise InputError(f"cannot write {path}: unknown suffix", remedy="use .png or .jpg") from error
    if not ok:
        raise InputError(f"cannot encode {path}", remedy="use .png or .jpg")
    write_atomically(path, data.tobytes())


@dataclass(frozen=True, slots=True)
class LetterboxTransform:
    """Where a frame lies on the canvas, and the way back.

    ``canvas = frame * scale + (left, top)``; the scales of x and y differ by the rounding to whole pixels.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int
    _scales: Boxes = field(init=False, repr=False, compare=False)
    _offsets: Boxes = field(init=False, repr=False, compare=False)
    _limits: Boxes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the rows that boxes are moved by: a stream uses one transform for all its frames."""
        for name, row in (
            ("_scales", (self.scale_x, self.scale_y) * 2),
            ("_offsets", (self.left, self.top) * 2),
            ("_limits", (self.width, self.height) * 2),
        ):
            object.__setattr__(self, name, np.array(row, np.float32))

    def to_canvas(self, boxes: Boxes) -> Boxes:
        """Frame pixels to canvas pixels."""
        return boxes * self._scales + self._offsets

    def to_frame(self, boxes: Boxes) -> Boxes:
        """Canvas pixels to frame pixels, clipped to the frame."""
        back = (boxes - self._offsets) / self._scales
        np.maximum(back, 0, out=back)
        np.minimum(back, self._limits, out=back)
        return back


def fit_letterbox(
    width: int, height: int, *, side_x: int, side_y: int, max_scale: float
) -> tuple[LetterboxTransform, int, int]:
    """Centre a frame on a canvas with its aspect kept.

    Args:
        width: of the frame, pixels.
        height: of the frame, pixels.
        side_x: canvas width.
        side_y: canvas height.
        max_scale: enlarge by at most this factor: more pixels would add work and blur, not detail.

    Returns:
        The transform, and the width and height the frame has on the canvas (at least 1 pixel each).
    """
    scale = min(side_x / width, side_y / height, max_scale)
    w = min(side_x, max(1, round(width * scale)))
    h = min(side_y, max(1, round(height * scale)))
    transform = LetterboxTransform(
        scale_x=w / width,
        scale_y=h / height,
        left=(side_x - w) // 2,
        top=(side_y - h) // 2,
        width=width,
        height=height,
    )
    return transform, w, h


class Letterbox:
    """Resize frames onto one reused canvas.

    Args:
        side_x: canvas width in pixels.
        side_y: canvas height in pixels.
        spec: border and largest enlargement.

    Attributes:
        canvas: (1, side_y, side_x, 3) RGB, on which every frame is drawn.
    """

    def __init__(self, *, side_x: int, side_y: int, spec: LetterboxSpec) -> None:
        self.side_x, self.side_y, self.spec = side_x, side_y, spec
        self.canvas: Image = np.full((1, side_y, side_x, 3), spec.pad, np.uint8)
        self._size: tuple[int, int] | None = None
        self._cv2 = opencv()

    def __call__(self, image: Image, color: Color = "rgb") -> LetterboxTransform:
        """Draw ``image`` (H, W, 3) on the canvas, and return where it lies there."""
        height, width = image.shape[:2]
        if self._size != (width, height):
            # Streams keep their size: geometry and border are made once, not for every frame.
            self._transform, self._w, self._h = fit_letterbox(
                width, height, side_x=self.side_x, side_y=self.side_y, max_scale=self.spec.max_scale
            )
            self.canvas.fill(self.spec.pad)
            self._size = (width, height)
        cv2, t = self._cv2, self._transform
        # Area averaging below half size: bilinear would skip pixels and make small faces flicker.
        method = cv2.INTER_AREA if t.scale_x < 0.5 else cv2.INTER_LINEAR
        window = self.canvas[0, t.top : t.top + self._h, t.left : t.left + self._w]
        cv2.resize(image, (self._w, self._h), dst=window, interpolation=method)
        if color == "bgr":
            cv2.cvtColor(window, cv2.COLOR_BGR2RGB, dst=window)
        return t


class Cropper:
    """Cut faces out of frames onto one reused canvas.

    Args:
        side_x: canvas width in pixels.
        side_y: canvas height in pixels.
        crop: how much around a face's box is cut.

    Attributes:
        canvas: (1, side_y, side_x, 3) RGB, on which every face is drawn.

    Raises:
        MissingDependency: OpenCV is not installed.
    """

    def __init__(self, *, side_x: int, side_y: int, crop: FaceCrop) -> None:
        self.side_x, self.side_y, self.crop = side_x, side_y, crop
        self.canvas: Image = np.zeros((1, side_y, side_x, 3), np.uint8)
        self._cv2 = opencv()

    def __call__(self, image: Image, box: npt.NDArray[Any] | None, color: Color = "rgb") -> Image:
        """Cut one face, as if the frame's edge went on for ever where ``outside`` is ``repeat``.

        The resampling starts from the frame's own pixels, except for a square of more than ``EXACT_SIDE`` pixels that
        reaches over the frame: its edges lie within three thousandths of its side of where they should.

        Args:
            image: (H, W, 3) frame.
            box: (4,) x1, y1, x2, y2 in frame pixels; None cuts the whole frame as if it were one crop.
            color: order of the frame's channels.

        Returns:
            The (1, side_y, side_x, 3) canvas in RGB, overwritten by the next call.

        Raises:
            InputError: the box is not of finite numbers.
        """
        cv2, height, width = self._cv2, image.shape[0], image.shape[1]
        patch = image
        if box is not None:
            x1, y1, x2, y2 = (float(v) for v in box)
            if not math.isfinite(x1 + y1 + x2 + y2):
                raise InputError(
                    f"box {[x1, y1, x2, y2]} is not of numbers", remedy="give finite x1, y1, x2, y2"
                )
            side = max(1, round(max(x2 - x1, y2 - y1) * self.crop.margin))
            if self.crop.outside == "shift":
                side = min(side, height, width)
            left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
            if self.crop.outside == "shift":
                left, top = min(max(left, 0), width - side), min(max(top, 0), height - side)
            y, rows, above, below = _inside(top, side, height)
            x, columns, before, after = _inside(left, side, width)
            patch = image[y : y + rows, x : x + columns]
            if rows < side or columns < side:
                if (shrink := -(-side // EXACT_SIDE)) > 1:
                    smaller = max(1, round(columns / shrink)), max(1, round(rows / shrink))
                    patch = cv2.resize(patch, smaller, interpolation=cv2.INTER_AREA)
                    above, below, before, after = (round(n / shrink) for n in (above, below, before, after))
                patch = cv2.copyMakeBorder(patch, above, below, before, after, cv2.BORDER_REPLICATE)
        # Averaging where pixels are lost, bilinear where they are made up: what training calls a small face.
        shrinks = patch.shape[0] > self.side_y
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        cv2.resize(patch, (self.side_x, self.side_y), dst=self.canvas[0], interpolation=method)
        if color == "bgr":
            cv2.cvtColor(self.canvas[0], cv2.COLOR_BGR2RGB, dst=self.canvas[0])
        return self.canvas


def _inside(start: int, length: int, limit: int) -> tuple[int, int, int, int]:
    """How a stretch lies over ``0..limit``: first pixel inside, pixels inside (at least the nearest), before, after."""
    first = min(max(start, 0), limit - 1)
    count = max(1, min(start + length, limit) - first)
    before = min(first - min(start, first), length - count)
    return first, count, before, length - count - before
