"""Heads to compose scenes of: AI-made portraits, FER2013 faces blended into them, and what hides a part of a face.

A FER2013 crop pasted as it is has a square seam around it, and whoever learns from it learns the seam. Here its inner
face is moved onto the landmarks of a portrait's face, takes that face's light and colour, and fades out inside the
portrait's own outline: hair, ears, neck and room stay the portrait's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.image import Image
from edge_training.data import augment
from edge_training.data.landmarks import (
    CHIN,
    FOREHEAD,
    LEFT_EYE,
    LOWER_LIP,
    NOSE_BRIDGE,
    NOSE_TIP,
    OVAL,
    RIGHT_EYE,
    RIGID,
    Floats,
    Marks,
)

Mask = npt.NDArray[np.float32]

_LEVELS = 4
"""Portraits are kept at 1, 1/2, 1/4 and 1/8 of their side, so that a small head is made of averaged pixels."""
_CUT_SIDE = 96
"""Pixels at which a head is cut out of its picture."""


@dataclass(frozen=True)
class Placed:
    """A head in the coordinates of a canvas.

    Attributes:
        image: (H, W, 3) uint8, the window of the canvas that the portrait covers.
        mask: (H, W) float32, 1 on the person.
        mesh: (478, 2) pixels of the window.
        box: (4,) xyxy pixels of the window, the square that FER2013 would have cut.
    """

    image: Image
    mask: Mask
    mesh: Floats
    box: Floats


class Portraits:
    """AI-made portraits with marks, at several scales, and each person cut out.

    Args:
        images: RGB.
        marks: of them; all ok.
    """

    def __init__(self, images: Sequence[Image], marks: Marks) -> None:
        self.levels: list[list[Image]] = []
        for image in images:
            levels = [image]
            for _ in range(_LEVELS - 1):
                levels.append(_halved(levels[-1]))
            self.levels.append(levels)
        self.marks = marks
        self.yaw = yaw_of(marks.mesh)
        self._masks: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self.levels)

    def side_of(self, index: int) -> float:
        """Side of a portrait's face in its own pixels."""
        box = self.marks.box[index]
        return float(box[2] - box[0])

    def place(
        self, index: int, matrix: npt.NDArray[np.float64], size: tuple[int, int], *, person: bool = False
    ) -> Placed:
        """Draw a portrait.

        Args:
            index: of the portrait.
            matrix: (2, 3) from its pixels to the window's.
            size: width and height of the window.
            person: cut the person out for the mask; else the mask is where the portrait is.
        """
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        level = int(np.clip(np.floor(np.log2(1 / max(scale, 1e-6)) + 0.3), 0, _LEVELS - 1))
        source = self.levels[index][level]
        height, width = self.levels[index][0].shape[:2]
        shrink = np.array([source.shape[1] / width, source.shape[0] / height])
        fine = matrix.copy()
        fine[:, :2] /= shrink
        flags = cv2.INTER_LINEAR
        image = cv2.warpAffine(source, fine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        if person:
            cut = self._person(index)
            coarse = matrix.copy()
            coarse[:, :2] /= np.array([cut.shape[1] / width, cut.shape[0] / height])
            # Below the picture's lower edge the person goes on; beside it there is none.
            mask = (cv2.warpAffine(cut, coarse, size, flags=flags) / 255).astype(np.float32)
        else:
            mask = np.ones((size[1], size[0]), np.float32)
        mesh = transform(self.marks.mesh[index], matrix)
        box = square(transform(self.marks.box[index].reshape(2, 2), matrix).reshape(4))
        return Placed(image.astype(np.uint8, copy=False), mask, mesh, box)

    def _person(self, index: int) -> Image:
        """Head, hair and shoulders by GrabCut (Rother and others, 2004), begun from the mesh."""
        if index not in self._masks:
            self._masks[index] = cut_person(self.levels[index][0], self.marks.mesh[index])
        return self._masks[index]


def cut_person(image: Image, mesh: Floats) -> Image:
    """(h, w) uint8, 255 on the person, on a grid whose longer side is 96 pixels."""
    scale = _CUT_SIDE / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    oval = mesh[list(OVAL)] * scale
    centre, size = (oval.max(0) + oval.min(0)) / 2, oval.max(0) - oval.min(0)
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    middle = (int(centre[0]), int(centre[1] - 0.12 * size[1]))
    neck = int(oval[:, 1].max())
    bottom = small.shape[0]
    left, right = int(centre[0] - 1.6 * size[0]), int(centre[0] + 1.6 * size[0])
    cv2.ellipse(labels, middle, _axes(size, 0.95, 0.95), 0, 0, 360, int(cv2.GC_PR_FGD), -1)
    shoulders = np.array(
        [
            (centre[0] - 0.5 * size[0], neck - 0.2 * size[1]),
            (centre[0] + 0.5 * size[0], neck - 0.2 * size[1]),
            (right, min(bottom, neck + int(0.5 * size[1]))),
            (right, bottom),
            (left, bottom),
            (left, min(bottom, neck + int(0.5 * size[1]))),
        ]
    )
    cv2.fillPoly(labels, [shoulders.astype(np.int32)], int(cv2.GC_PR_FGD))
    cv2.fillPoly(labels, [oval.astype(np.int32)], int(cv2.GC_FGD))
    torso = np.array(
        [
            (centre[0] - 0.3 * size[0], neck - 0.1 * size[1]),
            (centre[0] + 0.3 * size[0], neck - 0.1 * size[1]),
            (centre[0] + 0.6 * size[0], bottom),
            (centre[0] - 0.6 * size[0], bottom),
        ]
    )
    cv2.fillPoly(labels, [torso.astype(np.int32)], int(cv2.GC_FGD))
    guess = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not guess.all():
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        cv2.grabCut(np.ascontiguousarray(small), labels, None, *models, 2, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8) * 255
    return cv2.GaussianBlur(cv2.medianBlur(mask, 5), (0, 0), 0.8).astype(np.uint8, copy=False)


def yaw_of(mesh: Floats) -> Floats:
    """(N,) how far the nose is from the middle of the cheeks, in shares of their distance; 0 looks straight."""
    right, left, nose = mesh[:, 234], mesh[:, 454], mesh[:, NOSE_TIP]
    across = left - right
    length = np.maximum(np.square(across).sum(1), 1e-6)
    share: Floats = (((nose - right) * across).sum(1) / length - 0.5).astype(np.float32)
    return share


def transform(points: Floats, matrix: npt.NDArray[np.float64]) -> Floats:
    """(N, 2) points through a (2, 3) matrix."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def square(corners: Floats) -> Floats:
    """The upright square around the middle of two opposite corners, as large as they are apart."""
    centre = (corners[:2] + corners[2:]) / 2
    half = float(np.linalg.norm(corners[2:] - corners[:2])) / 2 / np.sqrt(2)
    return np.array([*(centre - half), *(centre + half)], np.float32)


def blend_face(head: Placed, face: npt.NDArray[np.uint8], mesh: Floats, rng: np.random.Generator) -> None:
    """Give a head the inner face of a FER2013 crop; in place.

    The crop's grey is fitted to the landmarks, takes the head's light (its low frequencies) in part and its colour in
    whole, and fades out inside the outline of both.

    Args:
        head: is changed.
        face: (48, 48) grey crop.
        mesh: (478, 2) of the crop.
        rng: how much light is taken, where the fading begins.
    """
    target, source = head.mesh[list(RIGID)], mesh[list(RIGID)]
    design = np.concatenate((source, np.ones((len(source), 1), np.float32)), 1)
    matrix = np.linalg.lstsq(design, target, rcond=None)[0].T.astype(np.float64)
    size = float(head.box[2] - head.box[0])
    window = _window(head.box, 0.15 * size, head.image)
    if window is None:
        return
    x1, y1, x2, y2 = window
    matrix[:, 2] -= (x1, y1)
    shape = (x2 - x1, y2 - y1)
    if size < 40:  # average the crop's pixels instead of skipping some
        factor = max(0.25, size / 48)
        face = cv2.resize(face, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA).astype(np.uint8)
        matrix[:, :2] /= factor
        mesh = mesh * factor
    grey = cv2.warpAffine(face, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = np.full(face.shape, 0, np.uint8)
    inside[1:-1, 1:-1] = 255
    valid = cv2.warpAffine(inside, matrix, shape, flags=cv2.INTER_NEAREST)
    mask = np.zeros((shape[1], shape[0]), np.uint8)
    inner = float(rng.uniform(0.84, 0.95))
    for oval in (head.mesh[list(OVAL)] - (x1, y1), transform(mesh[list(OVAL)], matrix)):
        centre = oval.mean(0)
        one = np.zeros_like(mask)
        cv2.fillConvexPoly(one, cv2.convexHull(((oval - centre) * inner + centre).astype(np.int32)), 255)
        mask = one if not mask.any() else mask & one
    mask &= valid.astype(np.uint8)
    if not mask.any():
        return
    feather = max(0.6, 0.035 * size)
    soft = (
        cv2.GaussianBlur(cv2.erode(mask, _disc(feather)), (0, 0), feather).astype(np.float32)[..., None] / 255
    )
    patch = head.image[y1:y2, x1:x2]
    own = patch.astype(np.float32)
    low = cv2.GaussianBlur(own, (0, 0), max(0.8, 0.16 * size), borderType=cv2.BORDER_REPLICATE)
    own_light = low.mean(2)
    new = grey.astype(np.float32)
    new_light = cv2.GaussianBlur(new, (0, 0), max(0.8, 0.16 * size), borderType=cv2.BORDER_REPLICATE)
    here = mask > 0
    # The same contrast as the face that was there, within reason.
    contrast = float(np.clip(own.mean(2)[here].std() / max(4.0, new[here].std()), 0.7, 1.6))
    share = float(rng.uniform(0.55, 0.95))
    grey_low = new_light * (1 - share) + new_light[here].mean() * share
    light = own_light * share + own_light[here].mean() * (1 - share)
    detail = (new - grey_low) * contrast
    mixed = low * ((light + detail) / np.maximum(own_light, 1))[..., None]
    patch[...] = (own + soft * (mixed.clip(0, 255) - own)).astype(np.uint8)


def surgical_mask(head: Placed, rng: np.random.Generator) -> None:
    """Cover nose, mouth and chin with cloth; in place."""
    mesh = head.mesh
    top = mesh[NOSE_BRIDGE] * 0.45 + mesh[NOSE_TIP] * 0.55
    right, left = [OVAL.index(i) for i in (234, 454)]
    lower = mesh[list(OVAL)][left : right + 1]
    middle = mesh[NOSE_TIP]
    out = (lower - middle) * np.float32(rng.uniform(1.0, 1.07)) + middle
    keep = out[(out[:, 1] >= min(mesh[234, 1], mesh[454, 1]))]
    edge = np.concatenate((keep, top[None]))
    _cloth(head, cv2.convexHull(edge.astype(np.float32))[:, 0].astype(np.float32), rng)
    if rng.random() < 0.6:
        colour = tuple(int(v) for v in rng.integers(150, 250, 3))
        width = max(1, round(0.015 * float(head.box[2] - head.box[0])))
        for cheek, corner in ((234, 58), (454, 288)):
            ear = mesh[cheek] + (mesh[cheek] - mesh[1]) * 0.15
            cv2.line(head.image, _xy(mesh[corner]), _xy(ear), colour, width, cv2.LINE_AA)


def sunglasses(head: Placed, rng: np.random.Generator) -> None:
    """Cover both eyes; in place."""
    mesh, scale = head.mesh, float(np.linalg.norm(head.mesh[33] - head.mesh[263]))
    angle = float(np.degrees(np.arctan2(*(head.mesh[263] - head.mesh[33])[::-1])))
    colour = tuple(int(v) for v in rng.integers(0, 70, 3))
    axes = (max(1, int(0.26 * scale)), max(1, int(rng.uniform(0.17, 0.26) * scale)))
    for eye in (RIGHT_EYE, LEFT_EYE):
        centre = mesh[list(eye)].mean(0) + np.array([0, 0.04 * scale])
        cv2.ellipse(head.image, _xy(centre), axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
    width = max(1, round(0.04 * scale))
    cv2.line(head.image, _xy(mesh[133]), _xy(mesh[362]), colour, width, cv2.LINE_AA)
    for outer, cheek in ((33, 127), (263, 356)):
        cv2.line(head.image, _xy(mesh[outer]), _xy(mesh[cheek]), colour, width, cv2.LINE_AA)


def hat(head: Placed, rng: np.random.Generator) -> None:
    """Cover the hair and a part of the forehead; in place."""
    mesh = head.mesh
    up = mesh[FOREHEAD] - mesh[CHIN]
    across = mesh[454] - mesh[234]
    brow = (mesh[105] + mesh[334]) / 2 + up * float(rng.uniform(0.02, 0.16))
    wide = float(rng.uniform(0.58, 0.75))
    points = [brow - across * wide, brow + across * wide]
    for share in np.linspace(0, 1, 7):
        turn = np.pi * share
        points.append(
            brow
            + across * (wide * np.cos(turn))
            + up * (0.65 * np.sin(turn) + 0.05) * float(rng.uniform(0.9, 1.1))
        )
    _cloth(head, cv2.convexHull(np.array(points, np.float32))[:, 0].astype(np.float32), rng)


def hand(head: Placed, rng: np.random.Generator) -> None:
    """Lay skin-coloured fingers over a part of the face; in place."""
    mesh, size = head.mesh, float(head.box[2] - head.box[0])
    skin = _tone(head)
    centre = mesh[LOWER_LIP if rng.random() < 0.6 else 50] + rng.normal(0, 0.08 * size, 2)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    beside = np.array([-along[1], along[0]])
    width = max(1, round(0.13 * size))
    for finger in range(int(rng.integers(2, 5))):
        start = centre + beside * (finger - 1.5) * width * 1.05
        shade = tuple(int(v) for v in (skin * rng.uniform(0.85, 1.05)).clip(0, 255))
        stop = start + along * size * rng.uniform(0.3, 0.55)
        cv2.line(head.image, _xy(start), _xy(stop), shade, width, cv2.LINE_AA)
        edge = tuple(int(0.6 * v) for v in shade)
        off = beside * width * 0.5
        cv2.line(head.image, _xy(start + off), _xy(stop + off), edge, max(1, width // 8), cv2.LINE_AA)


def hair_strip(head: Placed, rng: np.random.Generator) -> None:
    """Let hair fall over the face; in place."""
    mesh, size = head.mesh, float(head.box[2] - head.box[0])
    colour = rng.integers(10, 110) * np.array([1.0, 0.8, 0.6])
    start = mesh[FOREHEAD] + rng.normal(0, 0.2 * size, 2)
    bend = rng.normal(0, 0.25 * size, 2)
    for _ in range(max(2, int(0.15 * size))):
        shade = tuple(int(v) for v in (colour * rng.uniform(0.7, 1.3)).clip(0, 255))
        a = start + rng.normal(0, 0.05 * size, 2)
        b = a + np.array([0, 0.7 * size]) + bend + rng.normal(0, 0.04 * size, 2)
        cv2.line(head.image, _xy(a), _xy(b), shade, max(1, round(0.015 * size)), cv2.LINE_AA)


def _cloth(head: Placed, outline: Floats, rng: np.random.Generator) -> None:
    """Fill an outline with a colour that keeps some of the light below, with stripes at times; in place."""
    size = float(head.box[2] - head.box[0])
    height, width = head.image.shape[:2]
    low = np.maximum(np.floor(outline.min(0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(outline.max(0)).astype(int) + 3, (width, height))
    if (high - low).min() < 2:
        return
    window = head.image[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(window.shape[:2], np.uint8)
    cv2.fillPoly(mask, [((outline - low) * 16).round().astype(np.int32)], 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.4, 0.006 * size)).astype(np.float32)[..., None] / 255
    kinds = ((170, 200, 225), (235, 235, 235), (25, 25, 30), tuple(rng.integers(0, 256, 3)))
    colour = np.array(kinds[int(rng.integers(len(kinds)))], np.float32) * float(rng.uniform(0.75, 1.05))
    grey = cv2.GaussianBlur(window, (0, 0), max(0.6, 0.07 * size)).astype(np.float32).mean(2, keepdims=True)
    cloth = colour * (0.55 + 0.45 * grey / max(1.0, float(grey.mean())))
    if rng.random() < 0.5:
        y = (
            np.arange(window.shape[0])[:, None, None]
            + rng.uniform(-0.3, 0.3) * np.arange(window.shape[1])[None, :, None]
        )
        period = max(3.0, size * float(rng.uniform(0.08, 0.25)))
        cloth = cloth * (1 + float(rng.uniform(0.05, 0.2)) * np.sin(2 * np.pi * y / period))
    window[...] = (window + soft * (cloth.clip(0, 255) - window)).astype(np.uint8)


def _tone(head: Placed) -> npt.NDArray[np.float64]:
    """Mean colour of the cheeks and the nose."""
    height, width = head.image.shape[:2]
    points = head.mesh[[50, 280, 4, 6]].round().astype(int)
    seen = [head.image[y, x] for x, y in points.tolist() if 0 <= x < width and 0 <= y < height]
    return np.mean(seen, 0) if seen else np.array([180.0, 140.0, 120.0])


def _window(box: Floats, margin: float, image: Image) -> tuple[int, int, int, int] | None:
    height, width = image.shape[:2]
    x1, y1 = (max(0, int(np.floor(v - margin))) for v in box[:2])
    x2, y2 = min(width, int(np.ceil(box[2] + margin))), min(height, int(np.ceil(box[3] + margin)))
    return (x1, y1, x2, y2) if x2 - x1 > 3 and y2 - y1 > 3 else None


def _disc(radius: float) -> npt.NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _axes(size: Floats, wide: float, high: float) -> tuple[int, int]:
    return max(1, int(size[0] * wide)), max(1, int(size[1] * high))


def _xy(point: npt.NDArray[np.floating]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _halved(image: Image) -> Image:
    size = (max(1, image.shape[1] // 2), max(1, image.shape[0] // 2))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def degraded(image: Image, rng: np.random.Generator) -> Image:
    """What cameras and networks do to a whole picture: light, colour, blur, noise and compression."""
    if rng.random() < 0.25:
        image = augment.three_channels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False))
    elif rng.random() < 0.4:
        gains = rng.uniform(0.8, 1.15, 3)
        image = (image * gains).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        image = augment.light(image, rng)
    dark = rng.random() < 0.12
    if dark:
        image = (image * rng.uniform(0.12, 0.5)).astype(np.uint8)
    kind = rng.random()
    if kind < 0.12:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.4))).astype(np.uint8, copy=False)
    elif kind < 0.18:
        image = _motion(image, rng)
    elif kind < 0.26:
        image = augment.blur_or_shrink(image, rng)
    if dark or rng.random() < 0.2:
        noise = rng.normal(0, float(rng.uniform(2, 14)), image.shape).astype(np.float32)
        image = (image + noise).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = int(rng.integers(18, 90))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert decoded is not None
        image = decoded.astype(np.uint8, copy=False)
    return image


def _motion(image: Image, rng: np.random.Generator) -> Image:
    length = int(rng.integers(3, 8))
    kernel = np.zeros((length, length), np.float32)
    middle = length // 2
    angle = rng.uniform(0, np.pi)
    step = (round(middle * np.cos(angle)), round(middle * np.sin(angle)))
    cv2.line(kernel, (middle - step[0], middle - step[1]), (middle + step[0], middle + step[1]), 1.0)
    return cv2.filter2D(image, -1, kernel / max(1.0, float(kernel.sum()))).astype(np.uint8, copy=False)
