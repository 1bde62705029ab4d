"""The pictures a benchmark runs on: drawn here, the same bytes on every machine, or the user's own folder.

Zeros or noise would be wrong, because the cost of suppression depends on the picture. They are drawn, not photographed,
so that the wheel contains nobody's face; how many faces the network reported on them is part of every report.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError
from edge_sdk.files import entries
from edge_sdk.image import Image, opencv
from edge_sdk.sources.files import PICTURES, open_source

WIDTH, HEIGHT = 640, 480
COUNT = 64
FACES_DRAWN = (1, 0, 1, 5)
"""Faces on the pictures, in turn."""

ORDER_SEED = 1
PASSES = 16
"""Number of differently shuffled passes over the set before they repeat."""

MAX_OWN = 1000
"""Pictures taken from a user's folder at most: they are all held in memory."""

Boxes = npt.NDArray[np.float32]
Canvas = npt.NDArray[np.int32]
Colour = tuple[int, int, int]

_TONES: tuple[Colour, ...] = ((238, 198, 170), (224, 172, 140), (186, 130, 98), (141, 96, 68), (96, 64, 48))
_HAIRS: tuple[Colour, ...] = ((28, 24, 24), (74, 50, 34), (150, 112, 60), (120, 120, 124))
_WALLS: tuple[Colour, ...] = ((196, 188, 170), (120, 140, 160), (90, 100, 84), (214, 214, 220), (150, 96, 80))


@dataclass(frozen=True)
class FrameSet:
    """Frames that a run cycles through.

    Attributes:
        origin: ``"drawn"``, or the folder they were read from.
        images: each (H, W, 3) uint8 RGB.
        boxes: of the faces on each, (N, 4) float32 x1, y1, x2, y2 in pixels; empty if nobody counted them.
        sha256: over shape and pixels of all of them, in order.
    """

    origin: str
    images: tuple[Image, ...]
    boxes: tuple[Boxes, ...]
    sha256: str

    @property
    def drawn(self) -> tuple[int, ...]:
        """Faces on each picture; empty if nobody counted them."""
        return tuple(len(boxes) for boxes in self.boxes)


def frame_set(folder: str | Path | None = None, size: tuple[int, int] | None = None) -> FrameSet:
    """The drawn frames, or the pictures of a folder in the order of their names.

    Args:
        folder: of the user's own pictures; None takes the drawn ones.
        size: (width, height) to scale every picture to, as a camera of that resolution would give it; None leaves
            them as they are. The drawn ones keep their aspect, so only 4:3 sizes show round faces.

    Raises:
        InputError: not a folder, no pictures in it, too many, or one that cannot be read.
    """
    found = _drawn() if folder is None else _read(Path(folder))
    return found if size is None else _scaled(found, size)


def shuffled(count: int) -> list[int]:
    """Indices of a set of ``count`` in a benchmark's order: all of them, shuffled, pass after pass, always the same.

    Uniform over every pass, so that two runs look at equal shares of full and of empty frames.
    """
    rnd = random.Random(ORDER_SEED)
    order: list[int] = []
    for _ in range(PASSES):
        once = list(range(count))
        # Not random.shuffle, whose algorithm is not promised to stay: Fisher and Yates, by random() alone.
        for last in range(count - 1, 0, -1):
            other = int(rnd.random() * (last + 1))
            once[last], once[other] = once[other], once[last]
        order += once
    return order


def draw(index: int) -> Image:
    """Picture ``index`` of the drawn set, (480, 640, 3) uint8 RGB."""
    return _draw(index)[0]


def _draw(index: int) -> tuple[Image, Boxes]:
    """A picture, and the boxes of its faces.

    Only ``random.Random.random`` and plain arithmetic go into it, both the same in every version of Python and numpy.
    """
    rnd = random.Random(20_000 + index)
    faces = FACES_DRAWN[index % len(FACES_DRAWN)]
    canvas = _background(rnd, index)
    # A crowd stands side by side, a lone face is larger and anywhere; both stay inside the picture.
    column = WIDTH / max(1, faces)
    boxes = np.zeros((faces, 4), np.float32)
    for place in range(faces):
        radius = _between(rnd, 46, 57) if faces > 1 else _between(rnd, 60, 120)
        margin_x, margin_y = radius * 1.1, radius * 1.4
        x = _between(rnd, column * place + margin_x, column * (place + 1) - margin_x)
        y = _between(rnd, margin_y, HEIGHT - margin_y)
        _face(canvas, rnd, x, y, radius)
        # What the detector calls a face: the median of its boxes on this set.
        boxes[place] = x - 1.05 * radius, y - 1.08 * radius, x + 1.05 * radius, y + 1.06 * radius
    image: Image = canvas.clip(0, 255).astype(np.uint8)
    return image, boxes


@functools.cache
def _drawn() -> FrameSet:
    pictures = [_draw(index) for index in range(COUNT)]
    images = tuple(image for image, _ in pictures)
    return FrameSet("drawn", images, tuple(boxes for _, boxes in pictures), _hash(images))


