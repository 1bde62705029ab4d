"""Pixels go into an int8 graph as they are.

A graph begins with uint8 pixels, made float and scaled (``Cast``, ``Mul`` by 1/255). Quantized as everything else, the
scaled pixels get a range from calibration, and are computed only to end on another grid of 256 steps. With the pixels'
own scale the integers that the first convolution reads are the pixels themselves, and cast, product and
``QuantizeLinear`` fall away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_quantize.graph.index import GraphIndex, Q, rename_input

_MOVES = ("Transpose", "Reshape")
"""Operators that only move pixels, as a clip's network may before it computes."""


@dataclass(frozen=True, slots=True)
class Front:
    """How pixels become the first convolution's input.

    Attributes:
        raw: the uint8 tensor before the cast.
        scaled: the float tensor after cast and scaling.
        scale: what a pixel is multiplied by.
        nodes: names of the operators from the pixels to ``scaled``; these stay in float.
    """

    raw: str
    scaled: str
    scale: float
    nodes: tuple[str, ...]


def fronts(model: Any) -> list[Front]:
    """The front of each uint8 input of an ONNX graph that has one, in the order of its inputs.

    Args:
        model: a loaded ``onnx.ModelProto``.
    """
    import onnx

    graph = GraphIndex(model)
    uint8 = onnx.TensorProto.UINT8
    names = [value.name for value in model.graph.input if value.type.tensor_type.elem_type == uint8]
    return [found for name in names if (found := front(graph, name)) is not None]


def front(graph: GraphIndex, pixels: str) -> Front | None:
    """The front of one input that takes uint8 pixels; None if it does anything but move, cast and scale them.

    Args:
        graph: index of the network.
        pixels: name of the input.
    """
    name, raw, scale, nodes = pixels, None, 1.0, tuple[str, ...]()
    while True:
        users = graph.readers[name]
        if raw is not None and (len(users) != 1 or users[0].op_type != "Mul"):
            return Front(raw, name, scale, nodes)
        if len(users) != 1:
            return None
        (node,) = users
        if node.op_type == "Cast" and raw is None:
            raw = name
        elif node.op_type == "Mul" and raw is not None:
            others = [graph.constants[n] for n in node.input if n in graph.constants]
            factors = [float(v) for values in others for v in values.reshape(-1)]
            if len(factors) != 1 or not factors[0] > 0:
                return Front(raw, name, scale, nodes)
            scale *= factors[0]
        elif not (node.op_type in _MOVES and raw is None):
            return None
        name, nodes = node.output[0], (*nodes, node.name)


def let_in(model: Any, found: Front) -> bool:
    """Let a graph take its uint8 pixels directly, without scaling and quantizing them first; changes the graph.

    Args:
        model: QDQ graph in which the scaled pixels have the scale ``found.scale`` and the zero point 0.
        found: its front.

    Returns:
        Whether there was a ``QuantizeLinear`` to leave out.
    """
    nodes, graph = model.graph.node, GraphIndex(model)
    quantizers = [n for n in graph.readers[found.scaled] if n.op_type == Q]
    if not quantizers:
        return False
    for node in quantizers:
        for reader in graph.readers[node.output[0]]:
            rename_input(reader, node.output[0], found.raw)
        nodes.remove(node)
    # What made the float pixels, unless something in float still reads them.
    name = found.scaled
    while name != found.raw and not any(name in node.input for node in nodes):
        maker = graph.maker[name]
        (name,) = (n for n in maker.input if n not in graph.constants)
        nodes.remove(maker)
    return True
