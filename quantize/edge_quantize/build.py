"""From a float network to a bundle: calibrate, compile, gate, write; nothing is written before the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_quantize import diagnosis, mixed
from edge_quantize.calibration import CalibrationSet, calibration_set
from edge_quantize.data import check_classes, digest, read_labelled
from edge_quantize.gate import check_alive, compare, examine, outputs_of
from edge_quantize.recipe import read_recipe
from edge_quantize.report import CLASS_MEANS, Report
from edge_quantize.trained import check_quantized
from edge_sdk import __version__
from edge_sdk.bundle import Bundle, DataDigest, GoldenCase
from edge_sdk.errors import CompileFailed, InputError, LoadFailed
from edge_sdk.image import Image, read_image
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import (
    Artifact,
    FloatModel,
    LoadOptions,
    Session,
    Target,
    find_target,
    is_installed,
    stand_in,
)
from edge_sdk.tasks import task_of
from edge_sdk.tensors import Array

Stage = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and of how much."""

MIN_GOLDEN_SNR_DB = 20.0
"""Engines on other processors round differently: 35 dB and more was seen for the same network, below 12 dB for swapped
colours."""

REFERENCE_RECIPE = "fp32"
REFERENCE_TARGET = "onnxruntime"
_KNOWN_DOMAINS = ("com.microsoft", "ai.onnx.ml")
"""Beside ONNX's own: a float graph may hold what onnxruntime's optimizers made."""


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Reference:
    """The float network on a held-out set, so that several builds measure it once.

    Attributes:
        evaluation: the set.
        report: the network's figures.
        probes: what it answers to a few of the pictures and the golden frame, (frames, ...) each output.
    """

    evaluation: DataDigest
    report: Report
    probes: Mapping[str, Array]


