"""What a run measured: percentiles, verdict, JSON and the table.

A figure is printed only if it can be known; what is not known is None here and ``null`` in JSON.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edge_benchmarks.environment import Environment
from edge_sdk.bundle import GateResult
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, to_plain

SCHEMA = 1
COLUMNS = 100
STAGES = ("preprocess", "infer", "postprocess", "end_to_end")

MIN_SAMPLES: Mapping[str, int] = {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}
"""Samples from which a percentile may be stated: MLPerf's early-stopping counts at 99 % confidence."""

_PER_MILLE = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p99.9": 999}
_PRINTED = ("p50", "p90", "p99")

MAX_BACKGROUND = 0.10
"""Share of all cores that others may take during a valid run."""


def percentiles(samples_ns: Sequence[int]) -> dict[str, float | None]:
    """Percentiles by nearest rank: values that were really measured, no outlier removed.

    Args:
        samples_ns: nanoseconds, any order.

    Returns:
        Milliseconds for each key of ``MIN_SAMPLES``; None where the samples are too few.
    """
    ranked, n = sorted(samples_ns), len(samples_ns)
    return {
        name: ranked[-(-per_mille * n // 1000) - 1] / 1e6 if n >= MIN_SAMPLES[name] else None
        for name, per_mille in _PER_MILLE.items()
    }


@dataclass(frozen=True)
class WarmUp:
    """What preceded the measurement.

    Attributes:
        seconds: it took.
        frames: it ran.
        stable: three windows in a row agreed.
    """

    seconds: float
    frames: int
    stable: bool


@dataclass(frozen=True)
class Frames:
    """What the run looked at.

    Attributes:
        origin: ``"drawn"``, or the user's folder.
        sha256: over the pixels of the set.
        distinct: pictures in the set.
        faces_drawn: mean a picture; None for the user's own.
        faces_reported: mean a frame, as the network said during the measurement.
    """

    origin: str
    sha256: str
    distinct: int
    faces_drawn: float | None
    faces_reported: float


@dataclass(frozen=True)
class Run:
    """One bundle measured once.

    Attributes:
        name: of the model.
        target: engine.
        precision: of the graph.
        bundle: path or zoo name as asked for.
        chosen: why this bundle was taken.
        sha256: identity of the bundle.
        gate: what the accuracy gate measured when the bundle was built.
        scenario: such as ``"single-stream"``.
        started: time of day, UTC.
        duration_s: seconds inside the measured frames, without warm-up.
        count: frames measured.
        latency_ms: stage to percentile to milliseconds, None where the samples are too few.
        warm_up: before it.
        frames: it looked at.
        environment: it ran in.
        notes: for people.
        samples_ns: stage to the nanoseconds of every frame, in order; only in saved files.
    """

    name: str
    target: str
    precision: str
    bundle: str
    chosen: str
    sha256: str
    gate: GateResult
    scenario: str
    started: str
    duration_s: float
    count: int
    latency_ms: Mapping[str, Mapping[str, float | None]]
    warm_up: WarmUp
    frames: Frames
    environment: Environment
    notes: tuple[str, ...] = ()
    samples_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the figures should not be quoted; what is unknown counts against them."""
        share = self.environment.background_share
        found = []
        if share is None:
            found.append("background load is unknown on this system")
        elif share > MAX_BACKGROUND:
            found.append(
                f"background load: others took {share:.0%} of all cores, at most {MAX_BACKGROUND:.0%} allowed"
            )
        if not self.gate.metrics:
            found.append("missing gate: the bundle does not say how accurate it is")
        if not self.warm_up.stable:
            found.append("UNSTABLE: latency still moved at the end of the warm-up")
        if self.count < MIN_SAMPLES["p50"]:
            found.append(f"too few samples: {self.count}, a median needs {MIN_SAMPLES['p50']}")
        return tuple(found)

    @property
    def verdict(self) -> Literal["VALID", "INVALID"]:
        """VALID if there is no reason against it."""
        return "INVALID" if self.reasons else "VALID"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single samples."""
        plain: dict[str, Any] = to_plain(replace(self, samples_ns={}))
        return {"schema": SCHEMA, "verdict": self.verdict, "reasons": list(self.reasons), **plain}

    def save(self, path: str | Path) -> None:
        """Write this run alone; see :func:`save`."""
        save([self], path)


def save(runs: Sequence[Run], path: str | Path) -> None:
    """Write runs with every sample as JSON, whole or not at all: under a temporary name, then renamed.

    Raises:
        InputError: the folder is missing, not writable or full; an older file of that name is untouched.
    """
    path = Path(path)
    plain = [{**run.to_dict(), "samples_ns": to_plain(run.samples_ns)} for run in runs]
    text = json.dumps({"schema": SCHEMA, "runs": plain}, indent=1, allow_nan=False)
    partial = path.with_name(path.name + ".partial")
    try:
        try:
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", remedy="choose a writable folder with space"
        ) from error


def read(path: str | Path) -> tuple[Run, ...]:
    """Read what :func:`save` wrote.

    Raises:
        InputError: the file cannot be read, or is not a report of this version.
    """
    remedy = "name a file that 'edge-sdk bench -o' of this version wrote"
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            raise InputError(f"{path} is not a benchmark report of schema {SCHEMA}", remedy=remedy)
        # Verdict and reasons follow from the rest: they are made again, not believed.
        derived = ("schema", "verdict", "reasons")
        return tuple(
            from_plain(Run, {k: v for k, v in run.items() if k not in derived}, f"runs[{i}]")
            for i, run in enumerate(plain["runs"])
        )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", remedy="check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError, ManifestInvalid) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a benchmark report: {error}", remedy=remedy) from error


