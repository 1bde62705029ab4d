"""What a host does for the tflite target: calibrate and quantize a float TFLite file with ai-edge-quantizer."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize.graph.blocks import (
    Operator,
    fingerprint,
    in_float,
    located,
    named_by,
    of_onnx,
    same_weights,
)
from edge_quantize.histogram import count_all, least_squares, spans
from edge_sdk.adapter import check_recipe, content_of, vendor_errors
from edge_sdk.errors import CompileFailed, MissingDependency
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact, Ranges, SourceModel, Target
from edge_sdk.tensors import Array, Tensors, TensorSpec
from edge_targets.tflite import tflite_file
from edge_targets.tflite.session import MODEL, check_file, import_tflite

_SIGNATURE = "serving_default"


def check(target: Target, recipe: Recipe) -> None:
    """Raise UnsupportedRecipe for what ai-edge-quantizer cannot do."""
    check_recipe(
        target.name,
        recipe,
        precisions=("fp32", "fp16", "int8", "int8-wonly", "int8-mixed"),
        granularities=("channel", "tensor") if recipe.calibrated else ("channel",),
        methods=("minmax", "mse"),
        keep_float=recipe.calibrated,
    )


def calibrate(target: Target, model: SourceModel, recipe: Recipe, frames: Sequence[Tensors]) -> Ranges:
    """Run the tool's calibration over the frames.

    Returns:
        Ranges whose content is what the tool calls ``qsvs``: name of each tensor to its ``min`` and ``max``, whatever a
        recipe keeps in float.
    """
    check(target, recipe)
    source = _float_file(model)
    with vendor_errors("tflite", CompileFailed, "calibration failed", "check the float .tflite"):
        return Ranges(target.name, _calibrate(source, model.spec, recipe, frames))


def compile_network(target: Target, model: SourceModel, recipe: Recipe, ranges: Ranges | None) -> Artifact:
    """Float: the file as it is. Int8: static ranges by ai-edge-quantizer, uint8 pixels in, float maps out.

    Half and int8 weights alone: the same tool's float casting, and its weights for dynamic ranges: the engine finds
    those of activations frame by frame. What the recipe's ``keep_float`` names is not quantized; operators are found by
    the ONNX graph's weights.
    """
    check(target, recipe)
    source = _float_file(model)
    data = source.read_bytes()
    if recipe.calibrated:
        found = content_of(target, ranges)
        with vendor_errors("tflite", CompileFailed, "quantization failed", "check the float .tflite"):
            data = _quantize(model, source, recipe, found)
    elif recipe.precision != "fp32":
        with vendor_errors("tflite", CompileFailed, "compression failed", "check the float .tflite"):
            data = _compress(source, recipe)
    inputs, outputs = _orders(data, model.spec)
    artifact = Artifact(
        files={MODEL: data}, inputs=inputs, outputs=outputs, fingerprint={"tflite": _version()}
    )
    # What a device would refuse is never written.
    check_file(artifact, CompileFailed)
    return artifact


def _float_file(model: SourceModel) -> Path:
    if model.tflite is None:
        raise CompileFailed(
            f"{model.spec.name}: the tflite target needs the float .tflite beside the ONNX",
            remedy="make it with litert-torch (docs/bring-your-own.md) and name it with --tflite; "
            "a zoo model: python -m edge_training.export",
        )
    try:
        data = model.tflite.read_bytes()
    except OSError as error:
        raise CompileFailed(f"cannot read {model.tflite}: {error}", remedy="check the path") from error
    if problem := tflite_file.problem(data):
        raise CompileFailed(
            f"{model.tflite}: {problem}", remedy="convert it with built-in operators and its weights inside"
        )
    return model.tflite


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in ("ai-edge-litert", "tflite-runtime"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "unknown"


def _orders(data: bytes, spec: ModelSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Spec names in the order of the file's inputs, and of its outputs.

    The signature calls them args_0, args_1 and output_0, output_1 ... as exported, in the spec's order.

    Raises:
        CompileFailed: the file's tensors are not the spec's; names the first that differs.
    """
    interpreter = import_tflite().Interpreter(model_content=data)
    runner = interpreter.get_signature_runner(_SIGNATURE)
    outputs = _by_index(runner.get_output_details(), "output", "outputs", spec.outputs)
    inputs = _by_index(runner.get_input_details(), "args", "inputs", spec.inputs)
    return (
        tuple(inputs[int(d["index"])] for d in interpreter.get_input_details()),
        tuple(outputs[int(d["index"])] for d in interpreter.get_output_details()),
    )


