"""Inputs on which one liveness network can learn another's function: wide, unlabelled, all made here.

Each kind is a part of the space that a camera, or somebody who wants to fool it, can reach. What a picture *is* plays
no part: the teacher says what to answer. Kinds are kept apart so that agreement can be read kind by kind.

portrait    an AI-made face with the box where it belongs, in ordinary conditions;
condition   the same in hard conditions: dark, colour cast, blur, motion, noise, few pixels, strong compression;
scene       a smaller face in a scene: mirrored surroundings or a photograph;
crop        any window of a portrait: every scale, every offset;
background  any window of a face-free photograph;
fer         a FER2013 face, filling the crop or pasted into a scene;
drawn       a cartoon face;
texture     flat colours, gradients, noise of every slope, stripes, checks, dots;
print, replay, mask   attacks of :mod:`edge_training.data.attacks`;
moire       a screen whose stripes nearly meet the sensor's colour grid: what moves the published network most;
reshoot     a screen or a sheet photographed: panel and sensor grids sampled as they are, gamut, glow, blur, glare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.image import Cropper, FaceCrop, Image
from edge_training.data.attacks import SIDE, Simulator, place, wobble
from edge_training.data.portraits import Portrait

CROP = 80
MARGINS = (2.7, 4.0)
"""Of the crops of the two published networks, in face widths."""

SHARES: Mapping[str, float] = {
    "portrait": 0.12,
    "condition": 0.18,
    "scene": 0.14,
    "crop": 0.10,
    "background": 0.09,
    "fer": 0.07,
    "drawn": 0.04,
    "texture": 0.04,
    "print": 0.05,
    "replay": 0.04,
    "mask": 0.03,
    "reshoot": 0.06,
    "moire": 0.04,
}
"""How often each kind is drawn in training."""

KINDS = tuple(SHARES)

NON_FACES = ("background", "drawn", "texture")
"""Kinds on which no answer but *not a face* is right."""

_FINE = 2
"""Samples a pixel and direction in the integral over a sensor's pixel."""

Rng = np.random.Generator
Floats = npt.NDArray[Any]


