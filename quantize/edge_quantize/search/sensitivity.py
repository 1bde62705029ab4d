"""What quantizing does to a network's answers: by each method to find ranges, and by quantizing one block at a time.

One at a time, not all but one: with the rest in float, the noise is this block's alone, and noise powers of different
blocks add up (nearly: they are independent), so that the list ranks what to leave in float. The other way round each
figure would be a small difference between two large ones. Noise and not the task's metric: some thirty pictures rank it,
while a metric needs thousands for half a point. The metric decides in the gate. Noise of the answers and not of the raw
outputs: a detector's raw maps mostly speak of cells where no face is, and what they say there reaches nobody.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_quantize import blocks
from edge_quantize.gate import outputs_of
from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import UnsupportedRecipe
from edge_sdk.spec import Method, ModelSpec, Recipe
from edge_sdk.target import FloatModel, LoadOptions, Target
from edge_sdk.tasks.classification import softmax
from edge_sdk.tasks.detection import sigmoid
from edge_sdk.tensors import Array, Tensors

Stage = Callable[[str, int, int], None]

METHODS: tuple[Method, ...] = ("minmax", "mse", "entropy")
"""Of finding ranges from calibration pictures. Not percentile: no network of the zoo was quietest by it, and
onnxruntime's tool takes 18 GB for a detector's."""

ITEMS = 32
"""Calibration pictures of a trial, and as many are looked at: ranges settle long before the recipe's count."""


@dataclass(frozen=True, slots=True)
class BlockNoise:
    """One block in int8, all others in float.

    Attributes:
        block: its path.
        operators: how many it has.
        noise: power of the answers' error relative to their own: of probabilities, and of a detector's boxes.
        outputs: power of each raw output's error relative to its own.
    """

    block: str
    operators: int
    noise: float
    outputs: Mapping[str, float]

    @property
    def snr_db(self) -> float:
        """The same as a signal-to-noise ratio in decibels; infinite without noise."""
        return -10 * math.log10(self.noise) if self.noise > 0 else math.inf


def measure(
    model: FloatModel,
    target: Target,
    recipe: Recipe,
    calibration: Sequence[Array],
    *,
    runner: Target,
    stage: Stage = lambda name, done, total: None,
    cache: EngineCache | None = None,
) -> list[BlockNoise]:
    """Every block's noise on a target's own engine, the most harmful first.

    Args:
        model: the float network.
        target: whose quantizer is looked at.
        runner: that runs what it makes: itself, or its stand-in.
        recipe: how blocks are quantized; its ``keep_float`` is ignored.
        calibration: input tensors; ``ITEMS`` of them, evenly spaced, are used.
        stage: progress.
        cache: where the result is kept, by everything that it depends on.

    Raises:
        CompileFailed: the engine's tools refused the network.
    """
    some = evenly(calibration)
    operators = blocks.of_onnx(model.onnx)
    names = blocks.names(operators)
    facts = _facts(model, target, runner, recipe, some, names)
    if cache and (known := cache.get(facts)):
        return [BlockNoise(**row) for row in json.loads(known)]
    truth = _answers(model, target, runner, float_of(recipe), (), some)
    wanted = answered(model.spec, truth)
    found = []
    for done, name in enumerate(names):
        stage("sensitivity", done, len(names))
        others = tuple(n for n in names if n != name)
        trial = dataclasses.replace(recipe, precision="int8-mixed", keep_float=others)
        answers = _answers(model, target, runner, trial, some, some)
        noise = {output: _noise(truth[output], answers[output]) for output in truth}
        harm = _harm(wanted, answered(model.spec, answers))
        found.append(BlockNoise(name, len(blocks.in_float(operators, (name,))), harm, noise))
    stage("sensitivity", len(names), len(names))
    found.sort(key=lambda row: -row.noise)
    if cache:
        cache.put(facts, json.dumps([dataclasses.asdict(row) for row in found]).encode())
    return found


def quietest(
    model: FloatModel,
    target: Target,
    recipe: Recipe,
    calibration: Sequence[Array],
    *,
    runner: Target,
    stage: Stage = lambda name, done, total: None,
) -> Recipe:
    """The recipe with the method to find ranges whose answers have least noise, of those that the target can follow.

    No method is best for all: what lies far out is rare and matters in some networks, and in others only costs levels.

    Args:
        model: the float network.
        target: whose quantizer is looked at.
        runner: that runs what it makes: itself, or its stand-in.
        recipe: of precision ``int8``; its own method wins a tie.
        calibration: all of the recipe's input tensors; answers to ``ITEMS`` of them, evenly spaced, are compared.
        stage: progress.

    Raises:
        UnsupportedRecipe: the target cannot follow the recipe by any method.
        CompileFailed: the engine's tools refused the network.
    """
    some = evenly(calibration)
    wanted = answered(model.spec, _answers(model, target, runner, float_of(recipe), (), some))
    harms: dict[Method, float] = {}
    refused: UnsupportedRecipe | None = None
    methods = (recipe.method, *(m for m in METHODS if m != recipe.method))
    for done, method in enumerate(methods):
        stage("ranges", done, len(methods))
        try:
            answers = _answers(model, target, runner, by(recipe, method), calibration, some)
        except UnsupportedRecipe as error:
            refused = refused or error
        else:
            harms[method] = _harm(wanted, answered(model.spec, answers))
    stage("ranges", len(methods), len(methods))
    if not harms:
        assert refused is not None
        raise refused
    return by(recipe, min(harms, key=lambda method: harms[method]))


