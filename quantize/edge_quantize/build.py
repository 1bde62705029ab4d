"""From a float network to a bundle: calibrate, compile, gate, write; nothing is written before the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_quantize.data import (
    LabelledPicture,
    calibration_pictures,
    calibration_tensors,
    digest,
    read_labelled,
    sha256,
)
from edge_quantize.gate import check_alive, compare, examine
from edge_quantize.recipe import read_recipe
from edge_quantize.report import Report
from edge_sdk import __version__
from edge_sdk.bundle import Bundle, DataDigest, GoldenCase
from edge_sdk.errors import CalibrationFailed, InputError
from edge_sdk.image import Image, read_image
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import FloatModel, LoadOptions, Target, find_target, is_installed, stand_in
from edge_sdk.tasks import AnyTask, task_of
from edge_sdk.tensors import Array

Stage = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and of how much."""

MIN_GOLDEN_SNR_DB = 20.0
"""Engines on other processors round differently: 35 dB and more was seen for the same network, below 12 dB for swapped
colours."""

REFERENCE_RECIPE = "fp32"
REFERENCE_TARGET = "onnxruntime"


def _silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Reference:
    """The float network's figures on a held-out set, so that several builds measure it once."""

    evaluation: DataDigest
    report: Report


def build(
    onnx: str | Path,
    *,
    spec: ModelSpec,
    engine: str,
    recipe: str | Path,
    calibration: str | Path | None,
    evaluation: str | Path,
    output: str | Path,
    tflite: str | Path | None = None,
    stage: Stage = _silent,
    reference: Reference | None = None,
) -> Bundle:
    """Quantize, compile, gate and write one bundle.

    Args:
        onnx: float graph with the spec's tensors.
        spec: of the network.
        engine: name of the target.
        recipe: name, or path of a TOML file.
        calibration: folder of pictures; not needed for float.
        evaluation: folder of labelled pictures that calibration does not see.
        output: file to write.
        tflite: float TFLite file, which the tflite target compiles; None takes the ONNX file's neighbour.
        stage: progress.
        reference: from an earlier build of the same network with the same evaluation set.

    Raises:
        InputError: a file is missing, or graph and spec differ.
        CalibrationFailed: the calibration set cannot be used.
        CompileFailed: the engine's tools refused the network.
        GateFailed: accuracy fell by more than the recipe allows; nothing is written.
    """
    target = find_target(engine)
    settings = read_recipe(recipe)
    if not Path(output).absolute().parent.is_dir():
        raise InputError(f"no folder for {output}", remedy="make it first: nothing was built")
    model = _float_model(Path(onnx), None if tflite is None else Path(tflite), spec)
    check_graph(model)
    task = task_of(spec)
    stage("read", 0, 1)
    items = read_labelled(Path(evaluation), spec.labels)
    evaluation_digest = digest([item.path for item in items])
    tensors, calibration_digest = _calibrate(settings, calibration, task, items)
    stage("read", 1, 1)
    stage("compile", 0, 1)
    artifact = target.compile(model, recipe=settings, calibration=tensors)
    stage("compile", 1, 1)
    if reference is None or reference.evaluation != evaluation_digest:
        reference = measure_reference(model, task, Path(evaluation), stage)
    runner = _runner(target)
    session = runner.load(artifact, spec, options=LoadOptions())
    try:
        probes = [task.preprocess(read_image(item.path))[0].copy() for item in items[:: _step(items)]]
        check_alive(session, [*probes, task.preprocess(golden_frame())[0].copy()])
        compiled = examine(session, task, items, lambda d, t: stage("gate: compiled", d, t))
        result = compare(reference.report, compiled, settings.gate, evaluation_digest)
        pixels, _ = task.preprocess(golden_frame())
        outputs = {n: v.astype(np.float16) for n, v in session.infer(pixels).items()}
    finally:
        session.close()
    if runner is not target:
        result = replace(result, engine=runner.name)
    bundle = Bundle.create(
        producer=f"face-edge-sdk {__version__}",
        spec=spec,
        recipe=settings,
        target=target.name,
        artifact=artifact,
        calibration=calibration_digest,
        gate=result,
        golden=(GoldenCase(golden_frame(), outputs),),
        min_snr_db=MIN_GOLDEN_SNR_DB,
    )
    stage("write", 0, 1)
    bundle.write(output)
    stage("write", 1, 1)
    return bundle


def _runner(target: Target) -> Target:
    """Who runs the artifact for the gate: its own engine, or where that is not here, its stand-in."""
    other = stand_in(target)
    return target if other is None or is_installed(target) else other


