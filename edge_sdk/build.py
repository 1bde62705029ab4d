"""Building a bundle, for those who have a host: the work is done a floor above, in ``edge_quantize``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import InputError
from edge_sdk.target import engine_of

AUTO = "auto"


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
    stage: Callable[[str, int, int], None] | None = None,
    scored: Callable[[Sequence[Any]], None] | None = None,
) -> Bundle:
    """Quantize a float network, compile it for a target, hold it against its float reference, and write a bundle.

    Args:
        onnx: float graph: uint8 pixels (1, H, W, 3) in, raw head maps out, opset 17; with ``spec``, as any tool exported
            a YOLO11- or YOLO12-style detector or a classifier.
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
        scored: with ``"auto"``, called with what each recipe scored (``edge_quantize.auto.Candidate``).

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
    if (model is None) == (spec is None):
        raise InputError("a build needs either a model or a spec", remedy="name a zoo model, or a spec file")
    if waive is not None and (not waive.strip() or not waive.isprintable()):
        raise InputError("the waiver's reason is empty or not one line of text", remedy="say why in one line")
    if str(output) == str(onnx):
        raise InputError("output and onnx are the same file", remedy="choose another output")
    extra: dict[str, Any] = {} if stage is None else {"stage": stage}
    if recipe == AUTO:
        if waive is not None:
            raise InputError(
                "auto keeps what passes: nothing can be waived", remedy="name a recipe to waive its gate"
            )
        if report is not None or latency_budget is not None:
            raise InputError(
                "auto tries several recipes: it has no one report or latency budget",
                remedy="name a recipe, such as int8-mixed",
            )
        extra |= {} if scored is None else {"scored": scored}
    else:
        extra |= {"recipe": recipe, "waive": waive, "report": report}
        if latency_budget is not None:
            if not latency_budget > 0:
                raise InputError(
                    f"the latency budget is {latency_budget}", remedy="give a share of float's time above 0"
                )
            extra["latency_budget"] = latency_budget
    floor: Any = importlib.import_module(f"edge_quantize.{AUTO if recipe == AUTO else 'build'}")
    with ExitStack() as stack:
        if spec is not None:
            own: Any = importlib.import_module("edge_quantize.own")
            onnx, network = stack.enter_context(own.adapted(Path(onnx), Path(spec)))
        else:
            network = zoo.spec(str(model))
        built: Bundle = floor.build(
            onnx,
            spec=network,
            engine=engine_of(target),
            calibration=calibration,
            evaluation=evaluation,
            output=output,
            tflite=tflite,
            quantized=quantized,
            **extra,
        )
    return built
