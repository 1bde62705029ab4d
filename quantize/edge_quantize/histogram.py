"""Histograms of what a network computes, and the part of a range that 8 bits had better hold."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_sdk.tensors import Array

Name = TypeVar("Name", bound=Hashable)

BINS = 2048
"""Between the least and the greatest value: 8 for each of the 256 levels of int8."""


def spans(extremes: Mapping[Name, tuple[float, float]]) -> dict[Name, tuple[float, float]]:
    """Ranges with zero in them, of which a histogram can be made: not of a tensor that is all zeros or not finite."""
    whole = {name: (min(0.0, low), max(0.0, high)) for name, (low, high) in extremes.items()}
    return {name: (low, high) for name, (low, high) in whole.items() if 0 < high - low < math.inf}


def count(values: Array, low: float, high: float) -> npt.NDArray[np.int64]:
    """(``BINS``,) how many values lie in each even part of ``low`` to ``high``; what lies outside is at its end."""
    bins = ((values.ravel() - low) * (BINS / (high - low))).astype(np.int64)
    return np.bincount(bins.clip(0, BINS - 1), minlength=BINS)


def count_all(
    frames: Iterable[Mapping[Name, Array]], ranges: Mapping[Name, tuple[float, float]]
) -> dict[Name, npt.NDArray[np.int64]]:
    """Histograms of several tensors, each over its own range, of all frames together."""
    counts = {name: np.zeros(BINS, np.int64) for name in ranges}
    for values in frames:
        for name, (low, high) in ranges.items():
            counts[name] += count(values[name], low, high)
    return counts


def least_squares(
    counts: npt.NDArray[np.int64], low: float, high: float, *, levels: int = 255, shares: int = 39
) -> tuple[float, float]:
    """The part of a range, with zero in it, whose levels leave the least mean squared error.

    Rounding inside costs less the shorter the range is, clipping outside more.

    Args:
        counts: as of :func:`count`.
        low: the least value, or zero where it is above.
        high: the greatest value, or zero where it is below.
        levels: steps from end to end.
        shares: of its distance from zero, 0.05 to 1, at which each end is tried.
    """
    tried = np.linspace(0.05, 1, shares)
    middles = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    best, found = math.inf, (low, high)
    for bottom in low * tried if low < 0 else (low,):
        for top in high * tried if high > 0 else (high,):
            step = (top - bottom) / levels
            zero = np.round(-bottom / step)
            rounded = ((middles / step + zero).round().clip(0, levels) - zero) * step
            error = float(counts @ (middles - rounded) ** 2)
            if error < best:
                best, found = error, (float(bottom), float(top))
    return found
