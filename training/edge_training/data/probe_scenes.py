"""Pictures to measure detectors on: scenes of exact face sizes, and the same face at many sizes and surroundings."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.image import Image
from edge_training.data import augment, heads
from edge_training.data.heads import square, transform
from edge_training.data.landmarks import Floats
from edge_training.data.natural import NaturalScene, NaturalScenes, rectangles
from edge_training.data.scenes import PAD

SIDE = 320
_NEAR = 1.15
"""A face counts for a size if it is at most this factor from it."""


@dataclass(frozen=True)
class Asked:
    """A picture and what must be found in it.

    Attributes:
        image: (S, S, 3) uint8.
        boxes: (N, 4) faces to be found.
        others: (M, 4) faces that may be found.
    """

    image: Image
    boxes: Floats
    others: Floats


def of_size(
    maker: NaturalScenes, size: float, rng: np.random.Generator, *, side: int = SIDE, plain: bool = False
) -> Asked:
    """A group or a mosaic whose faces have one size; degraded as in training unless ``plain``."""
    if size < 0.3 * side and rng.random() < 0.5:
        scene = maker.group(size, side, rng, alike=True)
    else:
        scene = NaturalScene(np.full((side, side, 3), PAD, np.uint8))
        # A portrait's face takes about 0.4 of its width: a larger rectangle would need a larger face.
        for place in rectangles((0, 0, side, side), 1.5 * size, rng):
            x1, y1, x2, y2 = place
            if rng.random() < 0.75 and min(x2 - x1, y2 - y1) >= size:
                maker.fill(scene, place, size, rng)
            else:
                scene.image[y1:y2, x1:x2] = maker.face_free((x2 - x1, y2 - y1), rng)
    if not plain:
        scene.image = heads.degraded(scene.image, rng)
    boxes = np.array(scene.boxes, np.float32).reshape(-1, 4)
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    counted = (np.maximum(sides / size, size / np.maximum(sides, 1e-6)) < _NEAR) & ~np.array(
        scene.ignored, bool
    )
    return Asked(scene.image, boxes[counted], boxes[~counted])


def one_face(
    maker: NaturalScenes,
    row: int,
    size: float,
    *,
    in_head: bool,
    side: int = SIDE,
    soft: bool = False,
    colour: bool = False,
) -> tuple[Image, Floats]:
    """One FER2013 face of one size, the same head and surroundings at every size.

    Args:
        maker: has the faces and the heads.
        row: of the face.
        size: of the face in pixels.
        in_head: blend it into a portrait's head before a photograph; else the bare crop on flat grey.
        side: of the picture.
        soft: as from a face of 24 pixels.
        colour: give a bare crop a skin's colour; a head has its own, and is grey without.

    Returns:
        (side, side, 3) picture and (4,) the face's box.
    """
    rng = np.random.default_rng((2019, row))
    face = maker.faces[row]
    if soft:
        face = augment.degrade(face, 24)
    if not in_head:
        edge = round(size)
        image = np.full((side, side, 3), PAD, np.uint8)
        start = (side - edge) // 2
        crop = cv2.resize(
            face, (edge, edge), interpolation=cv2.INTER_AREA if edge < 48 else cv2.INTER_LINEAR
        ).astype(np.uint8, copy=False)
        # A face larger than the canvas would be cut.
        image[start : start + edge, start : start + edge] = (
            augment.colourise(crop, rng) if colour else augment.three_channels(crop)
        )
        whole = np.array([0, 0, edge, edge], np.float32)
        box = whole
        if maker.marks.ok[row]:
            box = (whole + maker.marks.box[row] * edge / 48) / 2
        return image, (box + start).astype(np.float32)
    # The portrait that is turned most like the face, of twelve.
    drawn = rng.choice(len(maker.portraits), min(12, len(maker.portraits)), replace=False)
    index = int(drawn[np.abs(maker.portraits.yaw[drawn] - maker.yaw[row]).argmin()])
    photo = maker.backgrounds[int(rng.integers(len(maker.backgrounds)))]
    edge = min(photo.shape[:2])
    image = cv2.resize(photo[:edge, :edge], (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
    scale = size / maker.portraits.side_of(index)
    box = maker.portraits.marks.box[index]
    middle = (box[:2] + box[2:]) / 2
    shift = np.array([side / 2, side * 0.52]) - scale * middle
    matrix = np.c_[np.eye(2) * scale, shift]
    head = maker.portraits.place(index, matrix, (side, side), person=True)
    heads.blend_face(head, face, maker.marks.mesh[row], rng)
    mixed = image + head.mask[..., None] * (head.image.astype(np.float32) - image)
    image = mixed.astype(np.uint8)
    if not colour:
        image = augment.three_channels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False))
    placed = square(transform(box.reshape(2, 2), matrix).reshape(4))
    return image, placed.clip(0, side).astype(np.float32)


def squares(
    maker: NaturalScenes, size: float, rng: np.random.Generator, *, side: int = SIDE, feather: float = 0.0
) -> tuple[Image, Floats, Floats]:
    """A photograph of a person pasted as a small square, on flat grey or a photograph; and one without a person.

    Args:
        maker: has portraits and photographs.
        size: of the face, pixels.
        rng: where all draws come from.
        side: of the picture.
        feather: sigma of the squares' border in pixels; 0 leaves a hard seam.

    Returns:
        Picture, (4,) the face's box, and (2, 4) the squares: with the person, and face-free.
    """
    flat = rng.random() < 0.5
    image = np.full((side, side, 3), PAD, np.uint8) if flat else maker.face_free((side, side), rng)
    index = int(rng.integers(len(maker.portraits)))
    photo = maker.portraits.levels[index][0]
    scale = size / maker.portraits.side_of(index)
    edge = round(min(side * 0.48, min(photo.shape[:2]) * scale))
    x = int(rng.integers(0, side // 2 - edge + 1))
    y = int(rng.integers(0, side - edge + 1))
    box = maker.portraits.marks.box[index]
    middle = scale * (box[:2] + box[2:]) / 2
    size_of = np.array(photo.shape[1::-1]) * scale
    shift = np.clip(edge / 2 - middle, edge - size_of, 0)
    head = maker.portraits.place(index, np.c_[np.eye(2) * scale, shift], (edge, edge))
    other_x, other_y = (
        side // 2 + int(rng.integers(0, side // 2 - edge + 1)),
        int(rng.integers(0, side - edge + 1)),
    )
    soft = np.ones((edge, edge), np.float32)
    if feather:
        soft[:] = 0
        inset = min(edge // 3, int(np.ceil(2 * feather)))
        soft[inset : edge - inset, inset : edge - inset] = 1
        soft = cv2.GaussianBlur(soft, (0, 0), feather)
    for picture, px, py in ((head.image, x, y), (maker.face_free((edge, edge), rng), other_x, other_y)):
        window = image[py : py + edge, px : px + edge]
        window[...] = (window + soft[..., None] * (picture.astype(np.float32) - window)).astype(np.uint8)
    placed = square(transform(box.reshape(2, 2), np.c_[np.eye(2) * scale, shift]).reshape(4))
    moved = placed + np.array([x, y, x, y], np.float32)
    rectangles = np.array(
        [[x, y, x + edge, y + edge], [other_x, other_y, other_x + edge, other_y + edge]], np.float32
    )
    return image, moved, rectangles


def marked_rows(maker: NaturalScenes, labels: npt.NDArray[np.int64], each: int) -> list[int]:
    """Rows with marks, equally many of each class, in order."""
    rows: list[int] = []
    for label in np.unique(labels):
        rows += np.flatnonzero((labels == label) & maker.marks.ok)[:each].tolist()
    return sorted(rows)
