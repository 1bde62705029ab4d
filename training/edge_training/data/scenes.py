"""Pictures with faces whose boxes are exact, because we put the faces there.

Three kinds, mixed by the detector's stage:

- *full frame*: one FER2013 crop as the letterbox shows it, its box the whole crop (the protocol of the FER2013
  detection studies), or a *sheet* of up to nine of them;
- *composite*: several faces, grey or colourised or in colour, blended into a face-free photograph, with patches of
  other photographs pasted the same way, so that a pasted edge alone means nothing;
- *portrait*: an AI-made colour portrait in its own surroundings, moved and scaled, often with pasted faces beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.image import Image
from edge_training.data import augment
from edge_training.data.portraits import Portrait

PAD = 114


@dataclass(frozen=True)
class Scene:
    """A picture and its faces.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        boxes: (N, 4) float32 xyxy pixels.
        targets: (N, 7) float32, the expression of each face as a distribution.
    """

    image: Image
    boxes: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]


class SceneMaker:
    """Composes scenes from faces and backgrounds.

    Args:
        faces: (N, 48, 48) uint8 grey crops.
        targets: (N, 7) float32 probabilities of their expressions.
        backgrounds: face-free (H, W, 3) uint8 RGB photographs.
        portraits: colour portraits.
        portrait_targets: (len(portraits), 7) float32 probabilities of their expressions.
    """

    def __init__(
        self,
        faces: npt.NDArray[np.uint8],
        targets: npt.NDArray[np.float32],
        backgrounds: Sequence[Image],
        portraits: Sequence[Portrait] = (),
        portrait_targets: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.faces, self.targets, self.backgrounds = faces, targets, backgrounds
        self.portraits, self.portrait_targets = portraits, portrait_targets

    def _photo(self, rng: np.random.Generator) -> Image:
        return self.backgrounds[int(rng.integers(len(self.backgrounds)))]

    def full_frame(self, row: int, side: int, rng: np.random.Generator, *, smallest: int = 48) -> Scene:
        """One crop on the letterbox's grey, ``smallest`` to ``side`` pixels wide."""
        size = int(np.exp(rng.uniform(np.log(smallest), np.log(side))))
        canvas = np.full((side, side, 3), PAD, np.uint8)
        x, y = rng.integers(0, side - size + 1, 2) if rng.random() < 0.5 else ((side - size) // 2,) * 2
        canvas[y : y + size, x : x + size] = augment.crop(self.faces[row], size, rng)
        box = np.array([[x, y, x + size, y + size]], np.float32)
        return Scene(canvas, box, self.targets[row : row + 1])

    def sheet(self, rows: Sequence[int], side: int, rng: np.random.Generator) -> Scene:
        """Up to nine crops on the letterbox's grey, each somewhere in its own ninth.

        Nine faces cost as little as on small canvases, and have the grey surroundings of a deployed crop: trained on
        small canvases alone, the network found fewer crops on the large one.
        """
        cell = side // 3
        canvas = np.full((side, side, 3), PAD, np.uint8)
        boxes = []
        for place, row in enumerate(rows):
            size = int(np.exp(rng.uniform(np.log(56), np.log(cell))))
            x = place % 3 * cell + int(rng.integers(0, cell - size + 1))
            y = place // 3 * cell + int(rng.integers(0, cell - size + 1))
            canvas[y : y + size, x : x + size] = augment.crop(self.faces[row], size, rng)
            boxes.append((x, y, x + size, y + size))
        return Scene(canvas, np.array(boxes, np.float32), self.targets[list(rows)])

    def scene(
        self, rows: Sequence[int], side: int, rng: np.random.Generator, *, size: int | None = None
    ) -> Scene:
        """A composite or a portrait with the FER2013 faces ``rows``; those for which there is no room are left out.

        Args:
            rows: numbers of the faces to show.
            side: of the square picture, pixels.
            rng: where all draws come from.
            size: side of every pasted face, pixels; None draws one per face.
        """
        boxes: list[npt.NDArray[np.float32]] = []
        targets: list[npt.NDArray[np.float32]] = []
        if self.portraits and rng.random() < 0.4:
            index = int(rng.integers(len(self.portraits)))
            image, box = self._portrait(self.portraits[index], side, rng)
            assert self.portrait_targets is not None
            boxes.append(box)
            targets.append(self.portrait_targets[index])
        else:
            image = _background(self._photo(rng), side, rng)
        taken = list(boxes)
        for _ in range(rng.integers(0, 4)):
            self._paste_distractor(image, taken, rng)
        for row in rows:
            drawn = size or int(np.exp(rng.uniform(np.log(14), np.log(min(200, 0.75 * side)))))
            if (place := _free_place(taken, drawn, side, rng)) is None:
                continue
            face = self._face(row, drawn, rng)
            _blend(image, face, place, rng)
            x, y = place
            box = np.array([x, y, x + drawn, y + drawn], np.float32)
            boxes.append(box)
            taken.append(box)
            targets.append(self.targets[row])
        image = augment.light(image, rng) if rng.random() < 0.7 else image
        if rng.random() < 0.2:
            image = augment.blur_or_shrink(image, rng)
        if rng.random() < 0.2:
            image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
        return Scene(
            image,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(targets, np.float32).reshape(-1, self.targets.shape[1]),
        )

    def _face(self, row: int, size: int, rng: np.random.Generator) -> Image:
        face = augment.light(augment.warp_face(self.faces[row], size, rng, strength=0.8), rng)
        if rng.random() < 0.55:
            return augment.colourise(face, rng)
        return np.repeat(face[:, :, None], 3, axis=2)

    def _portrait(
        self, portrait: Portrait, side: int, rng: np.random.Generator
    ) -> tuple[Image, npt.NDArray[np.float32]]:
        """Scale and shift a portrait so that its face has a random size and place; mirror half of them."""
        image, box = portrait.image, portrait.box
        if rng.random() < 0.5:
            width = image.shape[1]
            image = np.ascontiguousarray(image[:, ::-1])
            box = np.array([width - box[2], box[1], width - box[0], box[3]], np.float32)
        face = float(box[3] - box[1])
        # Small enough to fit, large enough that the surroundings still fill a good part of the picture.
        size = float(np.exp(rng.uniform(np.log(28), np.log(min(200, 0.8 * side)))))
        scale = size / face
        left, top = rng.uniform(0, side - size, 2)
        matrix = np.array([[scale, 0, left - box[0] * scale], [0, scale, top - box[1] * scale]], np.float32)
        canvas = _background(self._photo(rng), side, rng)
        cv2.warpAffine(
            image, matrix, (side, side), dst=canvas, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_TRANSPARENT
        )
        moved = box * scale + np.array([matrix[0, 2], matrix[1, 2]] * 2, np.float32)
        return canvas, moved.clip(0, side).astype(np.float32)

    def _paste_distractor(
        self, image: Image, taken: Sequence[npt.NDArray[np.float32]], rng: np.random.Generator
    ) -> None:
        side = image.shape[0]
        size = int(np.exp(rng.uniform(np.log(20), np.log(0.5 * side))))
        if (place := _free_place(taken, size, side, rng)) is None:
            return
        patch = _background(self._photo(rng), size, rng)
        if rng.random() < 0.4:
            patch = np.repeat(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
        _blend(image, augment.light(patch, rng), place, rng)


def _background(photo: Image, side: int, rng: np.random.Generator) -> Image:
    """A random square window of a photograph, mirrored at random, resized to ``side``."""
    height, width = photo.shape[:2]
    window = int(min(height, width) * rng.uniform(0.4, 1.0))
    y, x = rng.integers(0, height - window + 1), rng.integers(0, width - window + 1)
    crop = photo[y : y + window, x : x + window]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return cv2.resize(np.ascontiguousarray(crop), (side, side)).astype(np.uint8, copy=False)


def _free_place(
    taken: Sequence[npt.NDArray[np.float32]], size: int, side: int, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Where a square of ``size`` overlaps none of ``taken`` by more than a tenth of itself, or None."""
    for _ in range(10):
        x, y = (int(v) for v in rng.integers(0, side - size + 1, 2))
        shared = [
            max(0.0, min(x + size, b[2]) - max(x, b[0])) * max(0.0, min(y + size, b[3]) - max(y, b[1]))
            for b in taken
        ]
        if all(s <= 0.1 * size * size for s in shared):
            return x, y
    return None


def _blend(image: Image, patch: Image, place: tuple[int, int], rng: np.random.Generator) -> None:
    """Paste with a soft edge of random width and shape; in place."""
    x, y = place
    size = patch.shape[0]
    mask: npt.NDArray[Any] = np.zeros((size, size), np.float32)
    if rng.random() < 0.4:
        centre = (size // 2, size // 2)
        axes = (max(1, int(size * rng.uniform(0.44, 0.5))), max(1, int(size * rng.uniform(0.47, 0.5))))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1.0, -1)
    else:
        inset = int(size * rng.uniform(0, 0.05))
        mask[inset : size - inset, inset : size - inset] = 1
    if rng.random() < 0.8:
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.3, size * rng.uniform(0.005, 0.05)))
    window = image[y : y + size, x : x + size]
    mixed = window + mask[:, :, None] * (patch.astype(np.float32) - window)
    window[...] = mixed.astype(np.uint8)