class Workbench:
    """A float network with the pictures that calibrate and gate it: read and measured once, for any number of bundles.

    Args:
        onnx: float graph with the spec's tensors.
        spec: of the network.
        calibration: folder of pictures; not needed for what quantizes no activation.
        evaluation: folder of labelled pictures that calibration does not see.
        tflite: float TFLite file, which the tflite target compiles; None takes the ONNX file's neighbour.
        quantized: graph with explicit QDQ of the same network, fine-tuned for int8; recipes with trained ranges compile
            it, and are gated against the float graph as all others are.
        stage: progress.
        reference: from an earlier build of the same network with the same evaluation set.

    Attributes:
        model: the float network.
        task: that surrounds it.
        items: the held-out pictures.
        evaluation: their digest.

    Raises:
        InputError: a file is missing, a graph and the spec differ, no target could compile a graph, or the quantized one
            is not quantized.
    """

    def __init__(
        self,
        onnx: str | Path,
        *,
        spec: ModelSpec,
        calibration: str | Path | None,
        evaluation: str | Path,
        tflite: str | Path | None = None,
        quantized: str | Path | None = None,
        stage: Stage = silent,
        reference: Reference | None = None,
    ) -> None:
        self.model = _float_model(Path(onnx), None if tflite is None else Path(tflite), spec)
        check_graph(self.model)
        if quantized is not None:
            graph = _existing(Path(quantized))
            check_graph(dataclasses.replace(self.model, onnx=graph))
            check_quantized(graph)
            self.model = dataclasses.replace(self.model, quantized=graph)
        self.task, self.stage = task_of(spec), stage
        stage("read", 0, 1)
        self.items = read_labelled(Path(evaluation), spec.labels)
        self.evaluation = digest([item.path for item in self.items])
        self._folders = (calibration, Path(evaluation))
        self._sets: dict[int, CalibrationSet | None] = {}
        known = reference is not None and reference.evaluation == self.evaluation
        self._reference = reference if known else None
        stage("read", 1, 1)

    @property
    def reference(self) -> Reference:
        """The float network's figures, measured when they are first asked for."""
        if self._reference is None:
            with float_session(self.model) as session:
                report = examine(session, self.task, self.items, lambda d, t: self.stage("gate: float", d, t))
                probes = outputs_of(session, self.probes())
            self._reference = Reference(self.evaluation, report, probes)
        return self._reference

    def calibration(self, recipe: Recipe) -> CalibrationSet | None:
        """The set that a recipe calibrates on; None where it calibrates nothing; see :func:`calibration_set`."""
        count = recipe.calibration_items
        if count not in self._sets:
            with float_session(self.model) as session:
                self._sets[count] = calibration_set(self._folders[0], recipe, self.task, self.items, session)
        return self._sets[count]

    def tensors(self, recipe: Recipe) -> Sequence[Array]:
        """Of the set that a recipe calibrates on; none where it calibrates nothing."""
        chosen = self.calibration(recipe)
        return chosen.tensors if chosen else ()

    def probes(self) -> list[Array]:
        """Input tensors of a few held-out pictures and of the golden frame."""
        some = self.items[:: max(1, len(self.items) // 8)]
        frames = [*(read_image(item.path) for item in some), golden_frame()]
        return [self.task.preprocess(frame)[0].copy() for frame in frames]

    def compile(self, target: Target, recipe: Recipe) -> Artifact:
        """The network as a target runs it by a recipe, not gated yet."""
        if recipe.trained and self.model.quantized is None:
            raise InputError(
                f"recipe {recipe.name} compiles a network that was fine-tuned for int8, and none was given",
                remedy="name it with --quantized (docs/quantization.md), or use recipe int8",
            )
        calibration = self.tensors(recipe)
        self.stage("compile", 0, 1)
        artifact = target.compile(self.model, recipe=recipe, calibration=calibration)
        self.stage("compile", 1, 1)
        return artifact

    def load(self, target: Target, artifact: Artifact) -> Session:
        """A session of what was just compiled; an engine that refuses it makes the compilation a failure."""
        try:
            return runner_of(target).load(artifact, self.model.spec, options=LoadOptions())
        except LoadFailed as error:
            raise CompileFailed(
                error.message, remedy="use another recipe or target for this network"
            ) from error

    def runner(self, target: Target) -> Target:
        """Who runs what a target makes; see :func:`runner_of`."""
        return runner_of(target)

    def bundle(self, target: Target, recipe: Recipe, *, waive: str | None = None) -> Bundle:
        """Compile and gate one bundle; it is not written.

        Args:
            target: to compile for.
            recipe: to compile by.
            waive: a reason to accept a bundle whose accuracy gate fails; it travels in the bundle. An output that is
                constant, saturated or not finite is no question of accuracy and cannot be waived.

        Raises:
            InputError: the gate limits a mean over classes, and the held-out set lacks one; or the recipe has trained
                ranges, and there is no quantized graph.
            CalibrationFailed: the calibration set cannot be used.
            UnsupportedRecipe: the target cannot follow the recipe.
            CompileFailed: the engine's tools refused the network.
            GateFailed: accuracy was not shown to have fallen by no more than the recipe allows.
        """
        spec = self.model.spec
        if CLASS_MEANS & set(recipe.gate.max_drop):
            check_classes(self.items, spec.labels, self._folders[1])
        artifact = self.compile(target, recipe)
        reference = self.reference
        session = self.load(target, artifact)
        try:
            ratios = check_alive(session, self.probes(), reference.probes)
            compiled = examine(
                session, self.task, self.items, lambda d, t: self.stage("gate: compiled", d, t)
            )
            result = compare(
                reference.report,
                compiled,
                recipe.gate,
                self.evaluation,
                outputs_db=ratios,
                engine=None if (runner := runner_of(target)) is target else runner.name,
                waive=waive,
            )
            pixels, _ = self.task.preprocess(golden_frame())
            outputs = {n: v.astype(np.float16) for n, v in session.infer(pixels).items()}
        finally:
            session.close()
        chosen = self.calibration(recipe)
        return Bundle.create(
            producer=f"face-edge-sdk {__version__}",
            spec=spec,
            recipe=recipe,
            target=target.name,
            artifact=artifact,
            calibration=chosen.digest if chosen else None,
            gate=result,
            golden=(GoldenCase(golden_frame(), outputs),),
            min_snr_db=MIN_GOLDEN_SNR_DB,
        )

    def write(self, bundle: Bundle, output: str | Path) -> None:
        """Write a bundle, whole or not at all."""
        self.stage("write", 0, 1)
        bundle.write(output)
        self.stage("write", 1, 1)


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
    quantized: str | Path | None = None,
    waive: str | None = None,
    latency_budget: float = mixed.BUDGET,
    report: str | Path | None = None,
    stage: Stage = silent,
    reference: Reference | None = None,
) -> Bundle:
    """Quantize, compile, gate and write one bundle.

    Args:
        onnx: float graph with the spec's tensors.
        spec: of the network.
        engine: name of the target.
        recipe: name, or path of a TOML file.
        calibration: folder of pictures; not needed for what quantizes no activation.
        evaluation: folder of labelled pictures that calibration does not see.
        output: file to write.
        tflite: float TFLite file, which the tflite target compiles; None takes the ONNX file's neighbour.
        quantized: explicit QDQ graph of the network fine-tuned for int8, for a recipe with trained ranges and no other.
        waive: a reason to write the bundle even if its accuracy gate fails.
        latency_budget: of a search for mixed precision, as a share of the float network's time on the same engine.
        report: JSON file for what quantizing each block does and how a search went; a picture of it goes beside it.
        stage: progress.
        reference: from an earlier build of the same network with the same evaluation set.

    Raises:
        EdgeError: what :class:`Workbench` and its ``bundle`` raise; nothing is written.
    """
    target, settings = find_target(engine), read_recipe(recipe)
    if quantized is not None and not settings.trained:
        raise InputError(
            f"recipe {settings.name} quantizes the float network: a quantized graph is not for it",
            remedy="use recipe int8-qat, or leave --quantized out",
        )
    check_output(output)
    if report is not None:
        diagnosis.check(Path(report), settings)
    bench = Workbench(
        onnx,
        spec=spec,
        calibration=calibration,
        evaluation=evaluation,
        tflite=tflite,
        quantized=quantized,
        stage=stage,
        reference=reference,
    )
    found = mixed.Search(budget=latency_budget)
    try:
        bundle = mixed.bundle(bench, target, settings, waive=waive, found=found)
    finally:
        # Also, and above all, when the gate fails.
        if report is not None:
            diagnosis.write(bench, target, settings, found, Path(report))
    bench.write(bundle, output)
    return bundle


def check_output(output: str | Path) -> None:
    """Refuse a file that could not be written in the end (InputError)."""
    if not Path(output).absolute().parent.is_dir():
        raise InputError(f"no folder for {output}", remedy="make it first: nothing was built")


def runner_of(target: Target) -> Target:
    """Who runs the artifact for the gate: its own engine, or where that is not here, its stand-in."""
    other = stand_in(target)
    return target if other is None or is_installed(target) else other


@contextmanager
def float_session(model: FloatModel) -> Iterator[Session]:
    """The float graph in onnxruntime: the reference."""
    target: Target = find_target(REFERENCE_TARGET)
    artifact = target.compile(model, recipe=read_recipe(REFERENCE_RECIPE), calibration=())
    session = target.load(artifact, model.spec, options=LoadOptions())
    try:
        yield session
    finally:
        session.close()


def check_graph(model: FloatModel) -> None:
    """Refuse a graph that is not the spec's, or that no target could compile.

    Raises:
        InputError: naming the tensor or node: a missing tensor, another shape or type, a dynamic shape, a weight that
            is not finite, an operator that ONNX does not define, an opset from the future, or weights in another file.
    """
    import onnx

    remedy = "export it with fixed shapes, uint8 pixels in and one raw map an output, opset 17"
    try:
        loaded = onnx.load(str(model.onnx), load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own errors share no base class
        raise InputError(f"{model.onnx} is not an ONNX file: {error}", remedy="export it again") from error
    graph = loaded.graph
    found = {}
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in kind.shape.dim
        )
        found[value.name] = (shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
    for tensor in (model.spec.input, *model.spec.outputs):
        if tensor.name not in found:
            problem = f"the graph has {', '.join(sorted(found))}"
        elif any(isinstance(size, str) for size in found[tensor.name][0]):
            problem = f"its shape in the graph is dynamic: {found[tensor.name][0]}"
        elif found[tensor.name] != (tensor.shape, tensor.dtype):
            problem = f"the graph has {found[tensor.name]}"
        else:
            continue
        raise InputError(
            f"{model.onnx}: the spec wants tensor {tensor.name!r} {tensor.dtype} {tensor.shape}, {problem}",
            remedy=remedy,
        )
    opsets = {entry.domain or "ai.onnx": entry.version for entry in loaded.opset_import}
    if opsets.get("ai.onnx", 1) > (newest := onnx.defs.onnx_opset_version()):
        raise InputError(
            f"{model.onnx} has opset {opsets['ai.onnx']}, newer than the {newest} that is known here",
            remedy=remedy,
        )
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, opsets.get("ai.onnx", 1), domain) and domain not in _KNOWN_DOMAINS:
            raise InputError(
                f"{model.onnx}: node {node.name or node.output[0]!r} is a {node.domain or 'ai.onnx'}.{node.op_type}, "
                "which ONNX does not define",
                remedy="export it with standard operators, or cut it off: nothing custom runs on a device",
            )
    for weight in graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(
                f"{model.onnx}: weight {weight.name!r} lies in another file",
                remedy="export with external_data=False",
            )
        if not np.isfinite(onnx.numpy_helper.to_array(weight)).all():
            raise InputError(
                f"{model.onnx}: weight {weight.name!r} holds a value that is not finite",
                remedy="the training diverged or the export is damaged: export from a good checkpoint",
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


def _float_model(onnx: Path, tflite: Path | None, spec: ModelSpec) -> FloatModel:
    _existing(onnx)
    if tflite is None and onnx.with_suffix(".tflite").is_file():
        tflite = onnx.with_suffix(".tflite")
    if tflite is not None and not tflite.is_file():
        raise InputError(f"no TFLite file {tflite}", remedy="check the path")
    return FloatModel(spec, onnx, tflite)


def _existing(onnx: Path) -> Path:
    if not onnx.is_file():
        raise InputError(f"no ONNX file {onnx}", remedy="check the path")
    return onnx
