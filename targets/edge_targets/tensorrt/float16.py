"""A graph that computes in float16 and gives float32: every version of TensorRT runs it as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_quantize.graph.activations import amax
from edge_quantize.graph.index import GraphIndex, copy_model, make_node, rename_input
from edge_sdk.errors import CompileFailed
from edge_sdk.tensors import Tensors

FLOAT16_MAX = 65504.0


def to_float16(model: Any) -> Any:
    """A copy that computes in float16 and gives float32: every version of TensorRT runs it as it is typed.

    Args:
        model: a prepared float ``onnx.ModelProto``.

    Raises:
        CompileFailed: a weight is not finite in float16.
    """
    import onnx
    from onnx import TensorProto, numpy_helper

    model = copy_model(model)
    graph = GraphIndex(model)
    # Sizes, and the scale factors of Resize, are float32 by the standard whatever the data is.
    fixed = {name for n in model.graph.node if n.op_type == "Resize" for name in n.input[2:3] if name}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in fixed:
            tensor.CopyFrom(
                numpy_helper.from_array(_half(numpy_helper.to_array(tensor), tensor.name), tensor.name)
            )
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            elif attribute.t.data_type == TensorProto.FLOAT and not set(node.output) & fixed:
                value = _half(numpy_helper.to_array(attribute.t), node.name)
                attribute.t.CopyFrom(numpy_helper.from_array(value))
    for value in model.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inner = f"{value.name}_float16"
            for node in model.graph.node:
                for names in (node.input, node.output):
                    for index, name in enumerate(names):
                        if name == value.name:
                            names[index] = inner
            model.graph.node.append(
                make_node("Cast", [inner], [value.name], f"{value.name}_cast", to=TensorProto.FLOAT)
            )
    for value in model.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inner = f"{value.name}_float16"
            for node in graph.readers[value.name]:
                rename_input(node, value.name, inner)
            cast = make_node("Cast", [value.name], [inner], f"{value.name}_cast", to=TensorProto.FLOAT16)
            model.graph.node.insert(0, cast)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_float16_range(model: Any, frames: Sequence[Tensors], *, headroom: float = 4.0) -> None:
    """Raise CompileFailed if an activation of the float network comes near float16's largest number.

    An engine that computes in float16 turns what is larger into infinity; one that computes in float32 and rounds, as
    onnxruntime does on a processor, would not show it in the gate.

    Args:
        model: a prepared float ``onnx.ModelProto``.
        frames: input tensors.
        headroom: factor that must remain between the largest value seen and 65504.
    """
    graph = GraphIndex(model)
    names = [name for n in model.graph.node for name in n.output if name and name not in graph.constants]
    for name, largest in amax(model, names, frames, "minmax").items():
        if not largest * headroom <= FLOAT16_MAX:
            raise CompileFailed(
                f"tensor {name!r} reaches {largest:g}: float16 ends at {FLOAT16_MAX:g}, "
                f"and unseen pictures need {headroom:g} times the room",
                remedy="use recipe fp32, or train the network with a normalization before that layer",
            )


def _half(value: Any, name: str) -> Any:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise CompileFailed(
            f"constant {name!r} reaches {np.abs(value).max():g}: float16 ends at {FLOAT16_MAX:g}",
            remedy="use recipe fp32",
        )
    return half
