"""Multiply-accumulates of one inference, counted from a bundle's artifact with nothing but its engine.

Convolutions and matrix products only, as is usual: elementwise work is not in it. What an engine fuses or skips makes no
difference; the graph is counted as it was written.
"""

from __future__ import annotations

import importlib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_sdk import onnx_file, protobuf
from edge_sdk.errors import LoadFailed, MissingDependency
from edge_sdk.target import Artifact
from edge_targets.openvino import ir_file
from edge_targets.tflite import tflite_file

# Field numbers of onnx.proto, which never change.
_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT = 7, 1, 5, 11, 12
_CONVOLUTIONS = {"Convolution", "GroupConvolution"}


def count(artifact: Artifact) -> tuple[int, str] | None:
    """Multiply-accumulates, and what they were counted from; None for a format that nobody here reads.

    Raises:
        MissingDependency: the engine that the count needs is not installed.
        LoadFailed: a file is not whole in itself.
    """
    for name, data in artifact.files.items():
        for end, (problem, counted, what) in _FORMATS.items():
            if not name.endswith(end):
                continue
            # A count runs the graph, so it is checked as a load is.
            if found := problem(data):
                raise LoadFailed(f"{name}: {found}", remedy="build the bundle again")
            return counted(data), what
    return None


def _openvino(data: bytes) -> int:
    """Every port of OpenVINO's IR has its shape."""
    total = 0
    # It has no entities, says the check above; a hostile one could at most waste this process's time.
    for layer in ElementTree.fromstring(data).iter("layer"):  # noqa: S314
        kind = layer.get("type")
        if kind not in (*_CONVOLUTIONS, "MatMul"):
            continue
        first, second = (_dims(port) for port in layer.findall("input/port")[:2])
        answer = _dims(layer.findall("output/port")[0])
        if kind == "MatMul":
            settings = layer.find("data")
            transposed = settings is not None and settings.get("transpose_a") == "true"
            total += math.prod(answer) * first[-2 if transposed else -1]
        else:
            # A grouped kernel has its group first: (group, out / group, in / group, ...).
            total += math.prod(answer) * math.prod(second[1 if kind == "Convolution" else 2 :])
    return total


def _dims(port: ElementTree.Element) -> list[int]:
    return [int(dim.text or 0) for dim in port.findall("dim")]


def _tflite(data: bytes) -> int:
    """The interpreter tells operators and the shapes of their tensors."""
    interpreter = _tflite_interpreter(data)
    shapes = {t["index"]: [int(v) for v in t["shape"]] for t in interpreter.get_tensor_details()}
    total = 0
    for operator in interpreter._get_ops_details():
        kind = operator["op_name"]
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"):
            continue
        first, second = (shapes[int(i)] for i in operator["inputs"][:2])
        answer = shapes[int(operator["outputs"][0])]
        each = {
            "CONV_2D": math.prod(second[1:]),  # (out, height, width, in)
            "DEPTHWISE_CONV_2D": math.prod(second[1:3]),  # (1, height, width, out)
            "FULLY_CONNECTED": second[-1],
            "BATCH_MATMUL": math.prod(first) // math.prod(answer[:-1]),
        }[kind]
        total += math.prod(answer) * each
    return total


def _tflite_interpreter(data: bytes) -> Any:
    for package in ("ai_edge_litert", "tflite_runtime"):
        try:
            module: Any = importlib.import_module(f"{package}.interpreter")
        except (ImportError, AttributeError):  # AttributeError: tflite_runtime under numpy 2
            continue
        # Without the delegate, which would put its own operators in the graph's place.
        plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return module.Interpreter(model_content=data, experimental_op_resolver_type=plain)
    raise MissingDependency(
        "no TFLite interpreter is installed", remedy="pip install 'face-edge-sdk[tflite]'"
    )


def _onnx(data: bytes) -> int:
    """The graph is run once by onnxruntime, with the tensors around every convolution and product among its outputs."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "counting an ONNX graph needs onnxruntime", remedy="pip install 'face-edge-sdk[onnxruntime]'"
        ) from error
    graph = protobuf.fields(protobuf.one(protobuf.fields(data), _GRAPH))
    weights = _initializers(graph)
    operators: list[tuple[str, list[str], str]] = []
    source: dict[str, str] = {}
    for raw in graph.get(_NODE, []):
        node = protobuf.fields(raw)
        inputs = [_text(v) for v in node.get(1, [])]
        outputs, kind = [_text(v) for v in node.get(2, [])], _text(protobuf.one(node, 4))
        if kind in ("DequantizeLinear", "QuantizeLinear", "Identity", "Cast"):
            source[outputs[0]] = inputs[0]
        if kind in ("Conv", "MatMul", "Gemm"):
            operators.append((kind, inputs, outputs[0]))
    given = {_text(protobuf.one(protobuf.fields(v), 1)) for v in graph.get(_INPUT, [])}
    already = {_text(protobuf.one(protobuf.fields(v), 1)) for v in graph.get(_OUTPUT, [])} | given
    wanted = {out for _, _, out in operators}
    wanted |= {inputs[0] for kind, inputs, _ in operators if kind != "Conv"}
    extra = [name for name in sorted(wanted - already) if name not in weights]
    # Messages of one type concatenate to their union, so outputs are added without touching what is there.
    added = b"".join(protobuf.message(_OUTPUT, protobuf.text(1, name)) for name in extra)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        data + protobuf.message(_GRAPH, added), settings, providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    dtype = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[entry.type]
    names = [o.name for o in session.get_outputs()]
    answers = session.run(names, {entry.name: np.zeros(entry.shape, dtype)})
    shapes = {name: value.shape for name, value in zip(names, answers, strict=True)}
    total = 0
    for kind, inputs, out in operators:
        if kind == "Conv":
            total += math.prod(shapes[out]) * math.prod(_weight(inputs[1], source, weights)[1:])
        else:
            total += math.prod(shapes[out]) * shapes[inputs[0]][-1]
    return total


def _initializers(graph: protobuf.Fields) -> dict[str, tuple[int, ...]]:
    """Shape of every weight."""
    found = {}
    for raw in graph.get(_INITIALIZER, []):
        tensor = protobuf.fields(raw)
        dims: list[int] = []
        for value in tensor.get(1, []):
            dims += [value] if isinstance(value, int) else protobuf.varints(value)
        found[_text(protobuf.one(tensor, 8))] = tuple(dims)
    return found


def _weight(name: str, source: Mapping[str, str], weights: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a kernel, through what dequantizes it."""
    while name not in weights:
        name = source[name]
    return weights[name]


def _text(value: protobuf.Value) -> str:
    assert isinstance(value, bytes)
    return value.decode()


_FORMATS: Mapping[str, tuple[Callable[[bytes], str | None], Callable[[bytes], int], str]] = {
    ".xml": (ir_file.problem, _openvino, "OpenVINO's graph"),
    ".tflite": (tflite_file.problem, _tflite, "the TFLite graph"),
    ".onnx": (lambda data: onnx_file.problem(data, None), _onnx, "the ONNX graph"),
}
"""End of a file's name to what finds that it is not whole in itself, what counts, and what was counted from."""
