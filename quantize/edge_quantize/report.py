"""What an evaluation found, for every task alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_sdk.spec import Task

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with how many items are done, and of how many."""

METRICS: Mapping[Task, tuple[str, ...]] = {
    "detection": ("map50", "map50_95", "precision", "recall", "f1", "accuracy", "face_recall"),
    "classification": ("accuracy", "macro_f1", "uar"),
    "liveness": ("apcer_worst", "bpcer", "acer", "d_eer", "bpcer10", "bpcer20", "bpcer100", "auc"),
}
"""What is measured of a network of each task."""

GATED: Mapping[Task, tuple[str, ...]] = {
    "detection": ("map50", "map50_95", "accuracy", "face_recall"),
    "classification": ("accuracy", "macro_f1", "uar"),
    "liveness": ("apcer_worst", "bpcer", "acer"),
}
"""What a gate can limit: figures whose thresholds are frozen. Others are taken where they are best for a network, and so
compare two networks at two places."""

CLASS_MEANS = frozenset(("map50", "map50_95", "macro_f1", "uar"))
"""Metrics that are means over classes: without pictures of one, they are means of something else."""

ERROR_RATES = frozenset(("apcer_worst", "bpcer", "acer", "d_eer", "bpcer10", "bpcer20", "bpcer100"))
"""Metrics of which less is better."""

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
        figures: of ``GATED``, those named, with each picture counted as often as its weight says: called with
            (pictures,) weights and the names.
        counts: each of ``GATED`` to the number of pictures that it rests on.
        strata: (pictures,) group of each; resampled within.
    """

    figures: Callable[[Floats, Collection[str]], Mapping[str, float]]
    counts: Mapping[str, int]
    strata: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found.

    Attributes:
        metrics: those of ``METRICS`` for the task.
        per_class: label to figures, the one that says how well the class is answered first: ``ap50`` of a detector,
            ``recall`` of a classifier, ``rejected`` of an attack species; and the number of faces.
        confusion: row: true class; column: answered class; a detector has a last one for faces that were not found; of
            a liveness network, a row for bona fide and each species, and columns bona fide and attack.
        best_confidence: of a detector, where mean F1 is greatest.
        sample: what the gate's paired intervals are made from.
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
        strata: (pictures,) group of each; resampled within, so that no group is ever empty. None for one group.
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
