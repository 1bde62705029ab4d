"""A graph as TensorRT wants to find it: pixels cast before anything else touches them, every node named."""

from __future__ import annotations

from typing import Any

from edge_quantize.graph.index import GraphIndex, attribute, copy_model, make_node


def prepare(model: Any) -> Any:
    """A copy with 8-bit pixels cast before anything else touches them, every node named, and shapes inferred.

    Args:
        model: an ``onnx.ModelProto``.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(copy_model(model))
    graph = GraphIndex(model)
    for value in model.graph.input:
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            _cast_first(model, graph, value.name)
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        node.name = node.name or node.output[0]  # as recipes name it
        if node.name in seen:
            node.name = f"{node.name}_{index}"
        seen.add(node.name)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def _cast_first(model: Any, graph: GraphIndex, pixels: str) -> None:
    """Swap a Cast with the operators before it that only move values."""
    cast = None
    for node in graph.readers[pixels]:
        path = [node]
        while path[-1].op_type in ("Transpose", "Reshape") and len(graph.readers[path[-1].output[0]]) == 1:
            path.append(graph.readers[path[-1].output[0]][0])
        if path[-1].op_type != "Cast" or len(path) == 1:
            continue
        old, first, last = path[-1], path[0], path[-2]
        cast = make_node("Cast", [pixels], [f"{pixels}_cast"], f"{pixels}_cast", to=attribute(old, "to"))
        first.input[0] = cast.output[0]
        last.output[0] = old.output[0]
        model.graph.node.remove(old)
        model.graph.node.insert(0, cast)
        return