class Inputs:
    """Makes pictures of every kind.

    Args:
        portraits: faces in their surroundings, of one split.
        backgrounds: face-free photographs, of the same split.
        faces: (N, 48, 48) uint8 grey FER2013 crops, of the same split.
    """

    def __init__(
        self, portraits: Sequence[Portrait], backgrounds: Sequence[Image], faces: npt.NDArray[np.uint8]
    ) -> None:
        self.portraits, self.backgrounds, self.faces = portraits, backgrounds, faces
        self._attacks = Simulator(portraits, backgrounds)
        self._croppers = [Cropper(side_x=CROP, side_y=CROP, crop=FaceCrop(m, "shift")) for m in MARGINS]

    def __call__(self, kind: str, rng: Rng) -> tuple[Image, Image]:
        """(80, 80, 3) uint8 RGB crops of one picture, at each of ``MARGINS``."""
        return self.crops(*getattr(self, f"_{kind}")(rng))

    def judgeable(self, rng: Rng) -> Image:
        """A (80, 80, 3) crop on which there is a face to judge, bona fide or attack."""
        kinds = ("portrait", "scene", "condition", "fer", "print", "replay", "reshoot", "mask")
        kind = str(rng.choice(kinds, p=(0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.06, 0.04)))
        return self(kind, rng)[0]

    def strange(self, rng: Rng) -> Image:
        """A (80, 80, 3) crop without a face that could be judged.

        Photographs without one, drawings, textures, what is beside a face in its picture, faces out of all focus, and
        boxes so wrong that they hold a bit of skin.
        """
        kinds = (*NON_FACES, "beside", "lost", "misplaced")
        kind = str(rng.choice(kinds, p=(0.33, 0.2, 0.15, 0.16, 0.06, 0.1)))
        if kind in NON_FACES:
            return self(kind, rng)[0]
        image, box = self._some(rng)
        side = float(box[2] - box[0])
        if kind == "lost":
            image, box = self._framed(rng)
            spread = float(box[2] - box[0]) * rng.uniform(0.16, 0.4)
            image = cv2.GaussianBlur(image, (0, 0), spread).astype(np.uint8, copy=False)
        elif kind == "misplaced":
            half = side * rng.uniform(0.03, 0.09)
            x, y = (float(v) for v in rng.uniform(box[:2] + 0.2 * side, box[2:] - 0.2 * side))
            box = np.array([x - half, y - half, x + half, y + half], np.float32)
        else:
            return _beside(camera(image, rng, 0.4), box, rng)
        return self.crops(camera(image, rng, 0.4), box)[0]

    def bona_fide(self, rng: Rng) -> tuple[Image, Image]:
        """The crops of a face as :mod:`edge_training.data.attacks` shows it beside its attacks."""
        return self.crops(*self._attack("bona_fide", rng))

    def crops(self, frame: Image, box: Floats) -> tuple[Image, Image]:
        """(80, 80, 3) uint8 RGB crops of a (H, W, 3) frame around a (4,) box, at each of ``MARGINS``."""
        frame = np.ascontiguousarray(frame)
        near, wide = (cropper(frame, box)[0].copy() for cropper in self._croppers)
        return near, wide

    def _some(self, rng: Rng) -> tuple[Image, Floats]:
        portrait = self.portraits[int(rng.integers(len(self.portraits)))]
        image, box = portrait.image, portrait.box
        if rng.random() < 0.5:
            image = image[:, ::-1]
            box = np.array([image.shape[1] - box[2], box[1], image.shape[1] - box[0], box[3]], np.float32)
        return image, box

    def _portrait(self, rng: Rng) -> tuple[Image, Floats]:
        image, box = self._some(rng)
        return camera(image, rng, 0.3), jittered(box, rng, 0.1)

    def _condition(self, rng: Rng) -> tuple[Image, Floats]:
        if rng.random() < 0.5:
            image, box = self._some(rng)
        else:
            image, box = self._framed(rng)
        return camera(image, rng, 1.0), jittered(box, rng, 0.2)

    def _scene(self, rng: Rng) -> tuple[Image, Floats]:
        image, box = self._framed(rng)
        return camera(image, rng, 0.4), jittered(box, rng, 0.15)

    def _framed(self, rng: Rng) -> tuple[Image, Floats]:
        """A face of 30 to 90 pixels in a frame of 256."""
        portrait = self.portraits[int(rng.integers(len(self.portraits)))]
        width = float(np.exp(rng.uniform(np.log(30), np.log(90))))
        scene, box = place(portrait, width, rng)
        if rng.random() < 0.4:  # in front of something else: the portrait's own picture with a soft edge
            behind: Floats = self._photo(rng, SIDE).astype(np.float32) / 255
            if rng.random() < 0.5:
                behind = cv2.GaussianBlur(behind, (0, 0), rng.uniform(0.5, 3))
            cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            cover: Floats = np.zeros((SIDE, SIDE), np.float32)
            reach = width * rng.uniform(0.6, 0.8)
            cv2.ellipse(
                cover, (int(cx), int(cy - 0.05 * width)), (int(reach), int(reach * 1.25)), 0, 0, 360, 1, -1
            )
            cv2.ellipse(
                cover,
                (int(cx), int(cy + 2.2 * width)),
                (int(width * rng.uniform(0.9, 1.5)), int(1.6 * width)),
                0,
                0,
                360,
                1,
                -1,
            )
            cover = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.8, 4))[:, :, None]
            scene = scene * cover + behind * (1 - cover)
        return (scene.clip(0, 1) * 255).astype(np.uint8), box

    def _photo(self, rng: Rng, side: int) -> Image:
        photo = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        return _window(photo, rng, side, 0.25)

    def _crop(self, rng: Rng) -> tuple[Image, Floats]:
        image, _ = self._some(rng)
        window = _window(camera(image, rng, 0.5), rng, 160, 0.12)
        return window, _middle(160)

    def _background(self, rng: Rng) -> tuple[Image, Floats]:
        return camera(self._photo(rng, 200), rng, 0.5), _middle(200)

    def _fer(self, rng: Rng) -> tuple[Image, Floats]:
        face = cv2.cvtColor(self.faces[int(rng.integers(len(self.faces)))], cv2.COLOR_GRAY2RGB)
        if rng.random() < 0.4:
            tint = rng.uniform(0.6, 1.1, 3) if rng.random() < 0.5 else np.array([1.05, 0.85, 0.75])
            face = (face * tint).clip(0, 255).astype(np.uint8)
        if rng.random() < 0.4:
            return camera(cv2.resize(face, (CROP, CROP), interpolation=cv2.INTER_LINEAR), rng, 0.4), _middle(
                CROP
            )
        scene = self._photo(rng, SIDE)
        side = int(rng.uniform(40, 110))
        x, y = (int(v) for v in rng.uniform(0.3, 0.7, 2) * (SIDE - side))
        soft: Floats = np.zeros((side, side), np.float32)
        if rng.random() < 0.6:
            cv2.ellipse(soft, (side // 2, side // 2), (side * 2 // 5, side // 2 - 1), 0, 0, 360, 1, -1)
            soft = cv2.GaussianBlur(soft, (0, 0), side * 0.04)
        else:
            soft[:] = 1
        part = scene[y : y + side, x : x + side]
        part[...] = (
            part * (1 - soft[:, :, None]) + cv2.resize(face, (side, side)) * soft[:, :, None]
        ).astype(np.uint8)
        box = np.array([x, y, x + side, y + side], np.float32)
        return camera(scene, rng, 0.4), jittered(box, rng, 0.2)

    def _drawn(self, rng: Rng) -> tuple[Image, Floats]:
        paper = (
            self._photo(rng, SIDE) if rng.random() < 0.5 else np.full((SIDE, SIDE, 3), _colour(rng), np.uint8)
        )
        box = draw_face(paper, rng)
        return camera(paper, rng, 0.4), jittered(box, rng, 0.2)

    def _texture(self, rng: Rng) -> tuple[Image, Floats]:
        return camera(texture(160, rng), rng, 0.3), _middle(160)

    def _attack(self, species: str, rng: Rng) -> tuple[Image, Floats]:
        frame, box = self._attacks(int(rng.integers(len(self.portraits))), species, rng)
        return frame, jittered(box, rng, 0.1)

    def _print(self, rng: Rng) -> tuple[Image, Floats]:
        return self._attack("print", rng)

    def _replay(self, rng: Rng) -> tuple[Image, Floats]:
        return self._attack("replay", rng)

    def _mask(self, rng: Rng) -> tuple[Image, Floats]:
        return self._attack("mask", rng)

    def _reshoot(self, rng: Rng) -> tuple[Image, Floats]:
        portrait = self.portraits[int(rng.integers(len(self.portraits)))]
        # The picture that is shown has been through a camera of its own.
        seen = Portrait(camera(portrait.image, rng, 0.4), portrait.box)
        shown, box = place(seen, float(rng.uniform(40, 90)), rng)
        shown = panel(shown, rng) if rng.random() < 0.7 else sheet(shown, rng)
        shown, box = wobble(shown, box, rng)
        frame = (shown.clip(0, 1) * 255).astype(np.uint8)
        if rng.random() < 0.5:  # its edge and what is behind it
            frame, box = self._held(frame, box, rng)
        return camera(frame, rng, 0.4), jittered(box, rng, 0.1)

    def _moire(self, rng: Rng) -> tuple[Image, Floats]:
        portrait = self.portraits[int(rng.integers(len(self.portraits)))]
        shown, box = place(portrait, float(rng.uniform(40, 90)), rng)
        pitch, depth = float(rng.uniform(1.6, 2.3)), float(rng.uniform(0.2, 1))
        angle, bend = np.deg2rad(rng.normal(0, 4)), rng.normal(0, 3e-5, 2)
        seen = mosaic(raster(shown, pitch=pitch, depth=depth, angle=angle, bend=bend))
        return camera((seen.clip(0, 1) * 255).astype(np.uint8), rng, 0.3), jittered(box, rng, 0.1)

    def _held(self, shown: Image, box: Floats, rng: Rng) -> tuple[Image, Floats]:
        """A part of a picture as a sheet or screen before a photograph."""
        w = float(box[2] - box[0])
        cx, cy = (float(v) for v in (box[:2] + box[2:]) / 2)
        reach = w * rng.uniform(0.65, 1.5)
        left, top = int(max(0, cx - reach)), int(max(0, cy - reach * rng.uniform(0.9, 1.4)))
        right, bottom = int(min(SIDE, cx + reach)), int(min(SIDE, cy + reach * rng.uniform(0.9, 1.6)))
        behind = self._photo(rng, SIDE)
        edge = int(rng.uniform(0, 8))
        if edge:
            bezel = int(rng.uniform(0, 60)) if rng.random() < 0.7 else 235
            behind[max(0, top - edge) : bottom + edge, max(0, left - edge) : right + edge] = bezel
        behind[top:bottom, left:right] = shown[top:bottom, left:right]
        return behind, box


def camera(image: Image, rng: Rng, strength: float) -> Image:
    """What a camera does to a picture.

    Args:
        image: (H, W, 3) uint8.
        rng: of all draws.
        strength: 0 changes nothing, 1 goes as far as a face can just be seen.

    Returns:
        A new picture of the same size.
    """
    s = strength
    height, width = image.shape[:2]
    out: Any = np.ascontiguousarray(image)
    often = 0.3 + 0.4 * s
    if rng.random() < often:  # few pixels
        factor = float(np.exp(rng.uniform(np.log(1 - 0.8 * s), 0)))
        size = (max(8, round(width * factor)), max(8, round(height * factor)))
        down = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR
        up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[int(rng.choice(3, p=(0.6, 0.3, 0.1)))]
        out = cv2.resize(cv2.resize(out, size, interpolation=down), (width, height), interpolation=up)
    if rng.random() < often:  # out of focus
        out = cv2.GaussianBlur(out, (0, 0), 0.3 + rng.exponential(1.5 * s) * width / 256)
    if rng.random() < 0.3 * s:  # moving
        length = int(rng.integers(3, 4 + int(12 * s)))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        d = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        c = length / 2
        cv2.line(kernel, (int(c - d[0]), int(c - d[1])), (int(c + d[0]), int(c + d[1])), 1.0)
        out = cv2.filter2D(out, -1, kernel / max(1.0, float(kernel.sum())))
    if rng.random() < 0.2 * s + 0.05:  # sharpened
        soft = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.8, 2))
        amount = rng.uniform(0.3, 0.5 + 1.5 * s)
        out = cv2.addWeighted(out, 1 + amount, soft, -amount, 0)
    # Tone and colour: one table a channel.
    x = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(rng.normal(0, 0.5 * s))
    gain = np.exp(rng.normal(-0.15 * s, 0.45 * s))
    black, white = rng.uniform(0, 0.2 * s), 1 - rng.uniform(0, 0.15 * s)
    cast = np.exp(rng.normal(0, 0.2 * s, 3)) if rng.random() < 0.7 else np.ones(3)
    if rng.random() < 0.15 * s:
        gain *= 0.25  # hardly any light
    table = np.stack([black + (white - black) * (x * gain * c).clip(0, 1) ** gamma for c in cast], 1)
    out = cv2.LUT(out, (table.clip(0, 1) * 255).astype(np.uint8)[:, None])
    if rng.random() < 0.5 * s:
        grey = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        amount = 0.0 if rng.random() < 0.15 else rng.uniform(0.2, 1.7)
        out = cv2.addWeighted(out, amount, grey, 1 - amount, 0)
    if rng.random() < 0.3 * s:  # light from one side, or a lamp's reflection
        y, xx = np.mgrid[0:8, 0:8].astype(np.float32) / 7 - 0.5
        angle = rng.uniform(0, 2 * np.pi)
        shade = 1 + rng.uniform(0.1, 0.8) * s * (xx * np.cos(angle) + y * np.sin(angle)) * 2
        shade = cv2.resize(shade.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        out = (out * shade[:, :, None]).clip(0, 255).astype(np.uint8)
    if rng.random() < often:
        level = rng.exponential(8 * s) + 0.5
        noise = _normal(np.empty((height, width, 3), np.int16), min(60.0, level), rng)
        if rng.random() < 0.4:  # after demosaicing
            noise = cv2.blur(noise, (2, 2)) * 2
        out = np.clip(out.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.4 + 0.3 * s:
        quality = int(rng.integers(int(95 - 80 * s), 98))
        _, packed = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    made: Image = np.array(out, np.uint8) if out is image else out.astype(np.uint8, copy=False)
    return made


def panel(image: Floats, rng: Rng) -> Floats:
    """A display photographed: red, green and blue stripes of the panel under the sensor's pixels.

    The panel's picture elements are ``pitch`` pixels of the frame wide; each pixel averages what falls on it, by a
    supersampled integral. Where the two grids nearly agree this makes the moire that cameras see.

    Args:
        image: (256, 256, 3) 0..1.
        rng: of all draws.

    Returns:
        The same shape.
    """
    out = _grey_mixed(image, rng.uniform(0.8, 1.4))
    # What a panel shows of black and white, its white point, and how it bends tones.
    glow = rng.uniform(0.0, 0.12) * np.array([rng.uniform(0.7, 1), rng.uniform(0.85, 1), 1], np.float32)
    white = np.exp(rng.normal(0, 0.06, 3)).astype(np.float32) * rng.uniform(0.7, 1.25)
    out = glow + out.clip(0, 1) ** np.float32(np.exp(rng.normal(0, 0.25))) * (white - glow)
    if rng.random() < 0.7:
        pitch = float(np.exp(rng.uniform(np.log(0.35), np.log(1.6))))
        angle = np.deg2rad(rng.normal(0, 4))
        bend = rng.normal(0, 3e-5, 2)
        out = raster(out, pitch=pitch, depth=rng.uniform(0.1, 0.9), angle=angle, bend=bend)
    if rng.random() < 0.4:
        bands = np.sin(2 * np.pi * (np.arange(SIDE) / rng.uniform(20, 200) + rng.random()))
        out = out * (1 + rng.uniform(0.02, 0.15) * bands[:, None, None].astype(np.float32))
    if rng.random() < 0.5:
        out = out + _glare(rng) * rng.uniform(0.05, 0.5)
    if rng.random() < 0.6:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.5))
    return out.astype(np.float32)


