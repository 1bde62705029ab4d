"""Golden vectors: a device proves that it answers as the bundle's host did."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_sdk.bundle import Bundle, GoldenCase
from edge_sdk.errors import ChecksumMismatch
from edge_sdk.target import LoadOptions, Session, Target
from edge_sdk.tasks import Task, task_of
from edge_sdk.tensors import Array, Tensors


def load_proven(
    bundle: Bundle,
    target: Target,
    options: LoadOptions,
    *,
    verify: bool = True,
    confidence: float | None = None,
) -> tuple[Session, Task]:
    """Load a bundle into an engine and, if asked, hold it against its golden vectors.

    Each session comes with a task of its own, for a task draws every frame on the same canvas; and only once the engine
    has found that the artifact is what the spec says, for a spec may ask for much memory.

    Args:
        bundle: read and hashed.
        target: engine that shall run it.
        options: of the load.
        verify: run the golden vectors once.
        confidence: of the task; None takes the spec's.

    Raises:
        LoadFailed: the engine refused the artifact.
        ChecksumMismatch: the golden vectors fail.
    """
    manifest = bundle.manifest
    cases = bundle.golden() if verify else ()
    session = target.load(bundle.artifact, manifest.spec, options=options)
    try:
        if options.cache is not None and options.cache.problem is not None:
            session.notes = (*session.notes, options.cache.problem)
        task = task_of(manifest.spec, confidence=confidence)
        for case in cases:
            check_golden(session, task, case, manifest.golden.min_snr_db)
    except BaseException:
        session.close()
        raise
    return session, task


def golden_inputs(task: Task, case: GoldenCase) -> Tensors:
    """Every input of a golden case: made from its frame as from any other, and those that it brings."""
    made = {} if case.frame is None else task.preprocess(case.frame)[0]
    return {**made, **case.inputs}


def check_golden(session: Session, task: Task, case: GoldenCase, min_snr_db: float) -> None:
    """Raise ChecksumMismatch unless the session answers a golden case as it did when the bundle was built.

    Args:
        session: under examination.
        task: makes its inputs and reads its outputs.
        case: inputs, and the answers to them.
        min_snr_db: signal-to-noise ratio in decibels that every output must reach.
    """
    outputs = session.infer(golden_inputs(task, case))
    for name, expected in case.outputs.items():
        ratio = snr_db(expected, outputs[name])
        if not ratio >= min_snr_db:
            raise ChecksumMismatch(
                f"golden vectors fail here: output {name!r} reaches {ratio:.1f} dB, {min_snr_db:g} dB expected",
                remedy="this engine or machine computes something else than the bundle was gated for: "
                "try another target or engine version, and report it",
            )


def snr_db(expected: npt.NDArray[np.floating], actual: Array) -> float:
    """Signal-to-noise ratio in decibels; infinite for equal arrays, NaN if ``actual`` is not finite."""
    reference = expected.astype(np.float32)
    noise = float(np.square(reference - actual).sum(dtype=np.float64))
    signal = float(np.square(reference).sum(dtype=np.float64))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else math.nan
