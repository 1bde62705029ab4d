"""Presentation attacks on AI-made faces, simulated: no picture of a person who did not consent is needed.

Every picture is a scene seen by one camera model. Bona fide and attack share faces, framing and camera, and differ
only in what stands before the camera:

print    a paper print: halftone, ink gamut, paper's texture and gloss, folds, and where the crop shows them, cut edges
         and the fingers that hold it;
replay   a screen: sub-pixel grating seen as moire, refresh bands, glare, glowing black, and its bezel;
mask     a printed elastic textile over the head: weave, smoothed skin, cloth shading, seams around eyes and mouth.

What would give an attack away without being one is spread over both classes: pasted things at the edge of the picture,
colour casts, exposure, blur, noise and compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.image import Image
from edge_training.data.portraits import Portrait

SPECIES = ("print", "replay", "mask")
SIDE = 256
"""Side of a frame, pixels."""

_FACE = (40.0, 84.0)
"""Width of a face in the frame, pixels: a crop of 2.7 widths fits or just reaches over."""

Floats = npt.NDArray[Any]
"""Pictures, 0..1 where nothing overexposes them, and boxes."""

Rng = np.random.Generator


class Simulator:
    """Makes frames of bona fide faces and of attacks.

    Args:
        portraits: faces in their surroundings.
        backgrounds: face-free photographs.
    """

    def __init__(self, portraits: Sequence[Portrait], backgrounds: Sequence[Image]) -> None:
        self.portraits, self.backgrounds = portraits, backgrounds

    def __call__(self, index: int, species: str, rng: Rng) -> tuple[Image, npt.NDArray[np.float32]]:
        """One presentation.

        Args:
            index: of the portrait.
            species: one of ``SPECIES``, or ``bona_fide``.
            rng: where all draws come from.

        Returns:
            (H, W, 3) uint8 RGB frame, sides at most 256, and the face's box (4,) in its pixels.
        """
        portrait = self.portraits[index]
        width = float(np.exp(rng.uniform(*np.log(_FACE))))
        if species in ("print", "replay"):
            scene, box = self._medium(portrait, width, species, rng)
        else:
            scene, box = place(portrait, width, rng)
            if species == "mask":
                scene = textile_mask(scene, box, rng)
            self._distract(scene, box, rng)
            # A medium is resampled once more than a head; so is this.
            scene, box = wobble(scene, box, rng)
        frame = capture(scene, rng)
        # Half of the frames reach no further than the portrait does, whatever the class: a face close to its camera.
        return frame_of(portrait, frame, box) if rng.random() < 0.5 else (frame, box)

    def _photo(self, side: int, rng: Rng) -> Floats:
        photo = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        window = int(min(photo.shape[:2]) * rng.uniform(0.4, 1.0))
        y, x = (int(rng.integers(0, n - window + 1)) for n in photo.shape[:2])
        return _floats(cv2.resize(photo[y : y + window, x : x + window], (side, side)))

    def _medium(self, portrait: Portrait, width: float, species: str, rng: Rng) -> tuple[Floats, Floats]:
        """A sheet or a screen that shows the portrait, before whatever is behind it."""
        # How far the picture reaches around the face: below 1.35 widths the crop shows its edge.
        reach = rng.uniform(0.9, 1.35) if rng.random() < 0.4 else rng.uniform(1.35, 2.6)
        shown_width = SIDE / (2 * reach)
        shown, _ = place(portrait, shown_width, rng, centred=True)
        shown = paper(shown, rng) if species == "print" else screen(shown, rng)
        alpha = np.ones((SIDE, SIDE, 1), np.float32)
        behind, _ = place(portrait, width, rng)
        behind = cv2.GaussianBlur(
            self._photo(SIDE, rng) if rng.random() < 0.7 else behind[:, ::-1], (0, 0), 1.5
        )
        side = 2 * reach * width
        x, y = (float(v) for v in rng.uniform(0.42 * SIDE, 0.58 * SIDE, 2))
        tilt = rng.uniform(-0.05, 0.05, (4, 2)) * side
        turn = np.deg2rad(rng.uniform(-8, 8))
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * side / 2
        turned = corners @ np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
        target = (turned + tilt + (x, y)).astype(np.float32)
        source = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], np.float32)
        matrix = cv2.getPerspectiveTransform(source, target)
        shrink = side / SIDE
        if shrink < 1:  # what a lens would average
            shown = cv2.GaussianBlur(shown, (0, 0), 0.35 / shrink)
        flat = cv2.warpPerspective(shown, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        cover = cv2.warpPerspective(alpha, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)[:, :, None]
        shadow = cv2.GaussianBlur(np.roll(cover, (4, 3), (0, 1)), (0, 0), 4)[:, :, None]
        scene = behind * (1 - rng.uniform(0.1, 0.5) * shadow)
        scene = scene * (1 - cover) + flat * cover
        if reach < 1.6 and rng.random() < 0.6:
            _fingers(scene, target, rng)
        half = SIDE / (4 * reach)
        middle = SIDE / 2
        face = np.array([[(middle - half, middle - half), (middle + half, middle + half)]], np.float32)
        low, high = cv2.perspectiveTransform(face, matrix)[0]
        return scene.astype(np.float32), np.concatenate((low, high)).astype(np.float32)

    def _distract(self, scene: Floats, box: Floats, rng: Rng) -> None:
        """Things with straight edges beside the face, and fingers, as in front of any camera; in place."""
        if rng.random() < 0.5:
            return
        x1, y1, x2, y2 = box
        for _ in range(int(rng.integers(1, 4))):
            side = int(rng.uniform(30, 130))
            x, y = (int(v) for v in rng.integers(-side // 2, SIDE - side // 2, 2))
            if x < x2 + 4 and x + side > x1 - 4 and y < y2 + 4 and y + side > y1 - 4:
                continue
            left, top, right, bottom = max(0, x), max(0, y), min(SIDE, x + side), min(SIDE, y + side)
            patch = (
                self._photo(side, rng) if rng.random() < 0.6 else np.full((side, side, 3), rng.uniform(0, 1))
            )
            scene[top:bottom, left:right] = patch[top - y : bottom - y, left - x : right - x]
        if rng.random() < 0.3:
            w = x2 - x1
            frame = np.array(
                [(x1 - w, y1 - w), (x2 + w, y1 - w), (x2 + w, y2 + w), (x1 - w, y2 + w)], np.float32
            )
            _fingers(scene, frame, rng)


def place(portrait: Portrait, width: float, rng: Rng, *, centred: bool = False) -> tuple[Floats, Floats]:
    """A portrait in the frame with its face ``width`` pixels wide; what it does not cover mirrors it, out of focus."""
    image, box = portrait.image, portrait.box
    if rng.random() < 0.5:
        image = image[:, ::-1]
        box = np.array([image.shape[1] - box[2], box[1], image.shape[1] - box[0], box[3]], np.float32)
    scale = width / float(box[2] - box[0])
    size = (max(2, round(image.shape[1] * scale)), max(2, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = _floats(cv2.resize(np.ascontiguousarray(image), size, interpolation=method))
    middle = (box[:2] + box[2:]) / 2 * scale
    spread = (0.5, 0.5) if centred else (0.4, 0.6)
    x, y = (float(v) for v in rng.uniform(spread[0], spread[1], 2) * SIDE)
    turn = cv2.getRotationMatrix2D(
        (float(middle[0]), float(middle[1])), 0 if centred else rng.uniform(-6, 6), 1
    )
    turn[:, 2] += (x - middle[0], y - middle[1])
    scene = cv2.warpAffine(
        small, turn, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    half = width / 2
    box = np.array([x - half, y - half, x + half, y + half], np.float32)
    return _defocus(scene, cv2.warpAffine(np.ones(size[::-1], np.float32), turn, (SIDE, SIDE))), box


def _defocus(scene: Floats, covered: Floats) -> Floats:
    """Blur what a picture does not cover, without an edge where it begins: sharp mirror images are no surroundings."""
    if covered.min() > 0:
        return scene.astype(np.float32)
    # At a quarter of the size: nothing fine is left to lose.
    small = (SIDE // 4, SIDE // 4)
    blurred = cv2.GaussianBlur(cv2.resize(scene, small, interpolation=cv2.INTER_AREA), (0, 0), 3)
    inside = cv2.erode(cv2.resize(covered, small, interpolation=cv2.INTER_AREA), np.ones((5, 5)))
    inside = cv2.resize(cv2.GaussianBlur(inside, (0, 0), 2), (SIDE, SIDE))[:, :, None]
    mixed: Floats = scene * inside + cv2.resize(blurred, (SIDE, SIDE)) * (1 - inside)
    return mixed.astype(np.float32)


def frame_of(portrait: Portrait, frame: Image, box: Floats) -> tuple[Image, Floats]:
    """The part of a frame that reaches as far around the face as the portrait does."""
    x1, y1, x2, y2 = (float(v) for v in portrait.box)
    scale = float(box[2] - box[0]) / (x2 - x1)
    height, width = portrait.image.shape[:2]
    left, top = (max(0, round(float(b - a * scale))) for a, b in ((x1, box[0]), (y1, box[1])))
    right = min(frame.shape[1], round(float(box[2] + (width - x2) * scale)))
    bottom = min(frame.shape[0], round(float(box[3] + (height - y2) * scale)))
    return frame[top:bottom, left:right], (box - np.array((left, top, left, top), np.float32)).astype(
        np.float32
    )


def wobble(scene: Floats, box: Floats, rng: Rng) -> tuple[Floats, Floats]:
    """A slight change of perspective: one resampling."""
    source = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], np.float32)
    target = source + rng.uniform(-0.02, 0.02, (4, 2)).astype(np.float32) * SIDE
    matrix = cv2.getPerspectiveTransform(source, target)
    moved = cv2.warpPerspective(
        scene, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    corners = cv2.perspectiveTransform(box.reshape(1, 2, 2), matrix)[0]
    return moved, corners.reshape(4).astype(np.float32)


def paper(image: Floats, rng: Rng) -> Floats:
    """Ink on paper under a lamp."""
    white = rng.uniform(0.8, 1.0) * np.array([1, rng.uniform(0.94, 1), rng.uniform(0.84, 1)])
    black = rng.uniform(0.02, 0.15)  # no ink is black under a lamp
    ink = _saturate(image, rng.uniform(0.6, 1.1)) ** rng.uniform(0.75, 1.3)
    screen_of_dots = _halftone(ink, rng) if rng.random() < 0.8 else ink
    ink = ink + rng.uniform(0.25, 0.8) * (screen_of_dots - ink)
    out: Floats = black + ink * (white - black)
    grain = cv2.GaussianBlur(_noise((SIDE, SIDE), rng), (0, 0), rng.uniform(0.6, 2.0))
    out = out * (1 + rng.uniform(0.01, 0.05) * (grain / max(1e-6, float(grain.std())))[:, :, None])
    if rng.random() < 0.7:  # the sheet bends
        out = out * _slope(rng, rng.uniform(0.05, 0.3))
    if rng.random() < 0.35:
        out = _fold(out, rng)
    if rng.random() < 0.5:
        out = out + rng.uniform(0.05, 0.4) * _spot(rng)
    if rng.random() < 0.35:  # an unprinted border
        edge = int(rng.uniform(0.02, 0.08) * SIDE)
        border = np.ones((SIDE, SIDE, 1), np.float32)
        border[edge:-edge, edge:-edge] = 0
        out = out * (1 - border) + white * border
    return out.astype(np.float32)


def screen(image: Floats, rng: Rng) -> Floats:
    """A display that glows, seen through its own raster."""
    out = _saturate(image, rng.uniform(0.8, 1.3)) ** rng.uniform(0.8, 1.3)
    glow = rng.uniform(0.03, 0.16) * np.array([rng.uniform(0.7, 1), rng.uniform(0.85, 1), 1])
    out = glow + out * (rng.uniform(0.75, 1.15) - glow)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    # The panel's raster is finer than the camera's: what is seen is their difference, which drifts over the picture.
    bend = rng.uniform(-4e-4, 4e-4, 4)
    strength = rng.uniform(0.03, 0.18)
    for along, across in ((x, y), (y, x)):
        frequency = np.exp(rng.uniform(np.log(0.01), np.log(0.3)))
        skew = rng.uniform(-0.25, 0.25) * frequency
        phase = frequency * along + skew * across + bend[0] * along**2 + bend[1] * along * across
        shift = rng.uniform(0, 0.33)  # red, green and blue stand side by side
        waves = [np.cos(2 * np.pi * (phase + shift * channel)) for channel in range(3)]
        out = out * (1 + strength * np.stack(waves, 2))
        strength *= rng.uniform(0.2, 1.0)
    if rng.random() < 0.4:  # lines that the panel is just drawing
        period = rng.uniform(25, 180)
        bands = np.sin(2 * np.pi * (y / period + rng.random()))
        out = out * (1 + rng.uniform(0.02, 0.12) * bands[:, :, None])
    if rng.random() < 0.55:
        out = out + rng.uniform(0.05, 0.4) * _spot(rng)
    if rng.random() < 0.6:  # its frame
        edge = int(rng.uniform(0.02, 0.1) * SIDE)
        bezel = np.ones((SIDE, SIDE, 1), np.float32)
        bezel[edge:-edge, edge:-edge] = 0
        out = out * (1 - bezel) + rng.uniform(0.0, 0.2) * bezel
    return out.astype(np.float32)


def textile_mask(scene: Floats, box: Floats, rng: Rng) -> Floats:
    """A printed stretch fabric over the head in the scene; the rest of the scene stays."""
    x1, y1, x2, y2 = (float(v) for v in box)
    w = x2 - x1
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    cover: Floats = np.zeros((SIDE, SIDE), np.float32)
    # From a face's front to the whole head with its hair.
    axes = (int(w * rng.uniform(0.52, 0.8)), int(w * rng.uniform(0.68, 1.05)))
    middle = (int(cx), int(cy - rng.uniform(0.02, 0.15) * w))
    cv2.ellipse(cover, middle, axes, 0, 0, 360, 1.0, -1)
    cover = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.5, 1.5))[:, :, None]
    cloth: Floats = cv2.GaussianBlur(scene, (0, 0), max(0.5, w * rng.uniform(0.01, 0.03)))  # ink has no pores
    cloth = _saturate(cloth, rng.uniform(0.45, 0.95)) ** rng.uniform(0.8, 1.2)
    cloth = rng.uniform(0.03, 0.15) + cloth * rng.uniform(0.65, 0.95)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    pitch = np.exp(rng.uniform(np.log(0.06), np.log(0.48)))
    bulge = 1 + 0.3 * (((x - cx) / w) ** 2 + ((y - cy) / w) ** 2)  # stretched where the head is round
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    weave = np.cos(2 * np.pi * pitch * u * bulge) * np.cos(
        2 * np.pi * pitch * rng.uniform(0.8, 1.2) * v * bulge
    )
    cloth = cloth * (1 + rng.uniform(0.03, 0.12) * weave[:, :, None])
    creases: Floats = cv2.GaussianBlur(_noise((SIDE, SIDE), rng), (0, 0), w * rng.uniform(0.06, 0.2))
    creases = creases / max(1e-6, float(np.abs(creases).max()))
    cloth = cloth * (1 + rng.uniform(0.1, 0.35) * creases[:, :, None])
    cloth = cloth * _egg(x - middle[0], y - middle[1], axes, rng)
    if rng.random() < 0.3:  # where two pieces are sewn together
        seam = np.exp(-(((x - cx - rng.uniform(-0.1, 0.1) * w) / max(1.0, 0.015 * w)) ** 2))
        cloth = cloth * (1 - rng.uniform(0.2, 0.5) * seam[:, :, None])
    # Openings show the wearer; their hems are dark and a little raised.
    holes = np.zeros((SIDE, SIDE), np.float32)
    if rng.random() < 0.85:
        eye = (max(1, int(w * rng.uniform(0.07, 0.12))), max(1, int(w * rng.uniform(0.03, 0.06))))
        for side in (-1, 1):
            cv2.ellipse(holes, (int(cx + side * 0.19 * w), int(cy - 0.10 * w)), eye, 0, 0, 360, 1.0, -1)
    if rng.random() < 0.5:
        mouth = (max(1, int(w * rng.uniform(0.1, 0.18))), max(1, int(w * rng.uniform(0.03, 0.07))))
        cv2.ellipse(holes, (int(cx), int(cy + 0.27 * w)), mouth, 0, 0, 360, 1.0, -1)
    soft = cv2.GaussianBlur(holes, (0, 0), 0.7)[:, :, None]
    hem = (cv2.GaussianBlur(holes, (0, 0), max(0.8, 0.02 * w))[:, :, None] - soft).clip(0, 1)
    cloth = cloth * (1 - rng.uniform(0.3, 1.0) * hem)
    amount = cover * (1 - soft)
    worn: Floats = scene * (1 - amount) + cloth * amount
    return worn.astype(np.float32)


def _egg(x: Floats, y: Floats, axes: tuple[int, int], rng: Rng) -> Floats:
    """Light on taut cloth: an ellipsoid without nose or sockets, (SIDE, SIDE, 1) about 1 (Lambert's law)."""
    across, down = x / (1.15 * axes[0]), y / (1.15 * axes[1])
    towards = np.sqrt((1 - across**2 - down**2).clip(0.02))
    side, above = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.3)
    lit = (side * across + above * down + towards).clip(0)
    strength = rng.uniform(0.2, 0.6)
    shade: Floats = (1 - strength + strength * lit)[:, :, None]
    return shade.astype(np.float32)


