"""The accuracy gate: nothing ships that fell behind its float reference by more than the recipe allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_quantize import classification, detection, liveness
from edge_quantize.data import LabelledPicture
from edge_quantize.report import ERROR_RATES, Progress, Report
from edge_sdk.bundle import DataDigest, GateMetric, GateResult
from edge_sdk.errors import GateFailed, InputError
from edge_sdk.spec import Gate
from edge_sdk.target import Session
from edge_sdk.tasks import AnyTask, DetectionTask, LivenessTask
from edge_sdk.tensors import Array


def examine(
    session: Session,
    task: AnyTask,
    items: Sequence[LabelledPicture],
    progress: Progress = lambda done, total: None,
) -> Report:
    """Run a session over the held-out set and measure it."""
    labels = task.spec.labels
    if isinstance(task, DetectionTask):
        ranked, truths = detection.answers(session, task, items, progress)
        return detection.evaluate(ranked, truths, [item.classes for item in items], labels)
    if isinstance(task, LivenessTask):
        threshold = task.decision.threshold
        return liveness.evaluate(*liveness.scores(session, task, items, progress), threshold)
    return classification.evaluate(*classification.answers(session, task, items, progress), labels)


def check_alive(session: Session, frames: Sequence[Array]) -> None:
    """Find outputs that do not depend on the picture, before any metric is computed.

    A scale that box sides and scores share in int8 rounds every score to the same number; the metric then only says
    zero, this says which tensor.

    Args:
        session: of the compiled network.
        frames: at least two different input tensors.

    Raises:
        GateFailed: an output is constant over all frames, or not finite.
    """
    seen: dict[str, list[npt.NDArray[np.generic]]] = {t.name: [] for t in session.outputs}
    for frame in frames:
        for name, value in session.infer(frame).items():
            seen[name].append(value.copy())
    for name, values in seen.items():
        stack = np.stack(values)
        problem = None
        if not np.isfinite(stack).all():
            problem = "is not finite"
        elif float(stack.std(axis=0).max()) == 0:
            problem = f"is the same for every picture ({stack.min():g} to {stack.max():g})"
        if problem:
            raise GateFailed(
                f"output {name!r} {problem}",
                remedy="the quantization destroyed it: keep its layers in float, or calibrate on real pictures",
                report={"output": name, "problem": problem},
            )


def compare(reference: Report, compiled: Report, gate: Gate, evaluation: DataDigest) -> GateResult:
    """Hold the compiled network against the float one.

    Raises:
        InputError: the gate limits nothing that is measured of such a network.
        GateFailed: a metric fell by more than the gate allows; its report has every figure and the worst classes.
    """
    metrics = {}
    for name, max_drop in sorted(gate.max_drop.items()):
        if name not in reference.metrics:  # a recipe may hold limits for several tasks
            continue
        before, after = reference.metrics[name].value, compiled.metrics[name].value
        metrics[name] = GateMetric(round(before, 6), round(after, 6), max_drop)
    if not metrics:
        raise InputError(
            f"the recipe's gate limits {', '.join(gate.max_drop)}, none of which is measured here",
            remedy=f"limit one of {', '.join(reference.metrics)}",
        )
    failed = [
        n
        for n, m in metrics.items()
        if not (m.compiled - m.reference if n in ERROR_RATES else m.reference - m.compiled) <= m.max_drop
    ]
    if failed:
        # A class without faces in the set has no AP: NaN, which no order survives.
        drops = {
            label: drop
            for label in compiled.per_class
            if np.isfinite(drop := reference.score_of(label) - compiled.score_of(label))
        }
        worst = sorted(drops, key=lambda label: -drops[label])[:3]
        shown = ", ".join(f"{n} {metrics[n].reference:.4f} -> {metrics[n].compiled:.4f}" for n in failed)
        raise GateFailed(
            f"the gate failed: {shown}; most lost on " + ", ".join(f"{w} ({drops[w]:+.3f})" for w in worst),
            remedy="calibrate with more pictures like the device's, or use a recipe of higher precision",
            report={
                "metrics": {
                    n: {"reference": m.reference, "compiled": m.compiled, "max_drop": m.max_drop}
                    for n, m in metrics.items()
                },
                "class_drop": drops,
            },
        )
    return GateResult(evaluation, metrics)
