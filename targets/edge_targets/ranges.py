"""Activation ranges: of the last calibration, and those that cost least.

A search compiles one network with one calibration set many times over.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edge_sdk.tensors import Array

T = TypeVar("T")

BINS = 2048
"""Of a histogram from least to greatest value: 8 a level."""
_LEVELS = 255
_SHARES = np.linspace(0.05, 1, 39)


class LastRanges(Generic[T]):
    """What one calibration found, by everything that it depends on; a second kind takes the place of the first."""

    def __init__(self) -> None:
        self._key, self._found = "", list[T]()

    def get(self, key: str) -> T | None:
        """The ranges of exactly this key."""
        return self._found[0] if self._found and key == self._key else None

    def put(self, key: str, found: T) -> None:
        """Keep these ranges in the place of the last ones."""
        self._key, self._found = key, [found]


def key_of(network: Path, calibration: Sequence[Array], *settings: object) -> str:
    """Digest of a file, of calibration tensors in their order, and of settings."""
    total = hashlib.sha256(network.read_bytes())
    for pixels in calibration:
        total.update(hashlib.sha256(pixels.tobytes()).digest())
    total.update(repr(settings).encode())
    return total.hexdigest()


def least_squares(counts: npt.NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The part of a range, with zero in it, whose 256 levels leave the least mean squared error.

    Rounding inside costs less the shorter the range is, clipping outside more; each end is tried at 39 shares of its
    distance from zero.

    Args:
        counts: (``BINS``,) how many values lie in each even part of ``low`` to ``high``.
        low: the least value, or zero where it is above.
        high: the greatest value, or zero where it is below.
    """
    middles = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    best, found = math.inf, (low, high)
    for bottom in low * _SHARES if low < 0 else (low,):
        for top in high * _SHARES if high > 0 else (high,):
            step = (top - bottom) / _LEVELS
            zero = np.round(-bottom / step)
            rounded = ((middles / step + zero).round().clip(0, _LEVELS) - zero) * step
            error = float(counts @ (middles - rounded) ** 2)
            if error < best:
                best, found = error, (float(bottom), float(top))
    return found