def measure_reference(
    model: FloatModel, task: AnyTask, evaluation: Path, stage: Stage = _silent
) -> Reference:
    """Examine the float graph in onnxruntime."""
    items = read_labelled(evaluation, model.spec.labels)
    target: Target = find_target(REFERENCE_TARGET)
    artifact = target.compile(model, recipe=read_recipe(REFERENCE_RECIPE), calibration=())
    session = target.load(artifact, model.spec, options=LoadOptions())
    try:
        report = examine(session, task, items, lambda d, t: stage("gate: float", d, t))
    finally:
        session.close()
    return Reference(digest([item.path for item in items]), report)


def check_graph(model: FloatModel) -> None:
    """Compare the ONNX graph's inputs and outputs with the spec.

    Raises:
        InputError: a tensor is missing or has another shape or type.
    """
    import onnx

    try:
        graph = onnx.load(str(model.onnx), load_external_data=False).graph
    except Exception as error:  # protobuf's and onnx's own errors share no base class
        raise InputError(f"{model.onnx} is not an ONNX file: {error}", remedy="export it again") from error
    found = {}
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        found[value.name] = (shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
    for tensor in (model.spec.input, *model.spec.outputs):
        if found.get(tensor.name) != (tensor.shape, tensor.dtype):
            raise InputError(
                f"{model.onnx}: the spec wants tensor {tensor.name!r} {tensor.dtype} {tensor.shape}, "
                f"the graph has {found.get(tensor.name, 'none of this name')}",
                remedy="export it with fixed shapes, uint8 pixels in and one raw map an output",
            )


def golden_frame() -> Image:
    """A drawn test card, 240x180: gradients of three different colours, and two cartoon faces.

    Drawn, not photographed, so that every bundle can carry it; asymmetric in colour and place, so that swapped
    channels, a mirrored picture or a shifted letterbox change the answer.
    """
    height, width = 180, 240
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack((x * 255 // width, y * 200 // height, 255 - (x + y) * 255 // (width + height)), 2)
    for cx, cy, r, tone in ((80, 80, 52, (224, 172, 140)), (185, 125, 34, (120, 84, 60))):
        for part_x, part_y, part_w, part_h, colour in (
            (0, 0, 0.8, 1.0, tone),
            (-0.32, -0.25, 0.14, 0.09, (250, 250, 250)),
            (0.32, -0.25, 0.14, 0.09, (250, 250, 250)),
            (-0.32, -0.25, 0.06, 0.07, (20, 20, 30)),
            (0.32, -0.25, 0.06, 0.07, (20, 20, 30)),
            (0, 0.1, 0.09, 0.16, tuple(c * 4 // 5 for c in tone)),
            (0, 0.5, 0.3, 0.12, (150, 40, 50)),
        ):
            inside = ((x - cx - part_x * r) / (part_w * r)) ** 2 + (
                (y - cy - part_y * r) / (part_h * r)
            ) ** 2 <= 1
            frame[inside] = colour
    return frame.astype(np.uint8)


def _step(items: object) -> int:
    return max(1, len(items) // 8)  # type: ignore[arg-type]


def _float_model(onnx: Path, tflite: Path | None, spec: ModelSpec) -> FloatModel:
    if not onnx.is_file():
        raise InputError(f"no ONNX file {onnx}", remedy="check the path")
    if tflite is None and onnx.with_suffix(".tflite").is_file():
        tflite = onnx.with_suffix(".tflite")
    if tflite is not None and not tflite.is_file():
        raise InputError(f"no TFLite file {tflite}", remedy="check the path")
    return FloatModel(spec, onnx, tflite)


def _calibrate(
    recipe: Recipe, calibration: str | Path | None, task: AnyTask, held_out: Sequence[LabelledPicture]
) -> tuple[list[Array], DataDigest | None]:
    if recipe.calibration_items == 0:
        return [], None
    if calibration is None:
        raise InputError(
            f"recipe {recipe.name} needs calibration pictures",
            remedy="give --calibration a folder of pictures like the device's",
        )
    chosen = calibration_pictures(Path(calibration), recipe.calibration_items)
    seen = {sha256(item.path): item.path for item in held_out}
    if both := [(path, seen[found]) for path in chosen if (found := sha256(path)) in seen]:
        ours, theirs = both[0]
        raise CalibrationFailed(
            f"{len(both)} of {len(chosen)} calibration pictures are in the evaluation set too, such as {ours} "
            f"({theirs}): the gate would measure what the ranges were made from",
            remedy="calibrate on other pictures than those the gate holds out",
        )
    return calibration_tensors(chosen, task), digest(chosen)
