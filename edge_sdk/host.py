"""What a host does for a device, build a bundle, and what it or the device measures; done by the floors above."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_sdk.bundle import Bundle
from edge_sdk.errors import InputError

AUTO = "auto"


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing."""


def no_scores(candidates: Sequence[Any]) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Everything that a build is asked for; :func:`build` explains it to callers.

    Attributes:
        onnx: float graph.
        target: engine, or profile of a board.
        recipe: name, path of a TOML file, or ``"auto"``.
        evaluation: folder of labelled pictures that calibration does not see.
        output: the ``.edge`` file to write.
        model: zoo name whose spec the graph follows.
        spec: TOML file of a network of the user's own, instead of ``model``.
        calibration: folder of pictures; None for a recipe that quantizes no activation.
        tflite: float TFLite file; None takes the ONNX file's neighbour.
        quantized: graph with explicit QDQ of the network fine-tuned for int8.
        waive: a reason to write the bundle even if its gate fails.
        latency_budget: of a search for mixed precision, as a share of the float network's time; None takes its default.
        report: JSON file for what quantizing each block does.
        stage: called with (stage, done, of) as the work goes on.
        scored: with ``"auto"``, called with what each recipe scored.
    """

    onnx: Path
    target: str
    recipe: str
    evaluation: Path
    output: Path
    model: str | None = None
    spec: Path | None = None
    calibration: Path | None = None
    tflite: Path | None = None
    quantized: Path | None = None
    waive: str | None = None
    latency_budget: float | None = None
    report: Path | None = None
    stage: Callable[[str, int, int], None] = field(default=no_progress, compare=False)
    scored: Callable[[Sequence[Any]], None] = field(default=no_scores, compare=False)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself (InputError), before any work begins."""
        if (self.model is None) == (self.spec is None):
            raise InputError(
                "a build needs either a model or a spec", remedy="name a zoo model, or a spec file"
            )
        if self.waive is not None and (not self.waive.strip() or not self.waive.isprintable()):
            raise InputError(
                "the waiver's reason is empty or not one line of text", remedy="say why in one line"
            )
        if str(self.output) == str(self.onnx):
            raise InputError("output and onnx are the same file", remedy="choose another output")
        if self.latency_budget is not None and not self.latency_budget > 0:
            raise InputError(
                f"the latency budget is {self.latency_budget}", remedy="give a share of float's time above 0"
            )
        if self.recipe == AUTO and self.waive is not None:
            raise InputError(
                "auto keeps what passes: nothing can be waived", remedy="name a recipe to waive its gate"
            )
        if self.recipe == AUTO and (self.report is not None or self.latency_budget is not None):
            raise InputError(
                "auto tries several recipes: it has no one report or latency budget",
                remedy="name a recipe, such as int8-mixed",
            )


def build(
    onnx: str | Path,
    *,
    model: str | None = None,
    spec: str | Path | None = None,
    target: str,
    recipe: str | Path,
    calibration: str | Path | None,
    evaluation: str | Path,
    output: str | Path,
    tflite: str | Path | None = None,
    quantized: str | Path | None = None,
    waive: str | None = None,
    latency_budget: float | None = None,
    report: str | Path | None = None,
    stage: Callable[[str, int, int], None] = no_progress,
    scored: Callable[[Sequence[Any]], None] = no_scores,
) -> Bundle:
    """Quantize a float network, compile it for a target, hold it against its float reference, and write a bundle.

    Args:
        onnx: float graph: the spec's inputs (pixels are uint8) to its raw outputs, opset 17; with ``spec``, as any tool
            exported a YOLO11- or YOLO12-style detector or a classifier.
        model: zoo name whose spec the graph follows.
        spec: of a network of the user's own, a TOML file (``docs/bring-your-own.md``); instead of ``model``.
        target: engine, or profile of a board such as ``"raspberry-pi-5"``.
        recipe: name such as ``"int8"``, or path of a TOML file; ``"auto"`` tries those that fit the target and keeps the
            fastest here that passes.
        calibration: folder of pictures; may be None for a recipe that quantizes no activation.
        evaluation: folder of labelled pictures that calibration does not see.
        output: the ``.edge`` file to write.
        tflite: float TFLite file for the tflite target; None takes the ONNX file's neighbour.
        quantized: the network fine-tuned for int8, a graph with explicit QDQ and the spec's tensors; for ``"int8-qat"``,
            which compiles it, and ``"auto"``, which then tries that too.
        waive: a reason to write the bundle even if its accuracy gate fails; it is stored, and shown at every load.
        latency_budget: with ``int8-mixed``: the search leaves blocks in float only while the network takes at most this
            share of the float network's time on the same engine (default: 1).
        report: JSON file for the noise that each block adds in int8, and for a search's steps; drawn in a PNG beside it.
        stage: called with (stage, done, of) as the work goes on.
        scored: with ``"auto"``, called with what each recipe scored (``edge_quantize.search.auto.Candidate``).

    Returns:
        The bundle that was written.

    Raises:
        InputError: a file is missing or unreadable, a graph and the spec differ, or recipe and quantized graph do not go
            together.
        CalibrationFailed: the calibration set cannot be used.
        GateFailed: accuracy fell by more than the recipe allows; its report says where; nothing is written.
        UnsupportedRecipe: the target cannot follow the recipe.
        CompileFailed: the engine's tools refused the network.
        MissingDependency: a host tool is not installed.
    """
    return run_build(
        BuildRequest(
            onnx=Path(onnx),
            target=target,
            recipe=str(recipe),
            evaluation=Path(evaluation),
            output=Path(output),
            model=model,
            spec=_path(spec),
            calibration=_path(calibration),
            tflite=_path(tflite),
            quantized=_path(quantized),
            waive=waive,
            latency_budget=latency_budget,
            report=_path(report),
            stage=stage,
            scored=scored,
        )
    )


def run_build(request: BuildRequest) -> Bundle:
    """Build what is requested; see :func:`build`."""
    floor: Any = importlib.import_module("edge_quantize.build")
    built: Bundle = floor.build(request)
    return built


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
        duration_s: seconds that the measurement takes, after warm-up; None takes the scenario's usual one.
        threads: of the engine; None as :func:`edge_sdk.load` would.

    Returns:
        An ``edge_benchmarks.report.Run``; its ``save`` writes JSON.

    Raises:
        InputError: unknown scenario, or a duration that is not positive and finite.
    """
    scenarios: Any = importlib.import_module("edge_benchmarks.scenarios")
    return scenarios.run(bundle, scenario=scenario, duration_s=duration_s, threads=threads)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