def raster(
    image: Floats,
    *,
    pitch: float,
    depth: float,
    angle: float = 0.0,
    bend: Sequence[float] | Floats = (0.0, 0.0),
) -> Floats:
    """The stripes of a panel as a sensor samples them.

    Args:
        image: (256, 256, 3) what the panel shows.
        pitch: width of a picture element in pixels of the frame.
        depth: 0 where stripes run into each other, 1 where nothing shines between them.
        angle: between panel and sensor, radians.
        bend: what perspective and lens add, a pixel squared.

    Returns:
        The same shape; as bright in the mean.
    """
    n = SIDE * _FINE
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / _FINE
    u = (x * np.cos(angle) + y * np.sin(angle) + np.float32(bend[0]) * x * x) / pitch
    v = (y * np.cos(angle) - x * np.sin(angle) + np.float32(bend[1]) * x * y) / pitch
    rows = 0.5 + 0.5 * np.cos(2 * np.pi * v)
    channels = [
        cv2.resize(
            1 - depth * (1 - (0.5 + 0.5 * np.cos(2 * np.pi * (u - k / 3))) * (0.6 + 0.4 * rows)),
            (SIDE, SIDE),
            interpolation=cv2.INTER_AREA,
        )
        for k in range(3)
    ]
    mask = np.stack(channels, 2)
    ruled: Floats = (image * mask / mask.mean()).astype(np.float32)
    return ruled


