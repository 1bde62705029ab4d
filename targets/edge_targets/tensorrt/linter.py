"""The rules that TensorRT holds an explicitly quantized graph to, and where a graph breaks them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_quantize.graph.index import ACTIVATIONS, DQ, WEIGHTED, GraphIndex, Q, attribute, weight_axis


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a graph breaks.

    Attributes:
        rule: name, as in :data:`RULES`.
        node: name of the node that breaks it.
        problem: what is wrong there.
    """

    rule: str
    node: str
    problem: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.rule} at {self.node}: {self.problem}"


RULES: Mapping[str, str] = {
    "pixels-cast": "8-bit pixels go into a Cast to float and nothing else: TensorRT computes nothing in uint8",
    "qdq-int8": "quantized values are signed 8 bit",
    "qdq-symmetric": "zero-points are 0",
    "qdq-scale": "scales are constants, finite and above 0",
    "qdq-pair": "what is quantized is dequantized with the same scale, and nothing else reads it",
    "qdq-activation-scalar": "an activation has one scale",
    "qdq-weight-channel": "a weight has one scale for each of its output channels",
    "qdq-half": "a weighted operator has all its inputs quantized or none",
    "qdq-fusion": "nothing stands between a weighted operator and its activation",
    "qdq-residual": "an addition reads the quantized copy of a tensor that has one",
    "qdq-output": "an output of the network is not quantized",
    "qdq-bias": "a bias stays in float",
}
"""Rule name to what it says."""


def lint(model: Any, *, keep_float: Collection[str] = ()) -> list[Finding]:
    """Where a graph breaks TensorRT's rules for pixels and explicit quantization; empty if nowhere.

    Args:
        model: an ``onnx.ModelProto``, quantized or not.
        keep_float: nodes that a recipe leaves in float on purpose.
    """
    import onnx

    graph = GraphIndex(model)
    found: list[Finding] = []

    def tell(rule: str, node: Any, problem: str) -> None:
        found.append(Finding(rule, node.name or node.op_type, problem))

    for value in model.graph.input:
        if value.type.tensor_type.elem_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8):
            for node in graph.readers[value.name]:
                if node.op_type != "Cast":
                    tell("pixels-cast", node, f"{node.op_type} reads the 8-bit input {value.name!r}")
    outputs = {value.name for value in model.graph.output}
    for node in graph.nodes:
        if node.op_type in (Q, DQ):
            for rule, problem in _pair_problems(node, graph, outputs):
                tell(rule, node, problem)
        elif node.op_type in WEIGHTED and node.name not in keep_float:
            for rule, problem in _weighted_problems(node, graph):
                tell(rule, node, problem)
        elif node.op_type == "Add" and node.name not in keep_float:
            for name in node.input:
                if any(reader.op_type == Q for reader in graph.readers[name]):
                    tell("qdq-residual", node, f"reads {name!r} in float beside its quantized copy")
    return found


def _pair_problems(node: Any, graph: GraphIndex, outputs: Collection[str]) -> Iterable[tuple[str, str]]:
    """Rules of one QuantizeLinear or DequantizeLinear."""
    scale = graph.constants.get(node.input[1])
    if scale is None:
        yield "qdq-scale", f"the scale {node.input[1]!r} is computed by the network"
        return
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "qdq-scale", f"the scale reaches from {scale.min():g} to {scale.max():g}"
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None or zero.dtype != np.int8:
        yield "qdq-int8", f"the zero-point says {'uint8' if zero is None else zero.dtype}"
    if zero is not None and zero.any():
        yield "qdq-symmetric", f"the zero-point reaches {np.abs(zero.astype(int)).max()}"
    constant = graph.is_constant(node.input[0])
    if not constant and scale.size != 1:
        yield "qdq-activation-scalar", f"{scale.size} scales for an activation"
    if node.op_type == DQ:
        if node.output[0] in outputs:
            yield "qdq-output", f"the output {node.output[0]!r} is quantized"
        for reader in graph.readers[node.output[0]]:
            if reader.op_type in WEIGHTED and node.output[0] in reader.input[2:]:
                yield "qdq-bias", f"{reader.name} reads its bias from here"
        return
    readers = graph.readers[node.output[0]]
    if node.output[0] in outputs or not readers:
        yield "qdq-pair", "nothing dequantizes it"
    for reader in readers:
        if reader.op_type != DQ:
            yield "qdq-pair", f"{reader.op_type} {reader.name} reads 8-bit values"
            continue
        theirs = graph.constants.get(reader.input[1])
        if theirs is None or not np.array_equal(theirs, scale):
            yield "qdq-pair", f"{reader.name} dequantizes with another scale"
            continue
        if graph.kind_of_maker(node.input[0]) in WEIGHTED:
            for after in graph.readers[reader.output[0]]:
                if after.op_type in ACTIVATIONS or graph.is_gate(after, reader.output[0]):
                    maker = graph.maker[node.input[0]].name
                    yield "qdq-fusion", f"stands between {maker} and its activation {after.name}"


def _weighted_problems(node: Any, graph: GraphIndex) -> Iterable[tuple[str, str]]:
    """Rules of one weighted operator."""
    quantized = [graph.kind_of_maker(name) == DQ for name in node.input[:2]]
    if any(quantized) and not all(quantized):
        yield (
            "qdq-half",
            f"reads {node.input[quantized.index(False)]!r} in float and the other input in 8 bits",
        )
    if not quantized[1]:
        return
    weight = graph.maker[node.input[1]]
    scale, value = graph.constants.get(weight.input[1]), graph.constant(weight.input[0])
    if scale is None or value is None:
        return
    axis = weight_axis(node, value.ndim)
    stated = attribute(weight, "axis")
    stated = 1 if stated is None else int(stated)
    if scale.size != value.shape[axis] or (scale.size > 1 and stated % value.ndim != axis):
        yield (
            "qdq-weight-channel",
            f"{scale.size} scales along axis {stated} for a weight {value.shape} with its output channels on {axis}",
        )
