"""The network on which targets are examined: a detector small enough to be written here, and computed in numpy.

It sees bright red squares as "red" and bright green ones as "green": a class logit is the mean of one channel over a
cell. Its boxes reach a stride and a half to every side of the cell's centre.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.image import LetterboxSpec
from edge_sdk.spec import Gate, ModelSpec, Precision, Recipe
from edge_sdk.tasks.detection import DetectionHead
from edge_sdk.tensors import Array

SIDE, STRIDES, BINS = 64, (8, 16, 32), 4
LABELS = ("red", "green")
HEAD = DetectionHead(
    kind="detection",
    labels=LABELS,
    letterbox=LetterboxSpec(pad=0, max_scale=2.0),
    strides=STRIDES,
    bins=BINS,
    confidence=0.5,
    iou=0.1,
    max_faces=10,
)
INPUTS, OUTPUTS = HEAD.tensors(SIDE, SIDE)
SPEC = ModelSpec("toy", INPUTS, OUTPUTS, HEAD, licence="Apache-2.0", provenance=("made in a test",))
CALIBRATION_ITEMS = 16


def recipe(precision: Precision) -> Recipe:
    """A recipe that asks for this precision, and for nothing that a target may not have."""
    items = CALIBRATION_ITEMS if precision in ("int8", "int8-mixed") else 0
    return Recipe(precision, precision, items, Gate({"map50": 0.05, "uar": 0.05}))


def picture(
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """A dark (64, 64, 3) picture with one bright square; its box (1, 4) in pixels and class (1,)."""
    image = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    label = int(rng.integers(2))
    x, y = (int(v) * 8 for v in rng.integers(0, 6, 2))
    image[y : y + 24, x : x + 24] = 20
    image[y : y + 24, x : x + 24, label] = rng.integers(200, 256)
    return image, np.array([[x, y, x + 24, y + 24]], np.float64), np.array([label])


def pixels(seed: int = 0) -> Array:
    """(1, 64, 64, 3) uint8, what a session takes."""
    return picture(np.random.default_rng(seed))[0][None]


def weights(stride: int) -> dict[str, tuple[Array, Array]]:
    """Kernels (out, 3, stride, stride) and biases of the two maps of one level."""
    rng = np.random.default_rng(stride)
    cls = np.zeros((len(LABELS), 3, stride, stride), np.float32)
    for label, (plus, minus) in enumerate(((0, 1), (1, 0))):
        cls[label, plus] = 14 / stride**2
        cls[label, minus] = -6 / stride**2
    box = rng.normal(0, 0.05 / stride**2, (4 * BINS, 3, stride, stride)).astype(np.float32)
    sides = np.tile(np.array([-2, 2, 2, -2], np.float32), 4)  # half on 1, half on 2: 1.5 strides
    return {"box": (box, sides), "cls": (cls, np.full(len(LABELS), -7, np.float32))}


def compute(image: Array) -> dict[str, Array]:
    """What the network answers to (1, 64, 64, 3) uint8 pixels, in numpy."""
    unit = image[0].astype(np.float32) / 255
    answer = {}
    for stride in STRIDES:
        cells = SIDE // stride
        patches = unit.reshape(cells, stride, cells, stride, 3).transpose(0, 2, 4, 1, 3)
        for kind, (kernel, bias) in weights(stride).items():
            answer[f"{kind}{stride}"] = (np.einsum("abcij,ocij->abo", patches, kernel) + bias)[None]
    return answer


def write_onnx(path: Path) -> Path:
    """The network as opset-17 ONNX; needs the package ``onnx``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["unit"]),
    ]
    constants = [numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")]
    for stride in STRIDES:
        for kind, (kernel, bias) in weights(stride).items():
            name = f"{kind}{stride}"
            constants += [
                numpy_helper.from_array(kernel, f"w_{name}"),
                numpy_helper.from_array(bias, f"b_{name}"),
            ]
            nodes += [
                helper.make_node(
                    "Conv", ["unit", f"w_{name}", f"b_{name}"], [f"m_{name}"], strides=[stride] * 2
                ),
                helper.make_node("Transpose", [f"m_{name}"], [name], perm=[0, 2, 3, 1]),
            ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, INPUTS[0].shape)],
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in SPEC.outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def write_tflite(path: Path) -> Path:
    """The network as float TFLite, with the signature that converters write; needs the package ``ai-edge-litert``."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.operators = b"main", [], []
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers = [schema.BufferT()]  # the first one is empty by definition

    def tensor(name: str, shape: tuple[int, ...], kind: int, values: Array | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), list(shape), kind, 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(kind: int, version: int, inputs: list[int], output: int, options: Any, union: int) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, kind, version
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = len(model.operatorCodes), inputs, [output]
        node.builtinOptions, node.builtinOptionsType = options, union
        model.operatorCodes.append(code)
        graph.operators.append(node)

    kinds, operators, unions = schema.TensorType, schema.BuiltinOperator, schema.BuiltinOptions
    entry = tensor("args_0", INPUTS[0].shape, kinds.UINT8)
    floats = tensor("floats", INPUTS[0].shape, kinds.FLOAT32)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = kinds.UINT8, kinds.FLOAT32
    operator(operators.CAST, 1, [entry], floats, cast, unions.CastOptions)
    exits = []
    for spec in SPEC.outputs:
        kind, stride = spec.name[:3], int(spec.name[3:])
        kernel, bias = weights(stride)[kind]
        kernel = kernel.transpose(0, 2, 3, 1) / 255  # OHWI; converters fold the scale of pixels into it too
        made = [
            tensor(f"w_{spec.name}", kernel.shape, kinds.FLOAT32, kernel),
            tensor(f"b_{spec.name}", bias.shape, kinds.FLOAT32, bias),
        ]
        exits.append(tensor(spec.name, spec.shape, kinds.FLOAT32))
        convolution = schema.Conv2DOptionsT()
        convolution.padding, convolution.strideW, convolution.strideH = schema.Padding.VALID, stride, stride
        operator(operators.CONV_2D, 1, [floats, *made], exits[-1], convolution, unions.Conv2DOptions)
    graph.inputs, graph.outputs = [entry], exits

    def named(name: str, index: int) -> Any:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), index
        return made

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [named("args_0", entry)]
    signature.outputs = [named(f"output_{i}", index) for i, index in enumerate(exits)]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path
