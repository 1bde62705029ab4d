"""The accuracy gate: nothing ships that was not shown to keep up with its float reference.

A metric passes if the set shows, at the gate's confidence, that it fell by at most ``max_drop``: a test of
non-inferiority, one-sided, by the bootstrap of the paired difference (whole pictures, the same resample for both
networks; Efron and Tibshirani 1993). A set on which few pictures changed cannot pretend to know more than its size
allows: n pictures may miss a change that befalls less than ``1 - (1 - confidence) ** (1 / n)`` of all pictures, about
3 / n at 95 % (Hanley and Lippman-Hand 1983), and a limit below that share cannot be shown to hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_quantize.data import LabelledPicture
from edge_quantize.metrics import error_rates, evaluator_of
from edge_quantize.report import Progress, Report, resamples
from edge_sdk.bundle import DataDigest, GateMetric, GateResult
from edge_sdk.errors import GateFailed, InputError
from edge_sdk.spec import Gate
from edge_sdk.target import Session
from edge_sdk.tasks import Task
from edge_sdk.tensors import Array, Tensors
from edge_sdk.verify import snr_db

REPLICAS = 1000
SATURATED_SHARE = 0.5
"""Of the pictures; on so many, real outputs do not reach the very same extreme."""
CLIPPED = 0.05
"""Of the float output's range, cut off on average, makes a common extreme a saturated one."""


def examine(
    session: Session,
    task: Task,
    items: Sequence[LabelledPicture],
    progress: Progress = lambda done, total: None,
) -> Report:
    """Run a session over labelled pictures and measure it, as the task's evaluator does.

    Args:
        session: the loaded network.
        task: makes its inputs and reads its outputs.
        items: as the evaluator read them.
        progress: called after each picture.
    """
    return evaluator_of(task.spec.task).examine(session, task, items, progress)


def outputs_of(session: Session, frames: Sequence[Tensors]) -> dict[str, Array]:
    """What a network answers to several frames.

    Args:
        session: the loaded network.
        frames: all inputs by name, state among them.

    Returns:
        Each output by name, (frames, ...).
    """
    seen: dict[str, list[npt.NDArray[np.generic]]] = {t.name: [] for t in session.outputs}
    for frame in frames:
        for name, value in session.infer(frame).items():
            seen[name].append(value.copy())
    return {name: np.stack(values) for name, values in seen.items()}


def check_alive(
    session: Session, frames: Sequence[Tensors], reference: Tensors | None = None
) -> dict[str, float]:
    """Find outputs that quantization destroyed, before any metric is computed.

    A scale that box sides and scores share in int8 rounds every score to the same number; ranges that are too narrow
    clip what the network is surest of. The metric then only says zero, this says which tensor.

    Args:
        session: of the compiled network.
        frames: at least two different sets of inputs by name.
        reference: what the float network answers to them, as :func:`outputs_of` gives it.

    Returns:
        Signal-to-noise ratio of each output against the reference, decibels; empty without one.

    Raises:
        GateFailed: an output is not finite, constant over all frames, or saturated.
    """
    ratios = {}
    for name, stack in outputs_of(session, frames).items():
        truth = None if reference is None else reference[name]
        problem = None
        if not np.isfinite(stack).all():
            problem = "is not finite"
        elif float(stack.std(axis=0).max()) == 0:
            problem = f"is the same for every picture ({stack.min():g} to {stack.max():g})"
        elif truth is not None:
            problem = _saturation(stack, truth)
        if problem:
            raise GateFailed(
                f"output {name!r} {problem}",
                remedy="the quantization destroyed it: keep its layers in float, or calibrate on real pictures",
                report={"output": name, "problem": problem},
            )
        if truth is not None:
            ratios[name] = snr_db(truth, stack)
    return ratios


def _saturation(stack: Array, reference: Array) -> str | None:
    """Whether pictures share an extreme that the float network goes beyond."""
    flat, truth = stack.reshape(len(stack), -1), reference.reshape(len(stack), -1)
    for end, sign in (("greatest", 1), ("least", -1)):
        ours, theirs = (sign * flat).max(1), (sign * truth).max(1)
        at_limit = ours == ours.max()
        cut = float(np.clip(theirs - ours.max(), 0, None)[at_limit].mean())
        if at_limit.mean() > SATURATED_SHARE and cut > CLIPPED * float(np.ptp(truth)):
            return (
                f"is saturated: its {end} value is {sign * ours.max():g} on {at_limit.sum()} of {len(flat)} "
                f"pictures, the float network reaches {sign * theirs.max():g}"
            )
    return None