def _read(folder: Path) -> FrameSet:
    if not folder.is_dir():
        raise InputError(f"no folder {folder}", remedy="give a folder of pictures")
    count = sum(path.suffix.lower() in PICTURES for path in entries(folder))
    if not 0 < count <= MAX_OWN:
        raise InputError(
            f"{folder} has {count} pictures, a benchmark takes 1 to {MAX_OWN}",
            remedy=f"put {', '.join(sorted(PICTURES))} files there, or name another folder",
        )
    with open_source(folder) as source:
        images = tuple(frame.image for frame in source)
    return FrameSet(str(folder), images, (), _hash(images))


def _scaled(frames: FrameSet, size: tuple[int, int]) -> FrameSet:
    """The same pictures in another resolution."""
    images = tuple(_resize(image, size) for image in frames.images)
    scale = tuple(np.float32(new / old) for new, old in zip(size, (WIDTH, HEIGHT), strict=True))
    boxes = tuple(b * np.array(scale * 2, np.float32) for b in frames.boxes)
    return FrameSet(f"{frames.origin}, scaled to {size[0]}x{size[1]}", images, boxes, _hash(images))


def _resize(image: Image, size: tuple[int, int]) -> Image:
    cv2 = opencv()
    shrinks = size[0] < image.shape[1]
    resized: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized


def _hash(images: Sequence[Image]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.shape}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def _between(rnd: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rnd.random()


def _pick(rnd: random.Random, colours: Sequence[Colour]) -> Colour:
    return colours[int(rnd.random() * len(colours))]


def _background(rnd: random.Random, index: int) -> Canvas:
    """A wall with light from one side, one of four patterns, and some things in front of it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int32)
    wall = np.array(_pick(rnd, _WALLS), np.int32)
    light = (x if rnd.random() < 0.5 else WIDTH - x) * 50 // WIDTH - y * 30 // HEIGHT
    size = int(_between(rnd, 24, 90))
    pattern = (
        np.zeros_like(x),
        (x // size % 2) * 26,
        ((x // size + y // size) % 2) * 30,
        np.where(y > HEIGHT * 2 // 3, -60, (y // 6 % 2) * 8),
    )[index // len(FACES_DRAWN) % 4]
    canvas: Canvas = wall + (light + pattern)[:, :, None]
    for _ in range(3 + int(rnd.random() * 6)):
        colour = (int(_between(rnd, 20, 235)), int(_between(rnd, 20, 235)), int(_between(rnd, 20, 235)))
        cx, cy = _between(rnd, 0, WIDTH), _between(rnd, 0, HEIGHT)
        half_w, half_h = _between(rnd, 10, 70), _between(rnd, 10, 70)
        if rnd.random() < 0.5:
            _ellipse(canvas, cx, cy, half_w, half_h, colour)
        else:
            rows = slice(max(0, int(cy - half_h)), max(0, int(cy + half_h)))
            canvas[rows, max(0, int(cx - half_w)) : max(0, int(cx + half_w))] = colour
    return canvas


def _face(canvas: Canvas, rnd: random.Random, x: float, y: float, r: float) -> None:
    """Shoulders, hair, head, features; the mouth smiles, is flat or open."""
    tone, hair, shirt = _pick(rnd, _TONES), _pick(rnd, _HAIRS), _pick(rnd, _WALLS)
    darker: Colour = (tone[0] * 4 // 5, tone[1] * 3 // 4, tone[2] * 3 // 4)
    mouth = (0.10, 0.04, 0.20)[int(rnd.random() * 3)]
    lean = _between(rnd, -0.06, 0.06)
    for part_x, part_y, part_w, part_h, colour in (
        (0, 1.75, 1.5, 0.8, shirt),
        (0, 1.0, 0.36, 0.5, darker),
        (0, -0.22, 0.92, 1.04, hair),
        (-0.8, 0.05, 0.12, 0.2, darker),
        (0.8, 0.05, 0.12, 0.2, darker),
        (0, 0.08, 0.8, 1.0, tone),
        (-0.32, -0.3, 0.2, 0.04, hair),
        (0.32, -0.3, 0.2, 0.04, hair),
        (-0.32, -0.12, 0.15, 0.08, (246, 246, 244)),
        (0.32, -0.12, 0.15, 0.08, (246, 246, 244)),
        (-0.32 + lean, -0.12, 0.07, 0.075, (40, 28, 24)),
        (0.32 + lean, -0.12, 0.07, 0.075, (40, 28, 24)),
        (lean, 0.24, 0.11, 0.15, darker),
        (lean, 0.6, 0.3, mouth, (146, 54, 58)),
    ):
        _ellipse(canvas, x + part_x * r, y + part_y * r, part_w * r, part_h * r, colour)


def _ellipse(canvas: Canvas, cx: float, cy: float, half_w: float, half_h: float, colour: Colour) -> None:
    left, right = max(0, int(cx - half_w)), min(WIDTH, int(cx + half_w) + 2)
    top, bottom = max(0, int(cy - half_h)), min(HEIGHT, int(cy + half_h) + 2)
    if left >= right or top >= bottom:
        return
    y, x = np.mgrid[top:bottom, left:right]
    inside = ((x - cx) / half_w) ** 2 + ((y - cy) / half_h) ** 2 <= 1
    canvas[top:bottom, left:right][inside] = colour
