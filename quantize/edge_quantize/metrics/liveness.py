"""Presentation-attack-detection figures by ISO/IEC 30107-3, a picture being one presentation.

apcer       of one attack species: share of its presentations that are taken for bona fide; the worst species counts.
bpcer       share of bona fide presentations that are taken for attacks.
acer        mean of the two.
d_eer       where both are equal as the threshold moves, for the species for which that is worst.
bpcer10     bpcer at the threshold at which that species' apcer is 10 % at most; 20 and 100: 5 % and 1 %.
auc         area under the curve of all attacks together (scikit-learn).

Rates at the frozen threshold have Clopper-Pearson intervals, the others bootstrap intervals over the pictures of each
species. What the network cannot judge counts as rejected: it fails closed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edge_quantize.data import (
    BONA_FIDE,
    LabelledPicture,
    is_presentations,
    read_pictures,
    read_presentations,
)
from edge_quantize.metrics.base import Evaluator, box_of, face_inputs, first_answer
from edge_quantize.metrics.classification import sklearn_metrics
from edge_quantize.report import Floats, Metric, Progress, Report, Sample, with_intervals
from edge_sdk.errors import InputError
from edge_sdk.image import Image
from edge_sdk.per_face import LOGITS, softmax
from edge_sdk.target import Session
from edge_sdk.tasks import Task
from edge_sdk.tasks.liveness import LivenessTask
from edge_sdk.tensors import Array, Tensors

METRICS: tuple[str, ...] = ("apcer_worst", "bpcer", "acer", "d_eer", "bpcer10", "bpcer20", "bpcer100", "auc")
GATED: tuple[str, ...] = ("apcer_worst", "bpcer", "acer")
"""Those at the spec's threshold."""

_WORKING_POINTS = {"bpcer10": 0.10, "bpcer20": 0.05, "bpcer100": 0.01}


def scores(
    session: Session,
    task: LivenessTask,
    items: Sequence[LabelledPicture],
    progress: Progress = lambda done, total: None,
) -> tuple[Floats, tuple[str, ...]]:
    """Run a session over labelled faces.

    Args:
        session: the loaded network.
        task: makes its inputs and reads its outputs.
        items: pictures of one face each, with the folder that they came from.
        progress: called after each picture.

    Returns:
        (N,) scores, 1 towards bona fide, 0 where a face cannot be judged; and the folder that each came from.
    """
    found = []
    for done, (item, image) in enumerate(read_pictures(items)):
        box = box_of(item, image)
        reasons: tuple[str, ...] = ("",) if box is None else task.undecidable(image, box[None])
        inputs, _ = task.preprocess(image, "rgb", box)
        logits = first_answer(session, task.spec, inputs)[LOGITS].astype(np.float32)
        answer = task.postprocess([logits], reasons)
        found.append(0.0 if answer.reasons[0] else float(answer.scores[0]))
        progress(done + 1, len(items))
    return np.array(found), tuple(item.group for item in items)


def evaluate(found: Floats, groups: Sequence[str], threshold: float, *, seed: int = 0) -> Report:
    """Rates of a set of scores.

    Args:
        found: (N,) scores, 1 towards bona fide.
        groups: of each, ``bona_fide`` or the name of its attack species.
        threshold: bona fide from this score on.
        seed: of the bootstrap.

    Raises:
        InputError: no bona fide picture, or no attack.
    """
    names = np.array(groups)
    species = sorted(set(groups) - {BONA_FIDE})
    if not species or len(species) == len(set(groups)):
        raise InputError(
            f"the set holds {', '.join(sorted(set(groups))) or 'nothing'}: rates need bona fide pictures and attacks",
            remedy=f"give DIR/{BONA_FIDE}/* and DIR/SPECIES/*",
        )
    genuine = names == BONA_FIDE
    accepted = found >= threshold
    counts = {name: (int(accepted[names == name].sum()), int((names == name).sum())) for name in species}
    apcer = {name: passed / total for name, (passed, total) in counts.items()}
    worst = max(species, key=lambda name: apcer[name])
    turned_away = int((~accepted[genuine]).sum())

    def figures(weights: Floats) -> dict[str, float]:
        at = {
            name: float(np.average(accepted[names == name], weights=weights[names == name]))
            for name in species
        }
        rejected = float(np.average(~accepted[genuine], weights=weights[genuine]))
        curves = {name: det(found, genuine, names == name, weights) for name in species}
        eers = {name: equal_error(*curve) for name, curve in curves.items()}
        hardest = max(species, key=lambda name: eers[name])
        points = {name: bpcer_at(*curves[hardest], limit) for name, limit in _WORKING_POINTS.items()}
        area = sklearn_metrics().roc_auc_score(genuine, found, sample_weight=weights)
        worst_rate = max(at.values())
        everything = {"apcer_worst": worst_rate, "bpcer": rejected, "acer": (worst_rate + rejected) / 2}
        return {**everything, "d_eer": eers[hardest], **points, "auc": float(area)}

    kinds, which = np.unique(names, return_inverse=True)
    sizes = dict(zip(kinds.tolist(), np.bincount(which).tolist(), strict=True))
    smallest = min(size for name, size in sizes.items() if name != BONA_FIDE)

    def gated(weights: Floats, asked: Collection[str]) -> dict[str, float]:
        rates = np.bincount(which, accepted * weights) / np.bincount(which, weights)
        by_group = dict(zip(kinds.tolist(), rates.tolist(), strict=True))
        rejected = 1 - by_group.pop(BONA_FIDE)
        passed = max(by_group.values())
        found = {"apcer_worst": passed, "bpcer": rejected, "acer": (passed + rejected) / 2}
        return {name: found[name] for name in asked}

    point = figures(np.ones(len(found)))
    metrics = with_intervals(point, figures, len(found), seed, strata=groups)
    metrics["apcer_worst"] = clopper_pearson(*counts[worst])
    metrics["bpcer"] = clopper_pearson(turned_away, int(genuine.sum()))
    return Report(
        metrics={name: metrics[name] for name in METRICS},
        per_class={
            name: {
                "rejected": 1 - apcer[name],
                "faces": float(counts[name][1]),
                "apcer": apcer[name],
                "apcer_low": (interval := clopper_pearson(*counts[name])).low,
                "apcer_high": interval.high,
                "d_eer": equal_error(*det(found, genuine, names == name, np.ones(len(found)))),
            }
            for name in species
        },
        confusion=[
            [int(genuine.sum()) - turned_away, turned_away],
            *([p, t - p] for p, t in counts.values()),
        ],
        sample=Sample(
            gated,
            {
                "apcer_worst": smallest,
                "bpcer": sizes[BONA_FIDE],
                "acer": min(smallest, sizes[BONA_FIDE]),
            },
            tuple(groups),
        ),
    )


