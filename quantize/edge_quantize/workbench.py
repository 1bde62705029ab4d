"""A float network with the pictures that calibrate and gate it: read and measured once, for any number of bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edge_quantize.calibration import CalibrationSet, calibration_set, evenly
from edge_quantize.data import check_classes, digest
from edge_quantize.gate import check_alive, compare, examine, outputs_of
from edge_quantize.golden import golden_cases, golden_frame
from edge_quantize.graph.check_graph import check_graph
from edge_quantize.graph.qat_import import check_quantized
from edge_quantize.metrics import evaluator_of
from edge_quantize.recipe import read_recipe
from edge_quantize.report import Report
from edge_sdk import __version__
from edge_sdk.bundle import MIN_GOLDEN_SNR_DB, Bundle, DataDigest
from edge_sdk.errors import CompileFailed, InputError, LoadFailed
from edge_sdk.host import no_progress
from edge_sdk.image import read_image
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.state import State
from edge_sdk.target import (
    Artifact,
    LoadOptions,
    Ranges,
    Session,
    SourceModel,
    Target,
    find_target,
    is_installed,
    stand_in_of,
)
from edge_sdk.tasks import task_of
from edge_sdk.tensors import Array, Tensors

Stage = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and of how much."""

REFERENCE_RECIPE = "fp32"
REFERENCE_TARGET = "onnxruntime"


@dataclass(frozen=True)
class Reference:
    """The float network on a held-out set, so that several builds measure it once.

    Attributes:
        evaluation: the set.
        report: the network's figures.
        probes: what it answers to :meth:`Workbench.probes`: each output by name, (frames, ...).
    """

    evaluation: DataDigest
    report: Report
    probes: Mapping[str, Array]


class Workbench:
    """A float network with the pictures that calibrate and gate it.

    Args:
        model: the float network, as :func:`source_model` checks it. If it brings a quantized graph, recipes with
            trained ranges compile that one, and are gated against the float graph as all others are.
        calibration: folder of pictures; not needed for what quantizes no activation.
        evaluation: folder of labelled pictures that calibration does not see.
        stage: progress.
        reference: from an earlier build of the same network with the same evaluation set.

    Attributes:
        model: the float network.
        task: makes its inputs and reads its outputs.
        evaluator: of that task.
        items: the held-out pictures.
        evaluation: their digest.
        stage: progress.

    Raises:
        InputError: the held-out set is missing or labelled wrongly.
    """

    def __init__(
        self,
        model: SourceModel,
        *,
        calibration: Path | None,
        evaluation: Path,
        stage: Stage = no_progress,
        reference: Reference | None = None,
    ) -> None:
        spec = model.spec
        self.model, self.task, self.stage = model, task_of(spec), stage
        self.evaluator = evaluator_of(spec.task)
        stage("read", 0, 1)
        self.items = self.evaluator.read_labelled(evaluation, spec.labels)
        self.evaluation = digest([item.path for item in self.items])
        self._calibration, self._evaluation = calibration, evaluation
        self._sets: dict[int, CalibrationSet | None] = {}
        self._ranges: dict[tuple[object, ...], Ranges] = {}
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
                chosen = calibration_set(self._calibration, recipe, self.task, self.items, session)
            self._sets[count] = chosen
        return self._sets[count]

    def frames(self, recipe: Recipe, items: int | None = None) -> list[Tensors]:
        """What a recipe calibrates on.

        Args:
            recipe: says how many pictures.
            items: how many of the frames, evenly spaced; None takes all.

        Returns:
            All inputs of each frame by name, state among them; none where the recipe calibrates nothing.
        """
        chosen = self.calibration(recipe)
        frames = [] if chosen is None else list(chosen.frames)
        return frames if items is None else evenly(frames, items)

    def ranges(self, target: Target, recipe: Recipe, *, items: int | None = None) -> Ranges | None:
        """The ranges of activations that a target finds by a recipe: found once, however many recipes share them.

        Args:
            target: that calibrates.
            recipe: says by which method, and on how many pictures.
            items: on how many of the frames, evenly spaced; None takes all.

        Returns:
            The ranges; None where the recipe calibrates nothing.

        Raises:
            UnsupportedRecipe: the target cannot follow the recipe.
            CalibrationFailed: the calibration set cannot be used.
            CompileFailed: the engine's tools refused the network.
        """
        frames = self.frames(recipe, items)
        if not frames:
            return None
        how = (recipe.method, recipe.symmetric, recipe.granularity)
        key = (target.name, *how, recipe.calibration_items, len(frames))
        if key not in self._ranges:
            self._ranges[key] = target.calibrate(self.model, recipe=recipe, frames=frames)
        return self._ranges[key]

    def probes(self) -> list[Tensors]:
        """Inputs by name of a few held-out pictures and of the golden frame; state is zeros, as at the start."""
        some = self.items[:: max(1, len(self.items) // 8)]
        frames = [*(read_image(item.path) for item in some), golden_frame()]
        return [self._without_past(self.task.preprocess(frame)[0]) for frame in frames]

    def _without_past(self, inputs: Tensors) -> Tensors:
        return {**{name: array.copy() for name, array in inputs.items()}, **State(self.model.spec).tensors}

    def compile(self, target: Target, recipe: Recipe, *, items: int | None = None) -> Artifact:
        """The network as a target runs it by a recipe, not gated yet.

        Args:
            target: to compile for.
            recipe: to compile by.
            items: frames to calibrate on, evenly spaced; None takes all of the recipe's.

        Raises:
            InputError: the recipe has trained ranges, and there is no quantized graph.
            CalibrationFailed: the calibration set cannot be used.
            UnsupportedRecipe: the target cannot follow the recipe.
            CompileFailed: the engine's tools refused the network.
        """
        if recipe.trained and self.model.quantized is None:
            raise InputError(
                f"recipe {recipe.name} compiles a network that was fine-tuned for int8, and none was given",
                remedy="name it with --quantized (docs/quantization.md), or use recipe int8",
            )
        return target.compile(self.model, recipe=recipe, ranges=self.ranges(target, recipe, items=items))

    def load(self, target: Target, artifact: Artifact) -> Session:
        """A session of what was just compiled; an engine that refuses it makes the compilation a failure."""
        try:
            return runner_of(target).load(artifact, self.model.spec, options=LoadOptions())
        except LoadFailed as error:
            raise CompileFailed(
                error.message, remedy="use another recipe or target for this network"
            ) from error

    def bundle(
        self, target: Target, recipe: Recipe, *, waive: str | None = None, artifact: Artifact | None = None
    ) -> Bundle:
        """Compile and gate one bundle; it is not written.

        Args:
            target: to compile for.
            recipe: to compile by.
            waive: a reason to accept a bundle whose accuracy gate fails; it travels in the bundle. An output that is
                constant, saturated or not finite is no question of accuracy and cannot be waived.
            artifact: what :meth:`compile` made for exactly these; None compiles.

        Raises:
            InputError: the gate limits a mean over classes, and the held-out set lacks one; or the recipe has trained
                ranges, and there is no quantized graph.
            CalibrationFailed: the calibration set cannot be used.
            UnsupportedRecipe: the target cannot follow the recipe.
            CompileFailed: the engine's tools refused the network, or golden cases cannot hold its outputs.
            GateFailed: accuracy was not shown to have fallen by no more than the recipe allows.
        """
        spec = self.model.spec
        if self.evaluator.class_means & set(recipe.gate.max_drop):
            check_classes(self.items, spec.labels, self._evaluation)
        if artifact is None:
            self.stage("compile", 0, 1)
            artifact = self.compile(target, recipe)
            self.stage("compile", 1, 1)
        reference, runner = self.reference, runner_of(target)
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
                engine=None if runner is target else runner.name,
                waive=waive,
            )
            golden = golden_cases(session, self.task)
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
            golden=golden,
            min_snr_db=MIN_GOLDEN_SNR_DB,
        )

    def write(self, bundle: Bundle, output: str | Path) -> None:
        """Write a bundle, whole or not at all."""
        self.stage("write", 0, 1)
        bundle.write(output)
        self.stage("write", 1, 1)


