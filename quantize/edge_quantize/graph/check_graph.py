"""Whether a float graph is the network that its spec says, and one that engines can compile."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk import onnx_file
from edge_sdk.errors import InputError
from edge_sdk.target import SourceModel

_REMEDY = "export it with external_data=False and standard operators, or cut the others off"


def read_model(path: Path) -> Any:
    """The ``onnx.ModelProto`` of a file that is whole in itself: nothing that it names elsewhere is ever read.

    Raises:
        InputError: not there, not ONNX, weights in another file at any depth, or an operator that neither ONNX nor
            onnxruntime's optimizers have.
    """
    import onnx

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}", remedy="check the path") from error
    if problem := onnx_file.problem(data):
        raise InputError(f"{path}: {problem}", remedy=_REMEDY)
    try:
        return onnx.load_from_string(data)
    except Exception as error:  # protobuf's own errors share no base class
        raise InputError(f"{path} is not an ONNX file: {error}", remedy="export it again") from error


def check_graph(model: SourceModel) -> None:
    """Refuse a graph that is not the spec's, or that no target could compile.

    Args:
        model: whose ``onnx`` file is checked.

    Raises:
        InputError: naming the tensor or node: a missing or unknown tensor, another shape or type, a dynamic shape, a
            weight that is not finite, an operator that ONNX does not define, an opset from the future, or what
            :func:`read_model` refuses.
    """
    import onnx

    remedy = "export it with fixed shapes, uint8 pixels and the outputs as the spec names them, opset 17"
    loaded = read_model(model.onnx)
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
        _check_node(node, opsets.get("ai.onnx", 1), model.onnx)
    for weight in graph.initializer:
        if not np.isfinite(onnx.numpy_helper.to_array(weight)).all():
            raise InputError(
                f"{model.onnx}: weight {weight.name!r} holds a value that is not finite",
                remedy="the training diverged or the export is damaged: export from a good checkpoint",
            )


def _check_node(node: Any, opset: int, path: Path) -> None:
    """Refuse an operator that ONNX does not define, in the graph or in a branch or body of the node (InputError)."""
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    if not domain and not onnx.defs.has(node.op_type, opset, domain):
        raise InputError(
            f"{path}: node {node.name or ', '.join(node.output)!r} is a {node.domain or 'ai.onnx'}.{node.op_type}, "
            "which ONNX does not define",
            remedy=_REMEDY,
        )
    for entry in node.attribute:
        for graph in (entry.g, *entry.graphs):
            for inner in graph.node:
                _check_node(inner, opset, path)


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
