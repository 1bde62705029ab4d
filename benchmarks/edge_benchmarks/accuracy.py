"""Accuracy of the measured bundle: as its gate found it when it was built, or measured now from the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_benchmarks.report import Accuracy, Figure
from edge_sdk.bundle import GateResult
from edge_sdk.model import load


def of_gate(gate: GateResult) -> Accuracy | None:
    """The gate's figures; None for a bundle that has none. The gate's intervals are of differences, not of these."""
    if not gate.metrics:
        return None
    metrics = {name: Figure(m.compiled, None, None) for name, m in gate.metrics.items()}
    return Accuracy("gate", gate.evaluation.items, gate.evaluation.sha256, metrics)


def measure(
    bundle: str | Path,
    data: Path,
    *,
    threads: int,
    device: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:
    """Measure on labelled pictures, by the same code as ``edge-sdk evaluate`` and the gate.

    Args:
        bundle: ``.edge`` file or zoo name.
        data: folder of labelled pictures.
        threads: number of threads of the engine.
        device: device that the engine must run on; None takes the usual one.
        progress: called with the number of pictures done and their total.

    Raises:
        InputError: the data are in no known layout.
        MissingDependency: the host's tools are not installed.
    """
    # They need packages that a device does not have.
    from edge_quantize.data import digest
    from edge_quantize.gate import examine
    from edge_quantize.metrics import evaluator_of

    with load(bundle, threads=threads, device=device) as model:
        items = evaluator_of(model.spec.task).read_labelled(data, model.spec.labels)
        found = examine(model.session, model.task, items, progress)
    pictures = digest([item.path for item in items])
    metrics = {name: Figure(m.value, m.low, m.high) for name, m in found.metrics.items()}
    return Accuracy("measured", pictures.items, pictures.sha256, metrics)
