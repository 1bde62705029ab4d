"""What an evaluation found, for every task alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with how many items are done, and of how many."""

_REPLICAS = 200


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure and its 95 % interval, as fractions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A network's answers on a held-out set, to be weighed again and again.

    Attributes:
        figures: the named ones of those that a gate can limit, with each picture counted as often as its weight says:
            called with (pictures,) weights and the names.
        counts: name of each figure that a gate can limit to the number of pictures that it rests on.
        strata: (pictures,) group of each picture; resampling draws within each group.
    """

    figures: Callable[[Floats, Collection[str]], Mapping[str, float]]
    counts: Mapping[str, int]
    strata: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found.

    Attributes:
        metrics: name to figure: those that the task's evaluator lists as its metrics.
        per_class: label to figures by name. The first says how well the class is answered, such as ``ap50`` of a
            detector, ``recall`` of a classifier, ``rejected`` of an attack species; ``faces`` is how many there were.
        confusion: one row per true class, one column per answered class. A detector has one more column, for faces that
            were not found; a liveness network a row for bona fide and each species, and two columns, bona fide and
            attack; empty where nothing is confused.
        best_confidence: of a detector, the confidence at which mean F1 is greatest.
        sample: what the gate makes its paired intervals from.
    """

    metrics: dict[str, Metric]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]
    best_confidence: float | None = None
    sample: Sample | None = field(default=None, repr=False, compare=False)

    def score_of(self, label: str) -> float:
        """How well a class is answered; NaN where the set has no face of it."""
        return next(iter(self.per_class[label].values()))


def with_intervals(
    point: Mapping[str, float],
    figures: Callable[[Floats], Mapping[str, float]],
    pictures: int,
    seed: int,
    strata: Sequence[str] | None = None,
) -> dict[str, Metric]:
    """Figures with percentile-bootstrap intervals.

    Args:
        point: the figures of the whole set.
        figures: the same figures with each picture counted as often as its weight says, (pictures,).
        pictures: how many there are; whole pictures are resampled.
        seed: of the resampling.
        strata: (pictures,) group of each picture; resampling draws within each group, so that none is ever empty. None
            for one group.
    """
    replicas: dict[str, list[float]] = {name: [] for name in point}
    for weights in resamples(strata or [""] * pictures, _REPLICAS, seed):
        for name, value in figures(weights).items():
            replicas[name].append(value)
    return {
        name: Metric(float(value), *(float(v) for v in np.nanpercentile(replicas[name], [2.5, 97.5])))
        for name, value in point.items()
    }


def resamples(strata: Sequence[str], count: int, seed: int) -> Iterator[Floats]:
    """Bootstrap resamples: how often each picture is drawn, (pictures,); as many of each stratum as it has."""
    rng = np.random.default_rng(seed)
    groups = np.unique(strata, return_inverse=True)[1]
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    for _ in range(count):
        drawn = np.concatenate([rows[rng.integers(0, len(rows), len(rows))] for rows in members])
        yield np.bincount(drawn, minlength=len(groups)).astype(float)
