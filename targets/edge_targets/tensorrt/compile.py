"""What a host does for the tensorrt target: an ONNX graph in float32, in float16, or with explicit symmetric QDQ."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_quantize.graph.blocks import in_float, of_onnx
from edge_quantize.graph.check_graph import read_model
from edge_sdk.adapter import check_recipe, content_of, vendor_errors
from edge_sdk.errors import CompileFailed, MissingDependency
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact, Ranges, SourceModel, Target
from edge_sdk.tensors import Array, Tensors, TensorSpec
from edge_targets.tensorrt import float16, linter, qdq_placement
from edge_targets.tensorrt.prepare import prepare
from edge_targets.tensorrt.session import BUILD, MODEL, check_file


def check(target: Target, recipe: Recipe) -> None:
    """Raise UnsupportedRecipe for what TensorRT cannot do."""
    check_recipe(
        target.name,
        recipe,
        precisions=("fp32", "fp16", "int8", "int8-mixed"),
        methods=("minmax", "mse", "percentile", "entropy", "trained"),
        symmetric=(None, True),
        keep_float=True,
    )


def calibrate(target: Target, model: SourceModel, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
    """Run the float network over the frames.

    Returns:
        Ranges whose content is a dict: name of each activation that may be quantized to its largest magnitude.
    """
    check(target, recipe)
    assert recipe.method != "trained", "its graph brings its ranges"
    _import_onnx()
    with vendor_errors("tensorrt", CompileFailed, "calibration failed", "check the graph with onnx.checker"):
        graph = prepare(read_model(model.onnx))
        return Ranges(target.name, qdq_placement.ranges(graph, frames, recipe.method))


def compile_network(target: Target, model: SourceModel, recipe: Recipe, ranges: Ranges | None) -> Artifact:
    """ONNX: float32, float16 throughout, or explicit symmetric QDQ; the linter holds it to TensorRT's rules."""
    check(target, recipe)
    found = content_of(target, ranges) if recipe.calibrated else {}
    onnx = _import_onnx()
    with vendor_errors("tensorrt", CompileFailed, "conversion failed", "check the graph with onnx.checker"):
        # Trained ranges stand in a graph that is explicit QDQ already; the linter holds it to the same rules.
        source = model.quantized if recipe.trained else model.onnx
        assert source is not None, "the workbench asks for it"
        graph, kept = prepare(read_model(source)), list[str]()
        if recipe.precision == "fp16":
            float16.check_float16_range(graph, probes(model.spec))
            graph = float16.to_float16(graph)
        elif recipe.calibrated:
            kept = [op.name for op in in_float(of_onnx(graph), recipe.keep_float)]
            graph = qdq_placement.quantize(graph, found, keep_float=kept)
        if broken := linter.lint(graph, keep_float=kept):
            theirs = "place the pairs as edge_training.qat does"
            raise CompileFailed(
                f"tensorrt: {broken[0]}",
                remedy=theirs if recipe.trained else "report it with the network: this is our fault",
            )
        artifact = Artifact(
            files={
                MODEL: graph.SerializeToString(deterministic=True),
                BUILD: json.dumps({"precision": recipe.precision}).encode() + b"\n",
            },
            inputs=tuple(t.name for t in model.spec.inputs),
            outputs=tuple(t.name for t in model.spec.outputs),
            fingerprint={"onnx": str(onnx.__version__)},
        )
    # What a device would refuse is never written.
    check_file(artifact, CompileFailed)
    return artifact


def probes(spec: ModelSpec) -> list[Tensors]:
    """Inputs for a look at a network's ranges without pictures: black, white, and noise of two kinds.

    Inputs that are no pixels are zeros, ones, and noise of a standard deviation of one.
    """
    rng = np.random.default_rng(0)
    kinds = [_pixel_probes(t, rng) if t.dtype == "uint8" else _float_probes(t, rng) for t in spec.inputs]
    names = [t.name for t in spec.inputs]
    return [dict(zip(names, arrays, strict=True)) for arrays in zip(*kinds, strict=True)]


def _pixel_probes(tensor: TensorSpec, rng: np.random.Generator) -> list[Array]:
    shape = tensor.shape
    *before, height, width, channels = shape
    grid = (*before, math.ceil(height / 16), math.ceil(width / 16), channels)
    coarse = rng.integers(0, 256, grid).astype(np.uint8)
    blocks = coarse.repeat(16, -3).repeat(16, -2)[..., :height, :width, :]
    return [
        np.zeros(shape, np.uint8),
        np.full(shape, 255, np.uint8),
        rng.integers(0, 256, shape).astype(np.uint8),
        np.ascontiguousarray(blocks),
    ]


def _float_probes(tensor: TensorSpec, rng: np.random.Generator) -> list[Array]:
    noise = [rng.standard_normal(tensor.shape).astype(np.float32) for _ in range(2)]
    return [np.zeros(tensor.shape, np.float32), np.ones(tensor.shape, np.float32), *noise]


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency(
            f"onnx cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    return onnx