def capture(scene: Floats, rng: Rng) -> Image:
    """A scene as a cheap camera records it; the same for bona fide and attack."""
    # Pale colours and grey blacks come from flare and cheap optics too: they must not mean paper.
    out: Floats = _saturate(scene, rng.uniform(0.4, 1.25))
    out = out * np.exp(rng.uniform(-0.12, 0.12, 3)) * np.exp(rng.uniform(-0.45, 0.3))
    black = rng.uniform(0, 0.05) if rng.random() < 0.5 else rng.uniform(0.05, 0.25)
    out = black + out.clip(0, 1.3) ** np.exp(rng.uniform(-0.25, 0.25)) * (1 - black)
    if rng.random() < 0.4:
        out = out * _slope(rng, rng.uniform(0.05, 0.25))
    if rng.random() < 0.12:
        out = out + rng.uniform(0.05, 0.25) * _spot(rng)  # a lamp in the lens
    if rng.random() < 0.6:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:  # a moving hand or head
        length = int(rng.integers(2, 5))
        kernel = np.eye(length, dtype=np.float32) if rng.random() < 0.5 else np.ones((1, length), np.float32)
        out = cv2.filter2D(out, -1, kernel / kernel.sum())
    if rng.random() < 0.4:
        factor = rng.uniform(0.6, 1.0)
        small = cv2.resize(out, (int(SIDE * factor),) * 2, interpolation=cv2.INTER_AREA)
        out = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    out = out + _noise(out.shape, rng) * rng.uniform(0.002, 0.025)
    frame: Any = (out.clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.05:
        frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.8:
        _, packed = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 96))])
        frame = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    taken: Image = frame.astype(np.uint8, copy=False)
    return taken