def mosaic(image: Floats) -> Floats:
    """What a sensor with one colour a pixel (Bayer) makes of a picture, interpolated; (256, 256, 3) 0..1.

    Each colour is sampled at every second pixel only, which is what turns a panel's stripes into coloured moire.
    """
    bits = (image.clip(0, 1) * 255).astype(np.uint8)
    raw = bits[:, :, 1].copy()
    raw[0::2, 0::2], raw[1::2, 1::2] = bits[0::2, 0::2, 0], bits[1::2, 1::2, 2]
    # OpenCV names the pattern by its second row.
    found: Floats = cv2.cvtColor(raw, cv2.COLOR_BayerBG2RGB).astype(np.float32) / 255
    return found


def sheet(image: Floats, rng: Rng) -> Floats:
    """A photographic or laser print: ink's gamut, the paper's white, grain, bend and gloss; (256, 256, 3) 0..1."""
    out = _grey_mixed(image, rng.uniform(0.5, 1.1))
    white = rng.uniform(0.75, 1) * np.array([1, rng.uniform(0.94, 1), rng.uniform(0.85, 1)], np.float32)
    black = rng.uniform(0.02, 0.25)
    out = black + out.clip(0, 1) ** np.float32(np.exp(rng.normal(0, 0.2))) * (white - black)
    if rng.random() < 0.6:
        grain = _normal(np.empty((SIDE, SIDE, 1), np.float32), 1.0, rng)
        grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.5, 2))[:, :, None]
        out = out * (1 + grain / max(1e-6, float(grain.std())) * rng.uniform(0.005, 0.05))
    if rng.random() < 0.7:
        y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE - 0.5
        angle = rng.uniform(0, np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        bend = np.cos(2 * np.pi * (rng.uniform(0.3, 1.2) * along + rng.random()))
        out = out * (1 + rng.uniform(0.03, 0.25) * bend[:, :, None])
    if rng.random() < 0.4:
        out = out + _glare(rng) * rng.uniform(0.05, 0.35)
    return out.astype(np.float32)


def texture(side: int, rng: Rng) -> Image:
    """(side, side, 3) uint8 without a face: flat, gradient, noise, stripes, checks or dots."""
    style = int(rng.integers(6))
    one, other = _colour(rng), _colour(rng)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if style == 0:
        return np.full((side, side, 3), one, np.uint8)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    f = float(np.exp(rng.uniform(np.log(1), np.log(side / 2))))
    if style == 1:
        t = u - u.min()
        t /= max(1e-6, float(t.max()))
    elif style == 2:
        slope = rng.uniform(0, 2.5)
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
        radius[0, 0] = 1 / side
        spectrum = np.fft.fft2(rng.standard_normal((side, side))) / radius**slope
        t = np.fft.ifft2(spectrum).real
        t = (0.5 + 0.2 * (t - t.mean()) / max(1e-9, float(t.std()))).astype(np.float32)
    elif style == 3:
        t = 0.5 + 0.5 * np.sin(2 * np.pi * f * u)
    elif style == 4:
        t = ((np.sin(2 * np.pi * f * u) > 0) ^ (np.sin(2 * np.pi * f * v) > 0)).astype(np.float32)
    else:
        t = ((np.cos(2 * np.pi * f * u) + np.cos(2 * np.pi * f * v)) > rng.uniform(-1, 1.5)).astype(
            np.float32
        )
    mixed: Image = (one + t[:, :, None].clip(0, 1) * (other - one)).clip(0, 255).astype(np.uint8)
    return mixed


def draw_face(canvas: Image, rng: Rng) -> Floats:
    """Draw a cartoon face onto a picture of 256 pixels, in place.

    Returns:
        Its (4,) box.
    """
    r = rng.uniform(25, 55)
    cx, cy = (float(v) for v in rng.uniform(0.4, 0.6, 2) * SIDE)
    skin = _colour(rng) if rng.random() < 0.3 else np.array([235, 195, 165]) * rng.uniform(0.35, 1.08)
    line = tuple(int(v) for v in _colour(rng) * rng.uniform(0, 0.5))
    thick = max(1, int(r * rng.uniform(0.02, 0.09)))

    def ellipse(dx: float, dy: float, a: float, b: float, colour: Any, *, fill: bool = True) -> None:
        centre, axes = (int(cx + dx * r), int(cy + dy * r)), (max(1, int(a * r)), max(1, int(b * r)))
        shade = tuple(int(v) for v in np.clip(colour, 0, 255))
        if fill:
            cv2.ellipse(canvas, centre, axes, 0, 0, 360, shade, -1, cv2.LINE_AA)
        if not fill or rng.random() < 0.6:
            cv2.ellipse(canvas, centre, axes, 0, 0, 360, line, thick, cv2.LINE_AA)

    hair = _colour(rng) * rng.uniform(0, 1)
    if rng.random() < 0.7:
        ellipse(0, -0.35, rng.uniform(0.95, 1.25), rng.uniform(0.9, 1.2), hair)
    if rng.random() < 0.5:
        ellipse(0, 2.1, rng.uniform(1.1, 1.9), 1.2, _colour(rng))
    ellipse(0, 0, rng.uniform(0.8, 1), rng.uniform(0.95, 1.2), skin)
    apart, high, size = rng.uniform(0.3, 0.45), rng.uniform(-0.35, -0.1), rng.uniform(0.07, 0.24)
    for side in (-1, 1):
        ellipse(side * apart, high, size, size * rng.uniform(0.6, 1.4), (245, 245, 245))
        ellipse(side * apart, high, size * 0.5, size * 0.5, _colour(rng) * 0.4)
        if rng.random() < 0.6:
            a = (int(cx + (side * apart - size) * r), int(cy + (high - 0.28) * r))
            b = (int(cx + (side * apart + size) * r), int(cy + (high - 0.28 + rng.uniform(-0.1, 0.1)) * r))
            cv2.line(canvas, a, b, line, thick + 1, cv2.LINE_AA)
    if rng.random() < 0.7:
        ellipse(0, 0.15, 0.08, 0.14, skin * 0.85)
    mouth = (int(rng.uniform(0.2, 0.5) * r), max(1, int(rng.uniform(0.05, 0.3) * r)))
    start, end = ((0, 180) if rng.random() < 0.7 else (180, 360)) if rng.random() < 0.8 else (0, 360)
    red = (int(rng.integers(100, 230)), int(rng.integers(10, 90)), int(rng.integers(10, 90)))
    cv2.ellipse(
        canvas,
        (int(cx), int(cy + 0.5 * r)),
        mouth,
        0,
        start,
        end,
        red,
        -1 if rng.random() < 0.4 else thick,
        cv2.LINE_AA,
    )
    return np.array([cx - r, cy - r, cx + r, cy + r], np.float32)


def jittered(box: Floats, rng: Rng, amount: float) -> Floats:
    """A box moved and grown by up to a share of its side."""
    side = float(box[2] - box[0])
    dx, dy, grow = rng.uniform(-amount, amount, 3) * side
    moved: Floats = box + np.array([dx - grow / 2, dy - grow / 2, dx + grow / 2, dy + grow / 2])
    return moved.astype(np.float32)


def _beside(image: Image, box: Floats, rng: Rng) -> Image:
    """The (80, 80, 3) window of a picture that holds least of a face, out of twelve."""
    height, width = image.shape[:2]
    best, least = image, np.inf
    for _ in range(12):
        n = int(rng.uniform(0.2, 0.5) * min(height, width))
        y, x = int(rng.integers(0, height - n + 1)), int(rng.integers(0, width - n + 1))
        across = max(0.0, min(x + n, float(box[2])) - max(x, float(box[0])))
        down = max(0.0, min(y + n, float(box[3])) - max(y, float(box[1])))
        if across * down / n**2 < least:
            best, least = image[y : y + n, x : x + n], across * down / n**2
    return cv2.resize(np.ascontiguousarray(best), (CROP, CROP)).astype(np.uint8, copy=False)


def _middle(side: int) -> Floats:
    """A box whose crop of 2.7 widths is a whole square picture."""
    half = side / MARGINS[0] / 2
    return np.array([side / 2 - half, side / 2 - half, side / 2 + half, side / 2 + half], np.float32)


def _window(image: Image, rng: Rng, side: int, least: float) -> Image:
    """Any square window of a picture, of at least a share of it, resized."""
    height, width = image.shape[:2]
    n = max(8, int(min(height, width) * np.exp(rng.uniform(np.log(least), 0))))
    y, x = int(rng.integers(0, height - n + 1)), int(rng.integers(0, width - n + 1))
    method = cv2.INTER_AREA if n > side else cv2.INTER_LINEAR
    part = np.ascontiguousarray(image[y : y + n, x : x + n])
    return cv2.resize(part, (side, side), interpolation=method).astype(np.uint8, copy=False)


def _colour(rng: Rng) -> npt.NDArray[np.float64]:
    return rng.uniform(0, 255, 3)


def _normal(out: Any, spread: Any, rng: Rng) -> Floats:
    """Fill an array with noise about 0: several times as fast as ``rng`` alone."""
    cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
    mean: Any = 0
    drawn: Floats = cv2.randn(out, mean, spread)
    return drawn


def _grey_mixed(image: Floats, amount: float) -> Floats:
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    mixed: Floats = (grey[:, :, None] + np.float32(amount) * (image - grey[:, :, None])).clip(0, 1.5)
    return mixed


def _glare(rng: Rng) -> Floats:
    """A lamp or window, out of focus, (256, 256, 1) in 0..1."""
    spot: Floats = np.zeros((64, 64), np.float32)
    x, y, w, h = (int(v) for v in rng.uniform((8, 8, 2, 2), (56, 56, 20, 20)))
    if rng.random() < 0.5:
        cv2.ellipse(spot, (x, y), (w, h), float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    else:
        cv2.rectangle(spot, (x - w, y - h), (x + w, y + h), 1.0, -1)
    spot = cv2.GaussianBlur(spot, (0, 0), rng.uniform(0.5, 6))
    return cv2.resize(spot, (SIDE, SIDE))[:, :, None]
