"""Explicit symmetric QDQ for TensorRT: where the pairs stand, and with which scales.

What TensorRT asks of an explicitly quantized graph (its developer guide, "Working with Quantized Types"): signed 8 bit,
zero-point 0, one scale for an activation and one for each output channel of a weight; a pair of QuantizeLinear and
DequantizeLinear before every weighted operator and on the residual inputs of additions; none between a convolution and
its activation, which fuse. ``quantize_static`` of onnxruntime places pairs for onnxruntime's kernels (after every
operator, biases too), so pairs are placed here; onnxruntime only runs the network over the calibration set.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_quantize.graph.activations import QMAX, Method, amax
from edge_quantize.graph.index import (
    DQ,
    WEIGHTED,
    GraphIndex,
    Q,
    copy_model,
    make_node,
    rename_input,
    weight_axis,
)
from edge_sdk.errors import CompileFailed
from edge_sdk.tensors import Tensors


def ranges(model: Any, frames: Sequence[Tensors], method: Method = "minmax") -> dict[str, float]:
    """The largest magnitude, by :func:`amax`, of every activation that :func:`quantize` may want.

    Args:
        model: a prepared float ``onnx.ModelProto``.
        frames: calibration tensors, in order.
        method: how it is found.
    """
    return amax(model, list(_activations(GraphIndex(model), ())), frames, method)


def quantize(model: Any, ranges: Mapping[str, float], *, keep_float: Collection[str] = ()) -> Any:
    """An int8 copy of the graph, by the rules that this module begins with.

    Args:
        model: a prepared float ``onnx.ModelProto``, one input.
        ranges: from :func:`ranges` of the same model.
        keep_float: names of nodes whose inputs stay in float.

    Raises:
        CompileFailed: the calibration shows an activation that is never other than 0, or not finite.
    """
    import onnx

    model = copy_model(model)
    graph = GraphIndex(model)
    wanted = _activations(graph, keep_float)
    for tensor, readers in wanted.items():
        largest = ranges[tensor]
        if not (math.isfinite(largest) and largest > 0):
            raise CompileFailed(
                f"tensor {tensor!r} is {'always 0' if largest == 0 else largest} over the calibration set",
                remedy="calibrate on real pictures, or mend the network",
            )
        _insert_pair(model, graph, tensor, np.float32(largest / QMAX), None, readers)
    for node in graph.nodes:
        if node.op_type in WEIGHTED and node.name not in keep_float and _is_dequantized(node, wanted):
            _quantize_weight(model, graph, node)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _activations(graph: GraphIndex, keep_float: Collection[str]) -> dict[str, list[Any]]:
    """Tensor to the nodes that shall read its quantized copy."""
    wanted: dict[str, list[Any]] = {}
    for node in graph.nodes:
        if node.name in keep_float:
            continue
        if node.op_type in WEIGHTED:
            names = [name for name in node.input[:2] if name not in graph.constants]
            # A Gemm or MatMul whose constant is on the left has no output channels to scale.
            if node.op_type in ("Gemm", "MatMul") and node.input[0] in graph.constants:
                continue
        elif node.op_type == "Add" and not any(name in graph.constants for name in node.input):
            # A convolution whose output nobody else reads adds in its kernel: the other summand is read in 8 bits.
            fusing = [
                n for n in node.input if graph.kind_of_maker(n) in WEIGHTED and len(graph.readers[n]) == 1
            ]
            names = [n for n in node.input if n not in fusing] or [node.input[1]]
        else:
            continue
        for name in names:
            readers = wanted.setdefault(name, [])
            if node not in readers:
                readers.append(node)
    return wanted


def _is_dequantized(node: Any, wanted: Mapping[str, list[Any]]) -> bool:
    return any(node in readers for readers in wanted.values())


def _insert_pair(
    model: Any,
    graph: GraphIndex,
    tensor: str,
    scale: Any,
    axis: int | None,
    readers: Iterable[Any],
) -> None:
    """Put Q and DQ behind a tensor, for these readers only."""
    from onnx import numpy_helper

    scale = np.asarray(scale, np.float32)
    zero = np.zeros(scale.shape, np.int8)
    names = {part: f"{tensor}_{part}" for part in ("scale", "zero_point", "quantized", "dequantized")}
    model.graph.initializer.append(numpy_helper.from_array(scale, names["scale"]))
    model.graph.initializer.append(numpy_helper.from_array(zero, names["zero_point"]))
    along = {} if axis is None else {"axis": axis}
    both = [names["scale"], names["zero_point"]]
    for reader in readers:
        rename_input(reader, tensor, names["dequantized"])
    maker = graph.maker.get(tensor)
    place = (
        0
        if maker is None
        else next(i for i, n in enumerate(model.graph.node) if n is maker or n == maker) + 1
    )
    pair = (
        make_node(Q, [tensor, *both], [names["quantized"]], f"{tensor}_{Q}", **along),
        make_node(DQ, [names["quantized"], *both], [names["dequantized"]], f"{tensor}_{DQ}", **along),
    )
    for node in reversed(pair):
        model.graph.node.insert(place, node)


def _quantize_weight(model: Any, graph: GraphIndex, node: Any) -> None:
    """Scale a weight by its output channels.

    The weight stays in float before a pair of its own: TensorRT folds it, and not every version reads an int8 constant.
    """
    name = node.input[1]
    if name not in graph.constants or f"{name}_scale" in {t.name for t in model.graph.initializer}:
        if name in graph.constants:
            rename_input(node, name, f"{name}_dequantized")
        return
    weight = graph.constants[name]
    axis = weight_axis(node, weight.ndim)
    largest = np.abs(weight.astype(np.float32)).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    # A channel of zeros may have any scale above 0.
    scale = np.where(largest > 0, largest, 1.0) / QMAX
    _insert_pair(model, graph, name, scale, axis, [node])
