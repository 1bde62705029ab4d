"""How close a network comes to its engine's peak on this machine: its operations per second beside the measured peak.

The peak is measured, not looked up: a stack of 1x1 convolutions, which are matrix products, of a size that stays in the
caches, in the network's precision, through the same engine with the same settings. No network reaches it: other kernels,
elementwise work and memory take their share. A share near 1 says that a faster network must do fewer operations; a low
one, that it must do them in a form that suits the engine better.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_benchmarks import macs
from edge_benchmarks.report import Roofline
from edge_sdk import protobuf
from edge_sdk.errors import EdgeError, MissingDependency
from edge_sdk.protobuf import integer, message, text
from edge_sdk.selection import find_bundle
from edge_sdk.spec import Gate, Recipe
from edge_sdk.target import Artifact, LoadOptions, SourceModel, Target, find_target
from edge_sdk.tensors import TensorSpec
from edge_sdk.timing import now_ns
from edge_sdk.trust import admit

SIDE, CHANNELS, LAYERS = 32, 256, 12
"""Of the stack: 0.25 MB of activations, 0.8 GMAC; weights are shared by all layers."""

PEAK_MACS = SIDE * SIDE * CHANNELS * CHANNELS * LAYERS
SECONDS = 1.5
_IN_FLOAT = ("fp32", "fp16", "int8-wonly")
"""Precisions whose products are computed in float on a processor."""


def measure(
    bundle: str | Path, infer_ms: float | None, *, threads: int, device: str | None = None
) -> Roofline:
    """Count a bundle's operations and measure its engine's peak.

    Args:
        bundle: ``.edge`` file or zoo name.
        infer_ms: median latency of the inference in milliseconds; None leaves the achieved figure out.
        threads: number of threads of the engine.
        device: device that the engine must run on; None takes the usual one.
    """
    opened = find_bundle(bundle).bundle
    admit(opened)
    target, precision = opened.manifest.target, opened.manifest.recipe.precision
    reasons, counted, gmacs, achieved, best = [], "", None, None, None
    try:
        found = macs.count(opened.artifact)
        if found is None:
            reasons.append("no operations: nobody here reads this artifact")
        else:
            gmacs, counted = found[0] / 1e9, found[1]
            achieved = 2 * gmacs / (infer_ms / 1e3) if infer_ms else None
            if achieved is None:
                reasons.append("too few samples for a median")
    except EdgeError as error:
        reasons.append(f"no operations: {error.message}")
    try:
        best = peak(target, precision, threads=threads, device=device)
    except EdgeError as error:
        reasons.append(f"no peak: {error.message}")
    share = achieved / best if achieved is not None and best is not None else None
    return Roofline(gmacs, counted, achieved, best, share, "; ".join(reasons))


def peak(
    target: str, precision: str, *, threads: int, device: str | None = None, seconds: float = SECONDS
) -> float:
    """Highest giga-operations per second that the stack reached in ``seconds`` of inferences.

    A multiply-accumulate counts as two operations.

    Args:
        target: name of an installed engine.
        precision: recipe's precision; it decides whether the stack is int8 or float.
        threads: number of threads of the engine.
        device: device that the engine must run on; None takes the usual one.
        seconds: how long inferences are repeated.

    Raises:
        EdgeError: the engine is not installed, or does not take such a graph.
    """
    shape = (1, SIDE, SIDE, CHANNELS)
    # Not a ModelSpec, which only admits pictures: what a target reads of one.
    spec: Any = SimpleNamespace(
        name="peak",
        inputs=(TensorSpec("pixels", shape, "uint8", "NHWC"),),
        outputs=(TensorSpec("products", shape, "float32", "NHWC"),),
    )
    engine = find_target(target)
    options = LoadOptions(threads=threads, devices=() if device is None else (device,))
    artifact = _stack(engine, spec, int8=precision not in _IN_FLOAT)
    session = engine.load(artifact, spec, options=options)
    try:
        inputs = {"pixels": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
        least, end = 1 << 62, now_ns() + int(seconds * 1e9)
        while (before := now_ns()) < end:
            session.infer(inputs)
            least = min(least, now_ns() - before)
    finally:
        session.close()
    return 2 * PEAK_MACS / least


def _stack(engine: Target, spec: Any, *, int8: bool) -> Artifact:
    """The stack as an artifact of the engine; an int8 one is quantized here, so that no recipe has to."""
    with tempfile.TemporaryDirectory() as folder:
        onnx, tflite = Path(folder) / "peak.onnx", Path(folder) / "peak.tflite"
        onnx.write_bytes(stack_onnx(int8=int8))
        if importlib.util.find_spec("ai_edge_litert") is not None:
            tflite.write_bytes(stack_tflite(int8=int8))
        model = SourceModel(spec, onnx, tflite if tflite.is_file() else None)
        return engine.compile(model, recipe=Recipe("fp32", "fp32", 0, Gate({})))


def _weights() -> npt.NDArray[np.int8]:
    """A kernel that keeps the size of what goes through it, so that no layer saturates."""
    rng = np.random.default_rng(1)
    return rng.integers(-127, 128, (CHANNELS, CHANNELS), np.int8)


_SCALE = 1 / (74 * CHANNELS**0.5)
"""Scale of the weights: gives each row a norm of about one."""


def stack_onnx(*, int8: bool) -> bytes:
    """The stack as opset-17 ONNX: (1, 32, 32, 256) uint8 ``pixels`` to float32 ``products``; int8 as QDQ."""
    kernel = _weights()
    nodes, constants = [], []

    def node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> str:
        nodes.append(
            protobuf.join(
                [*(text(1, name) for name in inputs), text(2, output), text(4, kind)]
                + [message(5, attribute) for attribute in attributes]
            )
        )
        return output

    def constant(name: str, value: npt.NDArray[Any]) -> str:
        kinds = {"float32": 1, "uint8": 2, "int8": 3}
        constants.append(
            protobuf.join(
                (
                    integer(1, *value.shape),
                    integer(2, kinds[value.dtype.name]),
                    text(8, name),
                    message(9, value.tobytes()),
                )
            )
        )
        return name

    def ints(name: str, *values: int) -> bytes:
        return text(1, name) + integer(8, *values) + integer(20, 7)

    unit = constant("unit", np.array(1 / 255, np.float32))
    zero = constant("zero", np.array(0, np.uint8))
    if int8:
        constant("kernel8", kernel.reshape(CHANNELS, CHANNELS, 1, 1))
        constant("kernel_scale", np.full(CHANNELS, _SCALE, np.float32))
        constant("kernel_zero", np.zeros(CHANNELS, np.int8))
        weights = node(
            "DequantizeLinear",
            ["kernel8", "kernel_scale", "kernel_zero"],
            "kernel",
            text(1, "axis") + integer(3, 0) + integer(20, 2),
        )
    else:
        weights = constant("kernel", (kernel * np.float32(_SCALE)).reshape(CHANNELS, CHANNELS, 1, 1))
    current = node("Cast", ["pixels"], "floats", text(1, "to") + integer(3, 1) + integer(20, 2))
    current = node("Mul", [current, unit], "unit_floats")
    current = node("Transpose", [current], "planes", ints("perm", 0, 3, 1, 2))
    for layer in range(LAYERS):
        if int8:
            current = node("QuantizeLinear", [current, unit, zero], f"q{layer}")
            current = node("DequantizeLinear", [current, unit, zero], f"d{layer}")
        current = node("Conv", [current, weights], f"c{layer}", ints("kernel_shape", 1, 1))
        current = node("Relu", [current], f"r{layer}")
    node("Transpose", [current], "products", ints("perm", 0, 2, 3, 1))
    graph = protobuf.join(
        [message(1, n) for n in nodes]
        + [text(2, "peak")]
        + [message(5, c) for c in constants]
        + [message(11, _value_info("pixels", 2)), message(12, _value_info("products", 1))]
    )
    return integer(1, 8) + message(7, graph) + message(8, text(1, "") + integer(2, 17))


def _value_info(name: str, kind: int) -> bytes:
    dims = b"".join(message(1, integer(1, size)) for size in (1, SIDE, SIDE, CHANNELS))
    return text(1, name) + message(2, message(1, integer(1, kind) + message(2, dims)))


def stack_tflite(*, int8: bool) -> bytes:
    """The stack as TFLite, by the schema that comes with LiteRT.

    Raises:
        MissingDependency: LiteRT is not installed; the old tflite-runtime brings no schema.
    """
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingDependency(
            "a TFLite graph cannot be written without LiteRT's schema",
            remedy="pip install 'face-edge-sdk[tflite]'",
        ) from error
    kernel = _weights().reshape(CHANNELS, 1, 1, CHANNELS)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, "peak"
    model.subgraphs, model.operatorCodes, model.buffers = [graph], [], [schema.BufferT()]
    graph.tensors, graph.operators = [], []

    def tensor(name: str, shape: tuple[int, ...], kind: int, data: Any = None, scales: Any = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), kind, 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        if scales is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = scales
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], outputs: list[int], kind: int = 0, options: Any = None) -> int:
        codes = [c.builtinCode for c in model.operatorCodes]
        if code not in codes:
            made_code = schema.OperatorCodeT()
            made_code.builtinCode = made_code.deprecatedBuiltinCode = code
            made_code.version = 3 if int8 else 1
            model.operatorCodes.append(made_code)
            codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = codes.index(code), inputs, outputs
        made.builtinOptionsType, made.builtinOptions = kind, options
        graph.operators.append(made)
        return outputs[0]

    types, codes, kinds = schema.TensorType, schema.BuiltinOperator, schema.BuiltinOptions
    shape = (1, SIDE, SIDE, CHANNELS)
    between = ([1 / 255], [-128]) if int8 else None
    inner = types.INT8 if int8 else types.FLOAT32
    pixels = tensor("pixels", shape, types.UINT8)
    floats, unit = tensor("floats", shape, types.FLOAT32), tensor("unit_floats", shape, types.FLOAT32)
    scale = tensor("unit", (), types.FLOAT32, np.array(1 / 255, np.float32))
    operator(codes.CAST, [pixels], [floats], kinds.CastOptions, schema.CastOptionsT())
    operator(codes.MUL, [floats, scale], [unit], kinds.MulOptions, schema.MulOptionsT())
    current = unit
    if int8:
        weights = tensor("kernel", kernel.shape, types.INT8, kernel, ([_SCALE] * CHANNELS, [0] * CHANNELS))
        graph.tensors[weights].quantization.quantizedDimension = 0
        bias_scales = ([_SCALE / 255] * CHANNELS, [0] * CHANNELS)
        bias = tensor("bias", (CHANNELS,), types.INT32, np.zeros(CHANNELS, np.int32), bias_scales)
        graph.tensors[bias].quantization.quantizedDimension = 0
        current = operator(codes.QUANTIZE, [unit], [tensor("q", shape, inner, None, between)])
    else:
        weights = tensor("kernel", kernel.shape, types.FLOAT32, kernel * np.float32(_SCALE))
        bias = tensor("bias", (CHANNELS,), types.FLOAT32, np.zeros(CHANNELS, np.float32))
    for layer in range(LAYERS):
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        out = tensor(f"c{layer}", shape, inner, None, between)
        current = operator(codes.CONV_2D, [current, weights, bias], [out], kinds.Conv2DOptions, options)
    if int8:
        current = operator(codes.DEQUANTIZE, [current], [tensor("products", shape, types.FLOAT32)])
    else:
        graph.tensors[current].name = b"products"
    graph.inputs, graph.outputs = [pixels], [current]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    for listed, name, index in (("inputs", b"args_0", pixels), ("outputs", b"output_0", current)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        setattr(signature, listed, [entry])
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