def _by_index(
    exported: Mapping[str, Any], prefix: str, kind: str, tensors: Sequence[TensorSpec]
) -> dict[int, str]:
    """Index of each tensor in the file to the spec's name."""
    found = {}
    for i, tensor in enumerate(tensors):
        details = exported.get(f"{prefix}_{i}")
        shape = None if details is None else tuple(int(n) for n in details["shape"])
        if details is None or shape != tensor.shape or len(exported) != len(tensors):
            raise CompileFailed(
                f"the float .tflite has {len(exported)} {kind}, {prefix}_{i} of shape {shape}; "
                f"the spec wants {len(tensors)}, there {tensor.name!r} {tensor.shape}",
                remedy=f"make it with the spec's {kind}, in its order: docs/bring-your-own.md",
            )
        found[int(details["index"])] = tensor.name
    return found


def _least_squares(
    source: Path, network: Any, items: Sequence[Tensors], ranges: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Ranges that cost least squared error, of what operators compute inside the float network, by tensor.

    Args:
        source: the float file.
        network: the same, parsed.
        items: inputs by their names in the signature, in order.
        ranges: the whole range of every tensor by name, as the tool has them.
    """
    tflite, (graph,) = import_tflite(), network.subgraphs
    computed = {o for op in graph.operators for o in op.outputs} - set(graph.outputs)
    # Without delegates, which keep what they compute inside to themselves.
    interpreter = tflite.Interpreter(
        model_path=str(source),
        experimental_op_resolver_type=tflite.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
        num_threads=2,
    )
    interpreter.allocate_tensors()
    entries = interpreter.get_signature_runner(_SIGNATURE).get_input_details()
    known = {index: ranges.get(graph.tensors[index].name.decode()) for index in computed}
    of_one = {index: seen for index, seen in known.items() if seen and np.size(seen["min"]) == 1}
    whole = spans({i: (float(np.min(seen["min"])), float(np.max(seen["max"]))) for i, seen in of_one.items()})

    def frames() -> Iterator[dict[int, Array]]:
        for item in items:
            for name, array in item.items():
                interpreter.set_tensor(entries[name]["index"], array)
            interpreter.invoke()
            yield {index: interpreter.get_tensor(index) for index in whole}

    counts = count_all(frames(), whole)
    return {graph.tensors[i].name.decode(): least_squares(counts[i], *span) for i, span in whole.items()}


def _tools() -> tuple[Any, Any, Any]:
    """ai-edge-quantizer's modules ``quantizer``, ``qtyping`` and ``recipe``."""
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe
    except ImportError as error:
        raise MissingDependency(
            f"ai-edge-quantizer cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    return quantizer, qtyping, recipe


def _quantizer(source: Path, chosen: Recipe, scopes: Sequence[str]) -> Any:
    """The tool for a file: int8 with static ranges, float inputs and outputs, and these scopes in float."""
    quantizer, qtyping, recipe = _tools()
    made = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    if chosen.granularity == "tensor":
        made = quantizer.Quantizer(str(source))
        made.add_static_config(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            activation_num_bits=8,
            weight_num_bits=8,
            weight_granularity=qtyping.QuantGranularity.TENSORWISE,
        )
    for operation in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        made.update_quantization_recipe(regex=".*", operation_name=operation, algorithm_key="no_quantize")
    if scopes:
        made.update_quantization_recipe(
            regex=f"^({'|'.join(map(re.escape, scopes))})$",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key="no_quantize",
        )
    return made


def _calibrate(source: Path, spec: ModelSpec, chosen: Recipe, frames: Sequence[Tensors]) -> dict[str, Any]:
    quantizer = _quantizer(source, chosen, ())
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    # By itself the tool averages the pictures' extremes, which cuts off what they differ in.
    observer = calibrator.Calibrator(str(source), num_threads=2, qsv_update_func=qsv_utils.min_max_update)
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(quantizer.get_quantization_recipe())
    names = [t.name for t in spec.inputs]
    items = [{f"args_{i}": frame[name] for i, name in enumerate(names)} for frame in frames]
    observer.calibrate({_SIGNATURE: items}, rules)
    ranges: dict[str, Any] = observer.get_model_qsvs()
    whole = flatbuffer_utils.read_model(str(source))
    changed = {}
    if chosen.method == "mse":
        changed = _least_squares(source, whole, items, ranges)
    changed |= {name: (0.0, 255 * scale) for _, name, scale in _fronts(whole) if name in ranges}
    for name, (low, high) in changed.items():
        ranges[name]["min"] = np.full_like(ranges[name]["min"], low)
        ranges[name]["max"] = np.full_like(ranges[name]["max"], high)
    return ranges


def _quantize(model: SourceModel, source: Path, chosen: Recipe, ranges: Mapping[str, Any]) -> bytes:
    quantizer = _quantizer(source, chosen, _scopes_in_float(model, source, chosen))
    from ai_edge_litert.tools import flatbuffer_utils

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / MODEL
        # A copy: the tool may write into what it is given.
        quantizer.quantize(copy.deepcopy(ranges)).export_model(str(out), overwrite=True)
        network = flatbuffer_utils.read_model(str(out))
        fronts = _fronts(flatbuffer_utils.read_model(str(source)))
        changed = [_let_pixels_in(network, *front) for front in fronts]
        if any([*changed, _read_int8(network)]):
            flatbuffer_utils.write_model(network, str(out))
        return out.read_bytes()


def _compress(source: Path, chosen: Recipe) -> bytes:
    """The file with weights in half precision or in int8, and float activations between operators."""
    quantizer, qtyping, recipe = _tools()
    if chosen.precision == "int8-wonly":
        tool = quantizer.Quantizer(str(source), recipe.dynamic_wi8_afp32())
    else:
        tool = quantizer.Quantizer(str(source))
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        tool.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key="float_casting",
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=half,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
        )
    return bytes(tool.quantize().quantized_model)


def _code(network: Any, operator: Any) -> str:
    """What an operator does, as the schema calls it."""
    from ai_edge_litert.tools.flatbuffer_utils import schema_fb

    kinds = {v: k for k, v in vars(schema_fb.BuiltinOperator).items() if isinstance(v, int)}
    return str(kinds[network.operatorCodes[operator.opcodeIndex].builtinCode])


def _fronts(network: Any) -> list[tuple[int, str, float]]:
    """Where pixels come in: of each uint8 input its place, and name and scale of the float tensor that it becomes.

    That is the pixels, cast and scaled by one number; an input that does not go into a cast alone is left out.
    """
    from ai_edge_litert.tools.flatbuffer_utils import schema_fb

    graph, found = network.subgraphs[0], []

    def only_user(index: int) -> Any:
        users = [op for op in graph.operators if index in op.inputs]
        return users[0] if len(users) == 1 else None

    for place, entry in enumerate(graph.inputs):
        cast = only_user(entry)
        is_pixels = graph.tensors[entry].type == schema_fb.TensorType.UINT8
        if not is_pixels or cast is None or _code(network, cast) != "CAST":
            continue
        scaled, scale = int(cast.outputs[0]), 1.0
        product = only_user(scaled)
        if product is not None and _code(network, product) == "MUL":
            (other,) = (i for i in product.inputs if i != scaled)
            data = network.buffers[graph.tensors[other].buffer].data
            values = np.frombuffer(bytes(data if data is not None else b""), np.float32)
            if len(values) == 1 and values[0] > 0:
                scaled, scale = int(product.outputs[0]), float(values[0])
        found.append((place, graph.tensors[scaled].name.decode(), scale))
    return found


def _let_pixels_in(network: Any, place: int, name: str, scale: float) -> bool:
    """Read int8 pixels straight from the uint8 ones: the zero points differ by 128, the scale is the same; in place.

    Args:
        network: quantized.
        place: of the pixels among the inputs.
        name: of the scaled pixels.
        scale: of a pixel.

    Returns:
        Whether it was so; not if the scaled pixels stayed float for some operator.
    """
    from ai_edge_litert.tools.flatbuffer_utils import schema_fb

    graph = network.subgraphs[0]
    entry = int(graph.inputs[place])
    makers = {int(i): op for op in graph.operators for i in op.outputs}
    quantizers = [op for op in graph.operators if _code(network, op) == "QUANTIZE"]
    names = {t.name.decode(): i for i, t in enumerate(graph.tensors)}
    # A product that became int8 itself has the name; one that stayed float, or a mere cast, is quantized after it.
    ends = [names[n] for n in (name, f"{name}_quantized") if n in names]
    ends = [i for i in ends if graph.tensors[i].type == schema_fb.TensorType.INT8]
    if not ends or not quantizers:
        return False
    target, path, at = ends[0], list[Any](), ends[0]
    while at != entry:
        path.append(makers[at])
        before = [int(i) for i in makers[at].inputs if int(i) in makers or i == entry]
        if len(before) != 1:
            return False
        at = before[0]
    inside = {int(i) for op in path for i in op.outputs} - {target}
    if any(int(i) in inside for op in graph.operators if op not in path for i in op.inputs):
        return False
    pixels = graph.tensors[entry]
    pixels.quantization = copy.deepcopy(graph.tensors[target].quantization)
    pixels.quantization.zeroPoint = np.array([0])
    step = next(op for op in path if _code(network, op) == "QUANTIZE")
    step.inputs, step.outputs = [entry], [target]
    graph.operators = [op for op in graph.operators if op is step or op not in path]
    return True


def _read_int8(network: Any) -> bool:
    """Let int8 operators read an output of the network, such as a state, before it is made float; in place.

    The tool gives them the float copy, which their kernels refuse.

    Args:
        network: quantized.

    Returns:
        Whether there was such an operator.
    """
    from ai_edge_litert.tools.flatbuffer_utils import schema_fb

    graph, found = network.subgraphs[0], False
    ends = {int(i) for i in graph.outputs}
    whole = {
        int(op.outputs[0]): int(op.inputs[0])
        for op in graph.operators
        if _code(network, op) == "DEQUANTIZE" and int(op.outputs[0]) in ends
    }
    for op in graph.operators:
        computes = all(graph.tensors[i].type == schema_fb.TensorType.INT8 for i in op.outputs)
        if computes and _code(network, op) != "QUANTIZE" and any(int(i) in whole for i in op.inputs):
            op.inputs, found = [whole.get(int(i), int(i)) for i in op.inputs], True
    return found


_ONNX_KINDS = {
    "CONV_2D": "Conv",
    "DEPTHWISE_CONV_2D": "Conv",
    "TRANSPOSE_CONV": "ConvTranspose",
    "FULLY_CONNECTED": "Gemm",
    "BATCH_MATMUL": "MatMul",
    "LOGISTIC": "Sigmoid",
    "CONCATENATION": "Concat",
    "MAX_POOL_2D": "MaxPool",
    "AVERAGE_POOL_2D": "AveragePool",
    "MEAN": "ReduceMean",
    "RESIZE_NEAREST_NEIGHBOR": "Resize",
    "RESIZE_BILINEAR": "Resize",
    "SLICE": "Split",
    "STRIDED_SLICE": "Slice",
    "HARD_SWISH": "HardSwish",
    "PRELU": "PRelu",
    "LEAKY_RELU": "LeakyRelu",
}
"""Operators that ONNX calls otherwise; the rest differ in capitals only (SOFTMAX, Softmax)."""


def _scopes_in_float(model: SourceModel, source: Path, chosen: Recipe) -> list[str]:
    """The quantizer's names of the operators that stay in float."""
    if not chosen.keep_float:
        return []
    from ai_edge_litert.tools import flatbuffer_utils as flat
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

    reference = of_onnx(model.onnx)
    in_float(reference, chosen.keep_float)  # refuses a name that the network does not have
    paths = [(op.weights, op.path) for op in reference if op.weights is not None]
    network = flat.read_model(str(source))
    graph = network.subgraphs[0]
    operators, scopes = [], {}
    for index, op in enumerate(graph.operators):
        code = _code(network, op)
        buffers = [network.buffers[graph.tensors[i].buffer].data for i in op.inputs[1:2] if i >= 0]
        kernels = [np.frombuffer(bytes(b), np.float32) for b in buffers if b is not None and len(b) % 4 == 0]
        weighted = kernels and code in (
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "TRANSPOSE_CONV",
            "FULLY_CONNECTED",
            "BATCH_MATMUL",
        )
        weights = fingerprint(kernels[0]) if weighted else None
        scopes[str(index)] = get_op_scope(op, graph.tensors)
        operators.append(
            Operator(
                name=str(index),
                kind=_ONNX_KINDS.get(code, code.title().replace("_", "")),
                inputs=tuple(str(i) for i in op.inputs if i >= 0),
                outputs=tuple(str(i) for i in op.outputs),
                path=next((path for known, path in paths if weights and same_weights(known, weights)), None),
                weights=weights,
            )
        )
    return [scopes[op.name] for op in located(operators) if named_by(op, chosen.keep_float)]
