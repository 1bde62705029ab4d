"""Percentiles that the samples can carry, intervals by block bootstrap, histograms.

Latencies are autocorrelated: a frame is slow when the one before it was. So what is drawn again and again is not single
frames but blocks of about a second of them (moving block bootstrap: Künsch, Annals of Statistics 17, 1989).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_SAMPLES: Mapping[str, int] = {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}
"""Samples from which a percentile may be stated: MLPerf's early-stopping counts at 99 % confidence."""

PER_MILLE: Mapping[str, int] = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p99.9": 999}

BLOCK_S = 1.0
MIN_BLOCKS = 10
"""A run has at least so many blocks: they are shorter than ``BLOCK_S`` in a run of less than ten seconds."""

SUB_BUCKETS = 32
"""Buckets of a histogram between a power of two and the next: a value is known to 3 %."""

Samples = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Percentile:
    """A measured value, and the 95 % interval of the percentile it estimates; all in milliseconds."""

    ms: float
    low: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """Counts in log-linear buckets; empty ones are left out.

    Attributes:
        lower_ns: least value of each bucket; it is ``1 / SUB_BUCKETS`` of its power of two wide, at least 1 ns.
        counts: samples in each.
    """

    lower_ns: tuple[int, ...]
    counts: tuple[int, ...]


def percentiles(
    samples_ns: npt.ArrayLike, *, duration_s: float | None = None, seed: int = 0
) -> dict[str, Percentile | None]:
    """Percentiles by nearest rank: values that were really measured, no outlier removed.

    Args:
        samples_ns: nanoseconds in the order in which they were measured.
        duration_s: wall time that they took together; None takes their sum, as in a closed loop.
        seed: of the resampling.

    Returns:
        One for each key of ``MIN_SAMPLES``; None where the samples are too few.
    """
    samples = np.asarray(samples_ns, np.int64)
    n = len(samples)
    stated = [name for name in PER_MILLE if n >= MIN_SAMPLES[name]]
    result: dict[str, Percentile | None] = dict.fromkeys(PER_MILLE)
    if not stated:
        return result
    ranks = [_rank(name, n) for name in stated]
    seconds = float(samples.sum()) / 1e9 if duration_s is None else duration_s
    drawn = resample(samples, ranks, block=block_length(n, seconds), seed=seed) / 1e6
    values = np.partition(samples, ranks)[ranks] / 1e6
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    for i, name in enumerate(stated):
        result[name] = Percentile(float(values[i]), float(low[i]), float(high[i]))
    return result


def _rank(name: str, n: int) -> int:
    """Position of a percentile among ``n`` sorted samples."""
    return -(-PER_MILLE[name] * n // 1000) - 1


def rank(name: str, n: int) -> int | None:
    """Position of a percentile among ``n`` sorted samples; None where they are too few to state it."""
    return _rank(name, n) if n >= MIN_SAMPLES[name] else None


def block_length(n: int, seconds: float) -> int:
    """Number of samples per block: about as many as a second has, at most a tenth of all.

    Args:
        n: number of samples.
        seconds: that they took together.
    """
    per_second = n / seconds * BLOCK_S if seconds > 0 else n
    return max(1, min(round(per_second), n // MIN_BLOCKS))


def resample(
    samples: npt.NDArray[np.number], ranks: Sequence[int], *, block: int, seed: int, count: int | None = None
) -> Floats:
    """Order statistics of ``count`` resamples by circular moving blocks.

    Args:
        samples: (N,) in order.
        ranks: positions among the sorted samples.
        block: samples in a block.
        seed: same seed, same blocks.
        count: None takes 1000, fewer where the samples are very many.

    Returns:
        (count, len(ranks)) float64.
    """
    n = len(samples)
    count = count or int(np.clip(20_000_000 // max(1, n), 200, 1000))
    rng = np.random.default_rng(seed)
    offsets = np.arange(block)
    result = np.empty((count, len(ranks)))
    for row in result:
        starts = rng.integers(0, n, -(-n // block))
        drawn = samples[((starts[:, None] + offsets) % n).ravel()[:n]]
        drawn.partition(ranks)
        row[:] = drawn[list(ranks)]
    return result


def resample_means(samples: npt.NDArray[np.number], *, block: int, seed: int, count: int = 1000) -> Floats:
    """Means of ``count`` resamples by circular moving blocks, (count,) float64."""
    n = len(samples)
    rng = np.random.default_rng(seed)
    # The sums of all blocks at once: a mean needs no single samples.
    padded = np.concatenate([np.zeros(1), np.cumsum(np.concatenate([samples, samples[: block - 1]]))])
    sums = padded[block:] - padded[:-block]
    drawn: Floats = sums[rng.integers(0, n, (count, -(-n // block)))].mean(axis=1) / block
    return drawn


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false alarm (Holm, Scandinavian J. of Statistics 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, p_values[i] * (len(p_values) - place)))
        adjusted[i] = least
    return adjusted


def histogram(samples_ns: npt.ArrayLike) -> Histogram:
    """Log-linear counts, as HdrHistogram keeps them: the same relative precision for short and for long times."""
    samples = np.maximum(np.asarray(samples_ns, np.int64), 0)
    # Values below SUB_BUCKETS have a bucket each, those above one per 1/SUB_BUCKETS of their power of two.
    _, exponent = np.frexp(samples.astype(np.float64))
    shift = np.maximum(exponent - 1 - (SUB_BUCKETS.bit_length() - 1), 0).astype(np.int64)
    lower, counts = np.unique((samples >> shift) << shift, return_counts=True)
    return Histogram(tuple(int(v) for v in lower), tuple(int(v) for v in counts))
