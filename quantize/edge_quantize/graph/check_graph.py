"""Whether a float graph is the network that its spec says, and one that engines can compile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edge_sdk.errors import InputError
from edge_sdk.target import SourceModel

_KNOWN_DOMAINS = ("com.microsoft", "ai.onnx.ml")
"""Beside ONNX's own: a float graph may hold what onnxruntime's optimizers made."""


def check_graph(model: SourceModel) -> None:
    """Refuse a graph that is not the spec's, or that no target could compile.

    Args:
        model: whose ``onnx`` file is checked.

    Raises:
        InputError: naming the tensor or node: a missing or unknown tensor, another shape or type, a dynamic shape, a
            weight that is not finite, an operator that ONNX does not define, an opset from the future, or weights in
            another file.
    """
    import onnx

    remedy = "export it with fixed shapes, uint8 pixels and the outputs as the spec names them, opset 17"
    try:
        loaded = onnx.load(str(model.onnx), load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own errors share no base class
        raise InputError(f"{model.onnx} is not an ONNX file: {error}", remedy="export it again") from error
    graph = loaded.graph
    constants = {weight.name for weight in graph.initializer}  # of which old exporters make inputs too
    inputs = _tensors(value for value in graph.input if value.name not in constants)
    outputs = _tensors(graph.output)
    wanted = [(tensor, inputs) for tensor in model.spec.inputs]
    wanted += [(tensor, outputs) for tensor in model.spec.outputs]
    for tensor, found in wanted:
        if tensor.name not in found:
            problem = f"the graph has {', '.join(sorted(found))}"
        elif any(isinstance(size, str) for size in found[tensor.name][0]):
            problem = f"its shape in the graph is dynamic: {found[tensor.name][0]}"
        elif found[tensor.name] != (tensor.shape, tensor.dtype):
            problem = f"the graph has {found[tensor.name]}"
        else:
            continue
        raise InputError(
            f"{model.onnx}: the spec wants tensor {tensor.name!r} {tensor.dtype} {tensor.shape}, {problem}",
            remedy=remedy,
        )
    if unknown := sorted(set(inputs) - {tensor.name for tensor in model.spec.inputs}):
        raise InputError(
            f"{model.onnx} has an input {unknown[0]!r} that the spec does not know",
            remedy="add it to the spec's inputs, or export the graph without it",
        )
    opsets = {entry.domain or "ai.onnx": entry.version for entry in loaded.opset_import}
    if opsets.get("ai.onnx", 1) > (newest := onnx.defs.onnx_opset_version()):
        raise InputError(
            f"{model.onnx} has opset {opsets['ai.onnx']}, newer than the {newest} that is known here",
            remedy=remedy,
        )
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, opsets.get("ai.onnx", 1), domain) and domain not in _KNOWN_DOMAINS:
            raise InputError(
                f"{model.onnx}: node {node.name or node.output[0]!r} is a {node.domain or 'ai.onnx'}.{node.op_type}, "
                "which ONNX does not define",
                remedy="export it with standard operators, or cut it off: nothing custom runs on a device",
            )
    for weight in graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(
                f"{model.onnx}: weight {weight.name!r} lies in another file",
                remedy="export with external_data=False",
            )
        if not np.isfinite(onnx.numpy_helper.to_array(weight)).all():
            raise InputError(
                f"{model.onnx}: weight {weight.name!r} holds a value that is not finite",
                remedy="the training diverged or the export is damaged: export from a good checkpoint",
            )


def _tensors(values: Iterable[Any]) -> dict[str, tuple[tuple[Any, ...], str]]:
    """Name of each ``onnx.ValueInfoProto`` to its shape, in which free sizes are text, and numpy dtype name."""
    import onnx

    found = {}
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in kind.shape.dim
        )
        found[value.name] = (shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
    return found