def table(runs: Sequence[Run]) -> str:
    """Plain text of at most 100 columns; the first line of a run has name, target, precision and verdict."""
    return "\n\n".join("\n".join(_lines(run)) for run in runs)


def _lines(run: Run) -> list[str]:
    e = run.environment
    lines = [f"{run.name} {run.target} {run.precision} {run.verdict}"]
    for reason in run.reasons:
        lines += _wrap(reason)
    lines.append(f"  {run.scenario + ', ms':<22}" + "".join(f"{p:>16}" for p in _PRINTED))
    for stage in STAGES:
        cells = (_cell(run.latency_ms[stage][p], run.count) for p in _PRINTED)
        lines.append(f"  {stage.replace('_', ' '):<22}" + "".join(f"{cell:>16}" for cell in cells))
    f = run.frames
    drawn = "" if f.faces_drawn is None else f" ({f.faces_drawn:.2f} drawn)"
    lines += _wrap(
        f"frames: {run.count} in {run.duration_s:.1f} s after {run.warm_up.seconds:.1f} s of warm-up; "
        f"{f.distinct} distinct, {f.origin}, {f.sha256[:12]}; {f.faces_reported:.2f} faces a frame reported{drawn}"
    )
    lines += _wrap(
        f"machine: {_known(e.board or e.cpu)}, {_known(e.cores)} cores, {_known(e.os)}, {_known(e.kernel)}; "
        f"governor {_known(e.governor)}; load {_load(e.load_before)} before, {_load(e.load_after)} after; "
        f"others took {_share(e.background_share)} of all cores"
    )
    lines += _wrap(
        f"software: {_known(e.engine)} {_known(e.engine_version)}, {e.threads} threads, "
        f"Python {e.python}, face-edge-sdk {e.sdk}"
    )
    figures = ", ".join(
        f"{n} {m.compiled:.4f} (float {m.reference:.4f})" for n, m in run.gate.metrics.items()
    )
    lines += _wrap(f"bundle: {run.sha256[:12]}; gate: {figures or 'unknown'}")
    for note in run.notes:
        lines += _wrap(f"note: {note}")
    return lines


def _cell(value: float | None, count: int) -> str:
    return f"n/a (n={count})" if value is None else f"{value:.3f}"


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _load(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.0%}"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent="  ", subsequent_indent="    ")
