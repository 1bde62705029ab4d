"""Measuring a bundle on this device: the work is done floors above, in ``edge_benchmarks``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def bench(
    bundle: str | Path,
    *,
    scenario: str = "single-stream",
    duration_s: float | None = None,
    threads: int | None = None,
) -> Any:
    """Latency of a bundle on this device, end to end and by stage.

    Args:
        bundle: an ``.edge`` file, or a zoo name.
        scenario: ``single-stream``, ``paced``, ``multi-stream``, ``offline``, ``cold`` or ``sustained``; what each
            means, and everything else that a run may be asked, is in ``docs/benchmark-method.md``.
        duration_s: of the measurement, after warm-up; None takes the scenario's usual one.
        threads: of the engine; None as :func:`edge_sdk.load` would.

    Returns:
        An ``edge_benchmarks.report.Run``; its ``save`` writes JSON.

    Raises:
        InputError: unknown scenario, or a duration that is not positive and finite.
    """
    scenarios: Any = importlib.import_module("edge_benchmarks.scenarios")
    return scenarios.run(bundle, scenario=scenario, duration_s=duration_s, threads=threads)
