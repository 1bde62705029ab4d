"""Random changes of a picture that leave its label true."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

FACE_SIDES = (12, 16, 24, 32, 48)
"""Sides in pixels of the faces that fer-gmenet is trained and measured on."""


def warp_face(image: Image, side: int, rng: np.random.Generator, *, strength: float = 1.0) -> Image:
    """Turn, scale, shift and mirror a square crop while resizing it to ``side``.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        side: output side in pixels.
        rng: where the draws come from.
        strength: 0 resizes only; 1 turns by up to 15 degrees, scales by 15 % and shifts by 8 %.
    """
    h, w = image.shape[:2]
    angle = rng.uniform(-15, 15) * strength
    scale = side / max(h, w) * (1 + rng.uniform(-0.15, 0.15) * strength)
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), angle, scale)
    shift = rng.uniform(-0.08, 0.08, 2) * side * strength
    matrix[:, 2] += (side / 2 - w / 2 + shift[0], side / 2 - h / 2 + shift[1])
    if strength and rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    warped = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return warped.astype(np.uint8, copy=False)


def light(image: Image, rng: np.random.Generator, *, strength: float = 1.0) -> Image:
    """Random gamma, contrast and brightness, through one lookup table; ``strength`` 0 changes nothing."""
    levels = np.linspace(0, 1, 256)
    curve = levels ** np.exp(rng.uniform(-0.4, 0.4) * strength)
    contrast, brightness = 1 + rng.uniform(-0.4, 0.35) * strength, rng.uniform(-0.15, 0.15) * strength
    curve = (curve - 0.5) * contrast + 0.5 + brightness
    return cv2.LUT(image, (curve.clip(0, 1) * 255).astype(np.uint8)).astype(np.uint8, copy=False)


def crop(face: Image, side: int, rng: np.random.Generator, *, strength: float = 1.0) -> Image:
    """Augment a training crop: turn and light it, and at times blur, cover or tint it.

    Args:
        face: (H, W) uint8, square.
        side: output side in pixels.
        rng: where the draws come from.
        strength: of all changes; 1 is the default, 0 leaves only the tint.

    Returns:
        (side, side, 3) uint8.
    """
    image = light(warp_face(face, side, rng, strength=strength), rng, strength=strength)
    if rng.random() < 0.2 * strength:
        image = blur_or_shrink(image, rng)
    if rng.random() < 0.4 * strength:
        image = erase(image, rng)
    return colourise(image, rng) if rng.random() < 0.3 else three_channels(image)


def erase(image: Image, rng: np.random.Generator) -> Image:
    """Cover one random rectangle of 4 to 20 % of the area with its own mean or noise; in place."""
    h, w = image.shape[:2]
    area = rng.uniform(0.04, 0.20) * h * w
    aspect = np.exp(rng.uniform(-0.7, 0.7))
    eh, ew = int(min(h, (area * aspect) ** 0.5)), int(min(w, (area / aspect) ** 0.5))
    y, x = rng.integers(0, h - eh + 1), rng.integers(0, w - ew + 1)
    patch = image[y : y + eh, x : x + ew]
    patch[...] = rng.integers(0, 256, patch.shape) if rng.random() < 0.5 else patch.mean()
    return image


def blur_or_shrink(image: Image, rng: np.random.Generator) -> Image:
    """Lose detail the way small sensors do: down and up again, or a Gaussian blur."""
    h, w = image.shape[:2]
    if rng.random() < 0.5:
        factor = rng.uniform(0.35, 0.9)
        small = cv2.resize(
            image, (max(8, int(w * factor)), max(8, int(h * factor))), interpolation=cv2.INTER_AREA
        )
        out = cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
    else:
        out = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    return out.astype(np.uint8, copy=False)


def shrink(image: Image, side: int) -> Image:
    """Reduce a square picture to ``side`` pixels by averaging areas; a smaller one stays as it is."""
    if side >= image.shape[0]:
        return image
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def degrade(image: Image, side: int) -> Image:
    """Make a square picture look as if its face had been ``side`` pixels wide: area down, bilinear up to its own size.

    All trainings and measurements of small faces use this degradation.
    """
    small = shrink(image, side)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def colourise(grey: Image, rng: np.random.Generator) -> Image:
    """Give a grey face a plausible skin and light tint: a gamma and a gain per channel.

    Args:
        grey: (H, W) uint8.
        rng: where the draws come from.

    Returns:
        (H, W, 3) uint8 RGB. Red stays brightest in the mid-tones and blue darkest, as in skin of every tone.
    """
    levels = np.linspace(0, 1, 256)
    warmth = rng.uniform(0.05, 0.45)
    gammas = np.array([1 - 0.6 * warmth, 1.0, 1 + 0.9 * warmth]) * np.exp(rng.uniform(-0.06, 0.06, 3))
    gains = rng.uniform(0.85, 1.08, 3)
    table = (levels[:, None] ** gammas * gains).clip(0, 1) * 255
    coloured: Image = table.astype(np.uint8)[grey]
    return coloured


def three_channels(grey: Image) -> Image:
    """(H, W) grey to (H, W, 3), the same value in each channel."""
    return np.repeat(grey[:, :, None], 3, axis=2)