def by(recipe: Recipe, method: Method) -> Recipe:
    """The recipe with another method to find ranges, which its name then says."""
    if method == recipe.method:
        return recipe
    return dataclasses.replace(recipe, name=f"{recipe.name}-{method}", method=method)


def answered(spec: ModelSpec, outputs: Tensors) -> dict[str, Array]:
    """What raw outputs of N pictures mean.

    Returns:
        ``scores``: probabilities, (N, classes), or of every cell of a detector, (N, cells, classes). Of a detector also
        ``boxes``: the distances of its boxes' sides in pixels, (N, cells, 4), times the cell's greatest score.
    """
    if spec.decode is None:
        return {"scores": softmax(outputs["logits"].reshape(-1, len(spec.labels)).astype(np.float32))}
    bins, scores, boxes = np.arange(spec.decode.bins, dtype=np.float32), [], []
    for stride in spec.decode.strides:
        logits, sides = outputs[f"cls{stride}"], outputs[f"box{stride}"]
        score = sigmoid(logits.reshape(len(logits), -1, len(spec.labels)).astype(np.float32))
        shares = softmax(sides.reshape(-1, len(bins)).astype(np.float32))
        distances = (shares @ bins * stride).reshape(*score.shape[:2], 4)
        scores.append(score)
        boxes.append(distances * score.max(2, keepdims=True))
    return {"scores": np.concatenate(scores, 1), "boxes": np.concatenate(boxes, 1)}


def float_of(recipe: Recipe) -> Recipe:
    """The recipe that leaves everything in float, with the same gate."""
    return Recipe(name="fp32", precision="fp32", calibration_items=0, gate=recipe.gate)


def evenly(calibration: Sequence[Array], count: int = ITEMS) -> list[Array]:
    """``count`` of the tensors, evenly spaced; all if there are fewer."""
    chosen = np.linspace(0, len(calibration) - 1, min(count, len(calibration))).astype(int)
    return [calibration[i] for i in chosen]


def shown(found: Sequence[BlockNoise], count: int = 3) -> str:
    """The most harmful blocks in words."""
    return ", ".join(f"{row.block} ({row.snr_db:.1f} dB)" for row in found[:count])


def _answers(
    model: FloatModel,
    target: Target,
    runner: Target,
    recipe: Recipe,
    calibration: Sequence[Array],
    frames: Sequence[Array],
) -> Tensors:
    """What the network by a recipe answers to frames."""
    artifact = target.compile(model, recipe=recipe, calibration=calibration)
    session = runner.load(artifact, model.spec, options=LoadOptions())
    try:
        return outputs_of(session, frames)
    finally:
        session.close()


def _harm(wanted: Mapping[str, Array], meant: Mapping[str, Array]) -> float:
    return float(np.mean([_noise(wanted[part], meant[part]) for part in wanted]))


def _noise(truth: Array, answer: Array) -> float:
    signal = float(np.square(truth.astype(np.float64)).sum())
    error = float(np.square(truth.astype(np.float64) - answer).sum())
    return error / max(signal, np.finfo(np.float64).tiny)


def _facts(
    model: FloatModel,
    target: Target,
    runner: Target,
    recipe: Recipe,
    calibration: Sequence[Array],
    names: Sequence[str],
) -> dict[str, str]:
    """All that a measurement depends on."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "-"

    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    files: list[Path] = [path for path in (model.onnx, model.tflite) if path is not None]
    tools = ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "ai-edge-quantizer", "face-edge-sdk")
    return {
        "what": "sensitivity 3",
        "network": " ".join(digest(path.read_bytes()) for path in files),
        "target": f"{target.name} {runner.name}",
        "recipe": f"{recipe.granularity} {recipe.method} {recipe.symmetric}",
        "pictures": digest(b"".join(hashlib.sha256(p.tobytes()).digest() for p in calibration)),
        "blocks": " ".join(names),
        "tools": " ".join(f"{tool} {installed(tool)}" for tool in tools),
    }
