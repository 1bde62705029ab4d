"""The one index of an ONNX graph: who makes and who reads a tensor, and which tensors are constants."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Q, DQ = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply by learned weights."""
ACTIVATIONS = (
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Sigmoid",
    "Softplus", "Tanh",
)  # fmt: skip
"""Operators that act on each value alone and fuse with the operator before them."""


class GraphIndex:
    """Who makes and who reads each tensor of a graph.

    Args:
        model: an ``onnx.ModelProto``; the index is of the moment, later changes of the graph are not in it.

    Attributes:
        nodes: of the graph, in its order.
        constants: name of each initializer and Constant node's output to its value.
        maker: name of each computed tensor to the node that makes it.
        readers: name of each tensor to the nodes that read it.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.nodes = list(model.graph.node)
        self.constants: dict[str, Any] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.maker: dict[str, Any] = {}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.output:
                self.maker[name] = node
            for name in node.input:
                self.readers[name].append(node)
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def kind_of_maker(self, tensor: str) -> str:
        """Operator that makes a tensor; empty for inputs and constants."""
        maker = self.maker.get(tensor)
        return "" if maker is None else str(maker.op_type)

    def constant(self, tensor: str) -> Any:
        """The value of a constant, also behind a QuantizeLinear; None if it is none."""
        maker = self.maker.get(tensor)
        if maker is not None and maker.op_type == Q:
            tensor = maker.input[0]
        return self.constants.get(tensor)

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor does not depend on the input, itself or behind a QuantizeLinear."""
        return self.constant(tensor) is not None

    def is_gate(self, node: Any, tensor: str) -> bool:
        """Whether a Mul multiplies a tensor by an activation of itself, as SiLU does."""
        if node.op_type != "Mul":
            return False
        others = [self.maker.get(name) for name in node.input if name != tensor]
        return any(o is not None and o.op_type in ACTIVATIONS and tensor in o.input for o in others)


def weight_axis(node: Any, dimensions: int) -> int:
    """Axis of a weighted operator's second input that holds its output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm" and attribute(node, "transB"):
        return 0
    return dimensions - 1


def copy_model(model: Any) -> Any:
    """A copy of an ``onnx.ModelProto``."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def make_node(kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: Any) -> Any:
    """A new ``onnx.NodeProto``."""
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, name=name, **attributes)


def rename_input(node: Any, old: str, new: str) -> None:
    """Let a node read another tensor wherever it read ``old``."""
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def attribute(node: Any, name: str) -> Any:
    """The value of a node's attribute; None if it has none of this name."""
    import onnx

    for found in node.attribute:
        if found.name == name:
            return onnx.helper.get_attribute_value(found)
    return None
