"""The accuracy gate: nothing ships that fell behind its float reference by more than the recipe allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_quantize.data import LabelledPicture
from edge_quantize.metrics import DetectionReport, Progress, answers, evaluate
from edge_sdk.bundle import DataDigest, GateMetric, GateResult
from edge_sdk.errors import GateFailed
from edge_sdk.spec import Gate
from edge_sdk.target import Session
from edge_sdk.tasks import DetectionTask
from edge_sdk.tensors import Array


def examine(
    session: Session,
    task: DetectionTask,
    items: Sequence[LabelledPicture],
    progress: Progress = lambda done, total: None,
) -> DetectionReport:
    """Run a session over the held-out set and measure it."""
    ranked, truths = answers(session, task, items, progress)
    classes = [item.classes for item in items]
    return evaluate(ranked, truths, classes, task.spec.labels)


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


def compare(
    reference: DetectionReport, compiled: DetectionReport, gate: Gate, evaluation: DataDigest
) -> GateResult:
    """Hold the compiled network against the float one.

    Raises:
        GateFailed: a metric fell by more than the gate allows; its report has every figure and the worst classes.
    """
    metrics = {}
    for name, max_drop in sorted(gate.max_drop.items()):
        before, after = reference.metrics[name].value, compiled.metrics[name].value
        metrics[name] = GateMetric(round(before, 6), round(after, 6), max_drop)
    failed = [n for n, m in metrics.items() if not m.reference - m.compiled <= m.max_drop]
    if failed:
        # A class without faces in the set has no AP: NaN, which no order survives.
        drops = {
            label: drop
            for label, figures in compiled.per_class.items()
            if np.isfinite(drop := reference.per_class[label]["ap50"] - figures["ap50"])
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
                "ap50_drop": drops,
            },
        )
    return GateResult(evaluation, metrics)