def _halftone(image: Floats, rng: Rng) -> Floats:
    """Dots that grow with the ink, each colour's raster turned by its own angle."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    pitch = np.exp(rng.uniform(np.log(0.1), np.log(0.49)))
    out = np.empty_like(image)
    start = rng.uniform(0, np.pi / 2)
    for channel, angle in enumerate((15, 75, 45)):
        turn = start + np.deg2rad(angle)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        raster = 0.5 + 0.25 * (np.cos(2 * np.pi * pitch * u) + np.cos(2 * np.pi * pitch * v))
        out[:, :, channel] = 1 / (1 + np.exp(-8 * (image[:, :, channel] - raster)))
    return out


def _saturate(image: Floats, amount: float) -> Floats:
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    moved: Floats = (grey[:, :, None] + amount * (image - grey[:, :, None])).clip(0, 1.5)
    return moved


def _slope(rng: Rng, strength: float) -> Floats:
    """Light that changes in one direction, (SIDE, SIDE, 1) around 1."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    shade = np.cos(np.pi * (rng.uniform(0.5, 1.5) * along + rng.uniform(-0.5, 0.5)))
    slope: Floats = (1 + strength * shade)[:, :, None].astype(np.float32)
    return slope


def _spot(rng: Rng) -> Floats:
    """A lamp's or a window's reflection, (SIDE, SIDE, 1) in 0..1."""
    spot = np.zeros((SIDE, SIDE), np.float32)
    centre = tuple(int(v) for v in rng.uniform(0.1, 0.9, 2) * SIDE)
    axes = tuple(max(2, int(v)) for v in rng.uniform(0.04, 0.3, 2) * SIDE)
    if rng.random() < 0.5:
        cv2.ellipse(spot, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    else:
        x, y = centre
        cv2.rectangle(spot, (x - axes[0], y - axes[1]), (x + axes[0], y + axes[1]), 1.0, -1)
    return cv2.GaussianBlur(spot, (0, 0), rng.uniform(2, 25))[:, :, None]


def _fold(image: Floats, rng: Rng) -> Floats:
    """A crease across the sheet: one side darker, a bright line between."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    angle = rng.choice([0, np.pi / 2]) + rng.uniform(-0.1, 0.1)
    distance = (x - SIDE * rng.uniform(0.2, 0.8)) * np.cos(angle) + (y - SIDE / 2) * np.sin(angle)
    side = np.tanh(distance / rng.uniform(2, 12))[:, :, None]
    line = np.exp(-((distance / rng.uniform(0.8, 2)) ** 2))[:, :, None]
    folded: Floats = image * (1 + rng.uniform(0.02, 0.12) * side) + rng.uniform(-0.08, 0.15) * line
    return folded


def _fingers(scene: Floats, corners: npt.NDArray[Any], rng: Rng) -> None:
    """One to three fingertips over an edge of what is held; in place."""
    tone = np.array([0.85, 0.62, 0.5]) * rng.uniform(0.3, 1.1)
    edge = int(rng.choice([1, 2, 2, 3]))  # right, below, left
    first, second = corners[edge], corners[(edge + 1) % 4]
    size = rng.uniform(6, 14)
    start = rng.uniform(0.1, 0.7)
    for finger in range(int(rng.integers(1, 4))):
        at = first + (second - first) * (start + finger * 2 * size / SIDE)
        mask = np.zeros((SIDE, SIDE), np.float32)
        axes = (int(size), int(size * rng.uniform(1.5, 2.5)))
        cv2.ellipse(mask, (int(at[0]), int(at[1])), axes, float(rng.uniform(-30, 30)), 0, 360, 1.0, -1)
        soft = cv2.GaussianBlur(mask, (0, 0), 1.2)[:, :, None]
        shade = cv2.GaussianBlur(mask, (0, 0), size / 2)[:, :, None].clip(0.5, 1)
        scene[...] = scene * (1 - soft) + tone * shade * soft


def _noise(shape: tuple[int, ...], rng: Rng) -> Floats:
    return rng.standard_normal(shape, dtype=np.float32)


def _floats(image: npt.NDArray[Any]) -> Floats:
    """0..255 to 0..1."""
    scaled: Floats = image.astype(np.float32) / 255
    return scaled
