"""What a host does for the onnxruntime target: calibrate with the engine's own tool, write float, half or QDQ graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize.graph.activations import amax, inner
from edge_quantize.graph.blocks import in_float, of_onnx
from edge_quantize.graph.check_graph import read_model
from edge_quantize.graph.qat_import import for_onnxruntime
from edge_quantize.graph.uint8_input import Front, fronts, let_in
from edge_quantize.histogram import count_all, least_squares, spans
from edge_sdk.adapter import check_recipe, content_of, vendor_errors
from edge_sdk.errors import CompileFailed
from edge_sdk.spec import Recipe
from edge_sdk.target import Artifact, Ranges, SourceModel, Target
from edge_sdk.tensors import Array, Tensors
from edge_targets.onnxruntime.session import MODEL, check_file, import_onnxruntime

_METHODS = {"minmax": "MinMax", "mse": "MinMax", "percentile": "Percentile"}
"""A recipe's word and the tool's. Not its Entropy: of 128 bins it makes 128 levels, which leaves the whole range.
It has none of least squared error: :func:`_least_squares` cuts off what its minima and maxima hold too much."""


def check(target: Target, recipe: Recipe) -> None:
    """Raise UnsupportedRecipe for what onnxruntime's tools cannot do.

    Int8 weights alone are refused: the tool's dynamic quantization quantizes activations too, frame by frame.
    """
    check_recipe(
        target.name,
        recipe,
        precisions=("fp32", "fp16", "int8", "int8-mixed"),
        granularities=("channel", "tensor"),
        methods=(*_METHODS, "trained"),
        symmetric=(None, False, True),
        keep_float=True,
    )


def calibrate(target: Target, model: SourceModel, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
    """Run the tool's calibration over the frames.

    Returns:
        Ranges whose content is the tool's own file of ranges, as bytes: of every tensor, whatever a recipe keeps in
        float.
    """
    check(target, recipe)
    with _quantization(), tempfile.TemporaryDirectory() as folder:
        tool = _Tool(model, recipe, Path(folder))
        tool.quantize((), frames)
        if recipe.method == "mse":
            _least_squares(tool.graph, frames, tool.ranges, symmetric=bool(recipe.symmetric))
        return Ranges(target.name, tool.ranges.read_bytes())


def compile_network(target: Target, model: SourceModel, recipe: Recipe, ranges: Ranges | None) -> Artifact:
    """Float: the graph as it is. Half: its weights in float16, cast back when it is loaded. Int8: QDQ.

    What the recipe's ``keep_float`` names gets no QDQ; with trained ranges the quantized graph's own are taken. Int8
    activations are unsigned unless the recipe says symmetric, because signed ones ran about twice as slow as float on
    x86.
    """
    check(target, recipe)
    data = model.onnx.read_bytes()
    if recipe.precision == "fp16":
        data = _halve(model.onnx)
    elif recipe.trained:
        data = _trained(model)
    elif recipe.calibrated:
        found = content_of(target, ranges)
        with _quantization(), tempfile.TemporaryDirectory() as folder:
            tool = _Tool(model, recipe, Path(folder))
            tool.ranges.write_bytes(found)
            data = tool.quantize(recipe.keep_float, ())
    artifact = Artifact(
        files={MODEL: data},
        inputs=tuple(t.name for t in model.spec.inputs),
        outputs=tuple(t.name for t in model.spec.outputs),
        fingerprint={"onnxruntime": str(import_onnxruntime().__version__)},
    )
    # What a device would refuse is never written.
    check_file(artifact, CompileFailed)
    return artifact


@contextmanager
def _quantization() -> Iterator[None]:
    with vendor_errors(
        "onnxruntime", CompileFailed, "quantization failed", "check the graph with onnx.checker"
    ):
        yield


def _halve(path: Path) -> bytes:
    """The graph with float weights stored as float16; onnxruntime folds the casts when it loads the graph."""
    from onnx import TensorProto, helper, numpy_helper

    network = read_model(path)
    graph, casts = network.graph, []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    graph.node.extend([*casts, *(nodes := list(graph.node))])
    del graph.node[: len(nodes)]
    data: bytes = network.SerializeToString(deterministic=True)
    return data


def _trained(model: SourceModel) -> bytes:
    """The quantized graph in the form that the kernels want."""
    assert model.quantized is not None, "the workbench asks for it"
    with vendor_errors(
        "onnxruntime", CompileFailed, "conversion failed", "check the graph with onnx.checker"
    ):
        graph = for_onnxruntime(read_model(model.quantized))
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _of_pixels(scale: float) -> dict[str, Any]:
    """Quantization in which the integers are the pixels."""
    from onnxruntime.quantization import QuantType

    zero = np.array(0, np.uint8)
    return {"quant_type": QuantType.QUInt8, "scale": np.array(scale, np.float32), "zero_point": zero}


class _Tool:
    """onnxruntime's quantizer for one network and recipe.

    Args:
        model: the float network.
        recipe: how it is quantized.
        folder: for files; the tool reads and writes nothing else.

    Attributes:
        graph: the network as the tool prepares it, an ``onnx.ModelProto``.
        ranges: file of ranges: the tool reads it if it is there, else it calibrates and writes it.
    """

    def __init__(self, model: SourceModel, recipe: Recipe, folder: Path) -> None:
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._recipe = recipe
        self._prepared, self._quantized = folder / "prepared.onnx", folder / "quantized.onnx"
        self.ranges = folder / "ranges.json"
        read_model(model.onnx)  # the tool would follow a name to another file
        quant_pre_process(str(model.onnx), str(self._prepared), skip_symbolic_shape=True)
        self.graph = onnx.load(str(self._prepared))
        for node in self.graph.graph.node:  # exclusion is by name
            node.name = node.name or node.output[0]
        onnx.save(self.graph, str(self._prepared))
        # Pixels are unsigned: symmetric ranges are of signed values.
        self._fronts: list[Front] = [] if recipe.symmetric else fronts(self.graph)

    def quantize(self, keep_float: Sequence[str], frames: Sequence[Tensors]) -> bytes:
        """The network with QDQ.

        Args:
            keep_float: blocks or operator kinds that get none.
            frames: to calibrate on, where there is no file of ranges yet.
        """
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
            def __init__(self) -> None:
                self._items = iter(frames)

            def get_next(self) -> dict[str, Array] | None:
                frame = next(self._items, None)
                return None if frame is None else dict(frame)

        recipe = self._recipe
        stay = [op.name for op in in_float(of_onnx(self.graph), keep_float)]
        quantize_static(
            str(self._prepared),
            str(self._quantized),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=recipe.granularity == "channel",
            calibrate_method=CalibrationMethod[_METHODS[recipe.method]],
            activation_type=QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*(name for front in self._fronts for name in front.nodes), *stay],
            calibration_cache_path=str(self.ranges),
            extra_options={
                "TensorQuantOverrides": {f.scaled: [_of_pixels(f.scale)] for f in self._fronts},
                "ActivationSymmetric": bool(recipe.symmetric),
            },
        )
        made = onnx.load(str(self._quantized))
        changed = [let_in(made, front) for front in self._fronts]
        if any(changed):
            onnx.save(made, str(self._quantized))
        return self._quantized.read_bytes()


def _least_squares(network: Any, frames: Sequence[Tensors], file: Path, *, symmetric: bool) -> None:
    """Put ranges of least squared error in the place of whole ones, of what nodes compute inside the float network.

    Args:
        network: ``onnx.ModelProto``, float.
        frames: inputs by name, in order.
        file: the tool's ranges of this network; rewritten.
        symmetric: with zero in the middle.
    """
    from onnxruntime.quantization.calibrate import TensorData, load_tensors_data, save_tensors_data

    ranges = load_tensors_data(file)
    ends = {value.name for value in (*network.graph.input, *network.graph.output)}
    inside = {name: seen for name, seen in ranges.items() if name not in ends}
    whole = spans({n: (float(np.min(s.lowest)), float(np.max(s.highest))) for n, s in inside.items()})
    if symmetric:
        reached = amax(network, list(whole), frames, "mse")
        found = {name: (-top, top) for name, top in reached.items()}
    else:
        counts = count_all(inner(network, list(whole), frames), whole)
        found = {name: least_squares(counts[name], *span) for name, span in whole.items()}
    for name, (low, high) in found.items():
        ranges[name] = TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
    save_tensors_data(ranges, file)