def clopper_pearson(events: int, trials: int) -> Metric:
    """A rate with its exact 95 % interval (Clopper and Pearson 1934)."""
    from scipy.stats import beta  # scikit-learn brings it

    low = float(beta.ppf(0.025, events, trials - events + 1)) if events else 0.0
    high = float(beta.ppf(0.975, events + 1, trials - events)) if events < trials else 1.0
    return Metric(events / trials, low, high)


def det(
    found: Floats, genuine: npt.NDArray[np.bool_], attack: npt.NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """(K,) apcer and (K,) bpcer at every threshold that tells scores apart, from accepting all to accepting none."""
    thresholds = np.append(np.unique(found[genuine | attack]), np.inf)
    return (
        1 - _share_below(found[attack], weights[attack], thresholds),
        _share_below(found[genuine], weights[genuine], thresholds),
    )


def equal_error(apcer: Floats, bpcer: Floats) -> float:
    """Where the curve meets its diagonal, between the two thresholds that lie on either side of it."""
    after = int(np.argmax(bpcer >= apcer))
    if after == 0 or bpcer[after] == apcer[after]:
        return float(bpcer[after])
    gap_before, gap_after = (apcer - bpcer)[after - 1], (bpcer - apcer)[after]
    share = gap_before / (gap_before + gap_after)
    return float(bpcer[after - 1] + share * (bpcer[after] - bpcer[after - 1]))


def bpcer_at(apcer: Floats, bpcer: Floats, limit: float) -> float:
    """The least bpcer at which apcer is ``limit`` at most."""
    return float(bpcer[apcer <= limit].min())


def threshold_at(found: Floats, groups: Sequence[str], limit: float) -> float:
    """The least threshold at which no species passes more often than ``limit``, halfway to the score below it.

    Args:
        found: (N,) scores, 1 towards bona fide, of a development set.
        groups: of each, ``bona_fide`` or the name of its attack species.
        limit: apcer of the worst species.

    Raises:
        InputError: no attack, or none of the scores is high enough.
    """
    names = np.array(groups)
    species = sorted(set(groups) - {BONA_FIDE})
    if not species:
        raise InputError("the set holds no attack", remedy=f"give DIR/{BONA_FIDE}/* and DIR/SPECIES/*")
    candidates = np.unique(found)
    # Counted, not one less the share below: rounding would cost a step where a rate equals its limit.
    attacks = [np.sort(found[names == s]) for s in species]
    passing = [(len(a) - np.searchsorted(a, candidates)) / len(a) for a in attacks]
    enough = np.flatnonzero(np.max(passing, axis=0) <= limit)
    if not len(enough):
        raise InputError(
            f"more than {limit:g} of a species have the highest score {candidates[-1]:g}",
            remedy="train longer, or allow a higher rate",
        )
    first = int(enough[0])
    return float(candidates[max(0, first - 1) : first + 1].mean())


def _share_below(values: Floats, weights: Floats, thresholds: Floats) -> Floats:
    order = np.argsort(values)
    passed = np.append(0.0, np.cumsum(weights[order]))
    shares: Floats = passed[np.searchsorted(values[order], thresholds, side="left")] / passed[-1]
    return shares


class LivenessEvaluator:
    """See :class:`edge_quantize.metrics.base.Evaluator`."""

    metrics = METRICS
    gated = GATED
    class_means = frozenset[str]()

    def is_labelled(self, folder: Path, labels: Sequence[str]) -> bool:
        """A folder of bona fide pictures beside those of attacks."""
        return is_presentations(folder)

    def read_labelled(self, folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
        """A folder of bona fide pictures, and one per attack species."""
        return read_presentations(folder, labels)

    def examine(
        self,
        session: Session,
        task: Task,
        items: Sequence[LabelledPicture],
        progress: Progress = lambda done, total: None,
    ) -> Report:
        """Measure how many attacks pass and how many bona fide faces do not."""
        judge = _judge(task)
        return evaluate(*scores(session, judge, items, progress), judge.head.threshold)

    def calibration_inputs(
        self, task: Task, item: LabelledPicture, image: Image, reference: Session
    ) -> tuple[Tensors, list[float]]:
        """The face and its surroundings, and the shorter side of its box."""
        return face_inputs(task, item, image)

    def answered(self, task: Task, outputs: Tensors) -> dict[str, Array]:
        """``scores``: probabilities, (N, 2)."""
        return {"scores": softmax(outputs[LOGITS].reshape(-1, len(task.spec.labels)).astype(np.float32))}


def _judge(task: Task) -> LivenessTask:
    return cast(LivenessTask, task)  # which a head of this kind comes with


EVALUATOR: Evaluator = LivenessEvaluator()
