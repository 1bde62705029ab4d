"""Graphs that bring their quantization: explicit QDQ, symmetric int8, made by fine-tuning (``edge_training.qat``).

TensorRT takes such a graph as it is. onnxruntime's processor kernels want the same numbers otherwise: weights stored in
8 bits, activations unsigned (signed ones ran about twice as slow as float on x86), pixels as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize.graph.check_graph import read_model
from edge_quantize.graph.index import GraphIndex, Q, attribute, copy_model
from edge_quantize.graph.uint8_input import fronts, let_in
from edge_sdk.errors import InputError

_MIDDLE = 128
"""Zero-point with which unsigned 8 bits say what signed ones say with 0."""


def check_quantized(path: Path) -> None:
    """Refuse a graph that quantizes nothing, or not in symmetric int8.

    Args:
        path: ONNX file that is known to be of the spec.

    Raises:
        InputError: naming the tensor.
    """
    remedy = "export it with python -m edge_training.qat (docs/quantization.md)"
    graph = GraphIndex(read_model(path))
    quantizers = [node for node in graph.nodes if node.op_type == Q]
    if not quantizers:
        raise InputError(f"{path} has no {Q}: it is a float graph", remedy=remedy)
    for node in quantizers:
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.dtype != np.int8 or zero.any() or node.input[1] not in graph.constants:
            raise InputError(
                f"{path}: {node.input[0]!r} is not quantized to symmetric int8 by a constant scale",
                remedy=remedy,
            )


def for_onnxruntime(model: Any) -> Any:
    """A copy for onnxruntime's kernels: int8 weights, uint8 activations, pixels as they are.

    Every number stays, but for two that become better: pixels get their own scale, and where a range of a ReLU ends,
    values up to twice as large are no longer clipped.

    Args:
        model: symmetric int8 QDQ graph, an ``onnx.ModelProto``.
    """
    import onnx
    from onnx import numpy_helper

    copy = copy_model(model)
    del copy.graph.value_info[:]  # it has the old types
    nodes, initializers = copy.graph.node, copy.graph.initializer
    for node in nodes:  # the front is found by name
        node.name = node.name or node.output[0]
    found = fronts(copy)
    graph = GraphIndex(copy)
    scales = {entry.scaled: entry.scale for entry in found}
    for node in [node for node in graph.nodes if node.op_type == Q]:
        source, made = node.input[0], node.output[0]
        if source in graph.constants:
            initializers.append(_stored(node, graph.constants))
            nodes.remove(node)
            continue
        scale, zero = graph.constants[node.input[1]], _MIDDLE
        if source in scales:
            scale, zero = np.array(scales[source], np.float32), 0
        elif graph.kind_of_maker(source) == "Relu":
            zero = 0  # then the kernel before it clips at 0, and the ReLU falls away
        names = [f"{made}_scale", f"{made}_zero_point"]
        for name, value in zip(names, (scale, np.array(zero, np.uint8)), strict=True):
            initializers.append(numpy_helper.from_array(value, name))
        for user in (node, *graph.readers[made]):
            user.input[1:] = names
    for entry in found:
        let_in(copy, entry)
    used = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in initializers if tensor.name not in used]:
        initializers.remove(tensor)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def _stored(node: Any, constants: dict[str, Any]) -> Any:
    """The int8 tensor that a QuantizeLinear makes of a weight."""
    from onnx import numpy_helper

    weight, scale = constants[node.input[0]], constants[node.input[1]]
    axis = attribute(node, "axis")
    axis = 1 if axis is None else axis
    if scale.size > 1:
        scale = scale.reshape([-1 if i == axis % weight.ndim else 1 for i in range(weight.ndim)])
    values = np.clip(np.round(weight / scale), -128, 127).astype(np.int8)
    return numpy_helper.from_array(values, node.output[0])
