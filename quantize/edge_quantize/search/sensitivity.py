"""What quantizing does to a network's answers: by each method to find ranges, and by quantizing one block at a time.

One at a time, not all but one: with the rest in float, the noise is this block's alone, and noise powers of different
blocks add up (nearly: they are independent), so that the list ranks what to leave in float. The other way round each
figure would be a small difference between two large ones. Noise and not the task's metric: some thirty pictures rank it,
while a metric needs thousands for half a point. The metric decides in the gate. Noise of the answers and not of the raw
outputs: a detector's raw maps mostly speak of cells where no face is, and what they say there reaches nobody. What
outputs mean is the evaluator's to say.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_quantize.gate import outputs_of
from edge_quantize.graph import blocks
from edge_quantize.recipe import by_method, float_of
from edge_quantize.workbench import Workbench, runner_of
from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import UnsupportedRecipe
from edge_sdk.spec import Method, Recipe
from edge_sdk.target import Artifact, Target
from edge_sdk.tensors import Array, Tensors

METHODS: tuple[Method, ...] = ("minmax", "mse", "entropy")
"""Methods of finding ranges from calibration pictures. Not percentile: no network of the zoo was quietest by it, and
onnxruntime's tool takes 18 GB for a detector's."""

ITEMS = 32
"""Frames that a trial calibrates on, and whose answers are compared: ranges settle long before the recipe's count."""


@dataclass(frozen=True, slots=True)
class BlockNoise:
    """One block in int8, all others in float.

    Attributes:
        block: path of its module.
        operators: how many it has.
        noise: power of the answers' error divided by the power of the answers, the mean over their parts, such as
            probabilities and boxes.
        outputs: name of each raw output to the power of its error divided by its own.
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
    bench: Workbench, target: Target, recipe: Recipe, *, cache: EngineCache | None = None
) -> list[BlockNoise]:
    """Every block's noise on a target's own engine, the most harmful first.

    Args:
        bench: the network and its pictures, of which ``ITEMS`` frames, evenly spaced, are used.
        target: whose quantizer is looked at.
        recipe: how blocks are quantized; its ``keep_float`` is ignored.
        cache: where the result is kept, by everything that it depends on.

    Raises:
        CompileFailed: the engine's tools refused the network.
    """
    some = bench.frames(recipe, ITEMS)
    operators = blocks.of_onnx(bench.model.onnx)
    names = blocks.names(operators)
    facts = _facts(bench, target, recipe, some, names)
    if cache and (known := cache.get(facts)):
        return [BlockNoise(**row) for row in json.loads(known)]
    truth = _outputs(bench, target, bench.compile(target, float_of(recipe)), some)
    wanted = bench.evaluator.answered(bench.task, truth)
    found = []
    for done, name in enumerate(names):
        bench.stage("sensitivity", done, len(names))
        others = tuple(n for n in names if n != name)
        trial = dataclasses.replace(recipe, precision="int8-mixed", keep_float=others)
        outputs = _outputs(bench, target, bench.compile(target, trial, items=ITEMS), some)
        noise = {output: _noise(truth[output], outputs[output]) for output in truth}
        harm = _harm(wanted, bench.evaluator.answered(bench.task, outputs))
        found.append(BlockNoise(name, len(blocks.in_float(operators, (name,))), harm, noise))
    bench.stage("sensitivity", len(names), len(names))
    found.sort(key=lambda row: -row.noise)
    if cache:
        cache.put(facts, json.dumps([dataclasses.asdict(row) for row in found]).encode())
    return found


def quietest(bench: Workbench, target: Target, recipe: Recipe) -> tuple[Recipe, Artifact]:
    """The method to find ranges whose answers have least noise, of those that the target can follow.

    No method is best for all: what lies far out is rare and matters in some networks, and in others only costs levels.

    Args:
        bench: the network and its pictures. Ranges are made from all that the recipe calibrates on; the answers to
            ``ITEMS`` of these, evenly spaced, are compared.
        target: whose quantizer is looked at.
        recipe: of precision ``int8``; its own method wins a tie.

    Returns:
        The recipe by that method, and what the target compiled by it.

    Raises:
        UnsupportedRecipe: the target cannot follow the recipe by any method.
        CompileFailed: the engine's tools refused the network.
    """
    some = bench.frames(recipe, ITEMS)
    truth = _outputs(bench, target, bench.compile(target, float_of(recipe)), some)
    wanted = bench.evaluator.answered(bench.task, truth)
    best: tuple[float, Recipe, Artifact] | None = None
    refused: UnsupportedRecipe | None = None
    methods = (recipe.method, *(m for m in METHODS if m != recipe.method))
    for done, method in enumerate(methods):
        bench.stage("ranges", done, len(methods))
        trial = by_method(recipe, method)
        try:
            artifact = bench.compile(target, trial)
        except UnsupportedRecipe as error:
            refused = refused or error
            continue
        outputs = _outputs(bench, target, artifact, some)
        harm = _harm(wanted, bench.evaluator.answered(bench.task, outputs))
        if best is None or harm < best[0]:
            best = harm, trial, artifact
    bench.stage("ranges", len(methods), len(methods))
    if best is None:
        assert refused is not None
        raise refused
    return best[1], best[2]


def shown(found: Sequence[BlockNoise], count: int = 3) -> str:
    """The most harmful blocks in words."""
    return ", ".join(f"{row.block} ({row.snr_db:.1f} dB)" for row in found[:count])


def _outputs(bench: Workbench, target: Target, artifact: Artifact, frames: Sequence[Tensors]) -> Tensors:
    """What a compiled network answers to frames, each output (frames, ...)."""
    session = bench.load(target, artifact)
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
    bench: Workbench, target: Target, recipe: Recipe, frames: Sequence[Tensors], names: Sequence[str]
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

    files: list[Path] = [p for p in (bench.model.onnx, bench.model.tflite) if p is not None]
    tools = ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "ai-edge-quantizer", "face-edge-sdk")
    return {
        "what": "sensitivity 4",
        "network": " ".join(digest(path.read_bytes()) for path in files),
        "target": f"{target.name} {runner_of(target).name}",
        "recipe": f"{recipe.granularity} {recipe.method} {recipe.symmetric}",
        "pictures": digest(
            b"".join(hashlib.sha256(f[n].tobytes()).digest() for f in frames for n in sorted(f))
        ),
        "blocks": " ".join(names),
        "tools": " ".join(f"{tool} {installed(tool)}" for tool in tools),
    }
