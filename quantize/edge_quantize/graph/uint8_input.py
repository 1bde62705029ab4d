"""Pixels go into an int8 graph as they are.

A graph begins with uint8 pixels, made float and scaled (``Cast``, ``Mul`` by 1/255). Quantized as everything else, the
scaled pixels get a range from calibration, and are computed only to end on another grid of 256 steps. With the pixels'
own scale the integers that the first convolution reads are the pixels themselves, and cast, product and
``QuantizeLinear`` fall away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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


def front(model: Any) -> Front | None:
    """The front of an ONNX graph that takes uint8 pixels; None if it does anything but move, cast and scale them.

    Args:
        model: a loaded ``onnx.ModelProto``.
    """
    from onnx import numpy_helper

    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    name, raw, scale, nodes = graph.input[0].name, None, 1.0, tuple[str, ...]()
    while True:
        users = [node for node in graph.node if name in node.input]
        if raw is not None and (len(users) != 1 or users[0].op_type != "Mul"):
            return Front(raw, name, scale, nodes)
        if len(users) != 1:
            return None
        (node,) = users
        if node.op_type == "Cast" and raw is None:
            raw = name
        elif node.op_type == "Mul" and raw is not None:
            others = [constants[n] for n in node.input if n in constants]
            factors = [float(v) for t in others for v in numpy_helper.to_array(t).reshape(-1)]
            if len(factors) != 1 or not factors[0] > 0:
                return Front(raw, name, scale, nodes)
            scale *= factors[0]
        elif not (node.op_type == "Transpose" and raw is None):
            return None
        name, nodes = node.output[0], (*nodes, node.name)


def let_in(model: Any, found: Front) -> bool:
    """Feed the pixels where the scaled and quantized ones went; in place.

    Args:
        model: QDQ graph in which the scaled pixels have the scale ``found.scale`` and the zero point 0.
        found: its front.

    Returns:
        Whether there was a ``QuantizeLinear`` to leave out.
    """
    graph = model.graph
    quantizers = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == found.scaled]
    if not quantizers:
        return False
    replaced = {n.output[0] for n in quantizers}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in replaced:
                node.input[index] = found.raw
    for node in quantizers:
        graph.node.remove(node)
    # What made the float pixels, unless something in float still reads them.
    name = found.scaled
    while name != found.raw and not any(name in node.input for node in graph.node):
        (maker,) = (node for node in graph.node if name in node.output)
        constants = {t.name for t in graph.initializer}
        (name,) = (n for n in maker.input if n not in constants)
        graph.node.remove(maker)
    return True