def source_model(
    spec: ModelSpec, onnx: Path, *, tflite: Path | None = None, quantized: Path | None = None
) -> SourceModel:
    """A float network by its files, which are checked.

    Args:
        spec: of the network.
        onnx: float graph with the spec's tensors.
        tflite: the same network as a float TFLite file; None takes the ONNX file's neighbour, if there is one.
        quantized: the network fine-tuned for int8, a graph with explicit QDQ and the same tensors.

    Raises:
        InputError: a file is missing, a graph and the spec differ, no target could compile a graph, or the quantized one
            is not quantized.
    """
    _check_file(onnx, "ONNX")
    neighbour = onnx.with_suffix(".tflite")
    if tflite is not None:
        _check_file(tflite, "TFLite")
    elif neighbour.is_file():
        tflite = neighbour
    model = SourceModel(spec, onnx, tflite)
    check_graph(model)
    if quantized is None:
        return model
    _check_file(quantized, "ONNX")
    check_graph(replace(model, onnx=quantized))
    check_quantized(quantized)
    return replace(model, quantized=quantized)


def runner_of(target: Target) -> Target:
    """Who runs the artifact for the gate: its own engine, or where that is not here, its stand-in."""
    other = stand_in_of(target)
    return target if other is None or is_installed(target) else other


@contextmanager
def float_session(model: SourceModel) -> Iterator[Session]:
    """The float graph in onnxruntime: the reference."""
    target = find_target(REFERENCE_TARGET)
    artifact = target.compile(model, recipe=read_recipe(REFERENCE_RECIPE))
    session = target.load(artifact, model.spec, options=LoadOptions())
    try:
        yield session
    finally:
        session.close()


def _check_file(path: Path, kind: str) -> None:
    if not path.is_file():
        raise InputError(f"no {kind} file {path}", remedy="check the path")