def compare(
    reference: Report,
    compiled: Report,
    gate: Gate,
    evaluation: DataDigest,
    *,
    outputs_db: Mapping[str, float] | None = None,
    engine: str | None = None,
    waive: str | None = None,
) -> GateResult:
    """Hold the compiled network against the float one.

    Args:
        reference: of the float network.
        compiled: of the compiled one, on the same pictures in the same order.
        gate: the limits.
        evaluation: the pictures.
        outputs_db: signal-to-noise ratio of each output, for the report of a failure.
        engine: that ran the compiled network, where it is not the bundle's target.
        waive: a reason to accept what fails; it is recorded only if something does.

    Raises:
        InputError: the gate limits nothing that is measured of such a network.
        GateFailed: a metric was not shown to keep its limit; its report has every figure, the worst classes and outputs.
    """
    names = [name for name in sorted(gate.max_drop) if name in reference.metrics]
    if not names:  # a recipe may hold limits for several tasks
        raise InputError(
            f"the recipe's gate limits {', '.join(gate.max_drop)}, none of which is measured here",
            remedy=f"limit one of {', '.join(reference.metrics)}",
        )
    assert compiled.sample is not None, "made by examine"
    bounds = paired_bounds(reference, compiled, names, gate.confidence)
    metrics = {
        name: GateMetric(
            reference=round(reference.metrics[name].value, 6),
            compiled=round(compiled.metrics[name].value, 6),
            max_drop=gate.max_drop[name],
            low=round(bounds[name][0], 6),
            high=round(bounds[name][1], 6),
        )
        for name in names
    }
    counts = compiled.sample.counts
    failed = [n for n, m in metrics.items() if not passes(n, m, counts[n], gate.confidence)]
    if not failed or waive:
        return GateResult(evaluation, metrics, engine, waive if failed else None)
    # A class without faces in the set has no score: NaN, which no order survives.
    drops = {
        label: drop
        for label in compiled.per_class
        if np.isfinite(drop := reference.score_of(label) - compiled.score_of(label))
    }
    worst = [w for w in sorted(drops, key=lambda label: -drops[label])[:3] if drops[w] >= 0.0005]
    shown = (_shown(n, metrics[n], counts[n], gate.confidence) for n in failed)
    said = ["the gate failed: " + ", ".join(shown)]
    if worst:
        said.append("most lost on " + ", ".join(f"{w} ({-drops[w]:+.3f})" for w in worst))
    if outputs_db:
        noisy = sorted(outputs_db, key=outputs_db.__getitem__)[:3]
        said.append("noisiest outputs " + ", ".join(f"{n} ({outputs_db[n]:.1f} dB)" for n in noisy))
    needed = max(pictures_needed(n, metrics[n], counts[n], gate.confidence) for n in failed)
    remedy = "calibrate with more pictures like the device's, or use a recipe of higher precision"
    if math.isfinite(needed):
        least = min(counts[n] for n in failed)
        remedy = (
            f"{least} pictures cannot show that no more was lost: evaluate on about {math.ceil(needed):,} "
            "(for an error rate, of each group), or lose less"
        )
    raise GateFailed(
        "; ".join(said),
        remedy=remedy,
        report={
            "metrics": {
                n: {
                    "reference": m.reference,
                    "compiled": m.compiled,
                    "max_drop": m.max_drop,
                    "low": m.low,
                    "high": m.high,
                    "passed": n not in failed,
                }
                for n, m in metrics.items()
            },
            "class_drop": drops,
            "outputs_db": dict(outputs_db or {}),
        },
    )


def paired_bounds(
    reference: Report, compiled: Report, names: Sequence[str], confidence: float, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Lower and upper bound of each figure's ``compiled - reference``; each bound holds with ``confidence`` by itself.

    The same resamples are drawn for both networks, so that what is hard for both drops out: on 3,589 faces the standard
    error of a difference in mAP50 is 0.2 points, that of one mAP50 is 0.8.

    Args:
        reference: with its sample.
        compiled: with its sample, of the same pictures.
        names: of gated metrics.
        confidence: of each bound.
        seed: of the resampling.
    """
    before, after = reference.sample, compiled.sample
    assert before is not None
    assert after is not None
    assert before.strata == after.strata, "the same pictures"
    replicas: dict[str, list[float]] = {name: [] for name in names}
    for weights in resamples(after.strata, REPLICAS, seed):
        ours, theirs = after.figures(weights, names), before.figures(weights, names)
        for name in names:
            replicas[name].append(ours[name] - theirs[name])
    bounds = {
        name: np.percentile(replicas[name], [100 * (1 - confidence), 100 * confidence]) for name in names
    }
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def unseen(pictures: int, confidence: float) -> float:
    """The largest share of all pictures that a sample of this size may miss altogether, at this confidence."""
    return float(1 - (1 - confidence) ** (1 / pictures))


def fall(name: str, metric: GateMetric) -> tuple[float, float]:
    """By how much a metric became worse, and by how much at most: an error rate does when it rises."""
    return metric.fall(less_is_better=name in error_rates())


def passes(name: str, metric: GateMetric, pictures: int, confidence: float) -> bool:
    """Whether so many pictures show that a metric fell by no more than it may."""
    drop, bound = fall(name, metric)
    # Written so that what is no number fails.
    return all(share <= metric.max_drop for share in (drop, bound, unseen(pictures, confidence)))


def pictures_needed(name: str, metric: GateMetric, pictures: int, confidence: float) -> float:
    """About how many pictures would show that the limit holds, if the drop stays what it is; infinite if it does not."""
    drop, bound = fall(name, metric)
    if not drop < metric.max_drop:
        return math.inf
    least = math.log(1 - confidence) / math.log(1 - metric.max_drop)
    return max(least, pictures * (max(0.0, bound - drop) / (metric.max_drop - drop)) ** 2)


def _shown(name: str, metric: GateMetric, pictures: int, confidence: float) -> str:
    drop, bound = fall(name, metric)
    least = max(bound, unseen(pictures, confidence))
    lost = "lost nothing" if drop <= 0 else f"lost {100 * drop:.2f} points"
    return (
        f"{name} {metric.reference:.4f} -> {metric.compiled:.4f} on {pictures:,} pictures, {lost}, at "
        f"{100 * confidence:g} % confidence {100 * least:.2f} at most; allowed {100 * metric.max_drop:g}"
    )
