"""LiteRT (TensorFlow Lite): Raspberry Pi and other small ARM boards.

The device runs ``ai-edge-litert``, or the older ``tflite-runtime`` where only that is installed.
"""

from __future__ import annotations

import copy
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize.blocks import Operator, fingerprint, in_float, located, named_by, of_onnx, same_weights
from edge_quantize.histogram import count_all, least_squares, spans
from edge_sdk.errors import CompileFailed, InferFailed, LoadFailed, MissingDependency
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import (
    CPU,
    INFER_REMEDY,
    Artifact,
    FloatModel,
    LoadOptions,
    SessionBase,
    Target,
    check_options,
    check_recipe,
    check_session_tensors,
)
from edge_sdk.tensors import Array, Tensors
from edge_targets.devices import first_that_loads
from edge_targets.ranges import LastRanges, key_of
from edge_targets.threads import thread_count
from edge_targets.vendor import vendor_errors

_MODEL = "model.tflite"
_SIGNATURE = "serving_default"
MAX_PARTITIONS = 8
"""More partitions than this are a warning: at each border tensors change hands and threads meet."""


def _import() -> Any:
    """The interpreter's module: the living package first, the old one second."""
    failures = []
    for name in ("ai_edge_litert", "tflite_runtime"):
        try:
            return __import__(f"{name}.interpreter", fromlist=["Interpreter"])
        except (ImportError, AttributeError) as error:  # AttributeError: tflite_runtime under numpy 2
            failures.append(f"{name}: {error}")
    raise MissingDependency(
        f"no TFLite engine can be imported ({'; '.join(failures)})",
        remedy="pip install 'face-edge-sdk[tflite]', or 'face-edge-sdk[tflite-runtime]' for the old engine",
    )


@dataclass(frozen=True)
class Partitions:
    """How a network is shared between XNNPACK and the interpreter's own, slower operators.

    Attributes:
        count: runs of operators that XNNPACK took over; between them the interpreter computes.
        operators: of the whole network.
        outside: kinds of operators that XNNPACK did not take, and how many of each.
    """

    count: int
    operators: int
    outside: Mapping[str, int]

    def __str__(self) -> str:
        """One line for people."""
        left = sum(self.outside.values())
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.outside.items()))
        taken = (
            f"XNNPACK runs {self.operators - left} of {self.operators} operators in {self.count} partition(s)"
        )
        return f"{taken}; outside: {kinds}" if left else taken


def partitions(interpreter: Any) -> Partitions | None:
    """What a loaded interpreter's delegate took; None where the interpreter does not tell.

    A delegate's node replaces the operators between the tensors that it reads and those that it writes; these are found
    by walking back from the latter to the former.
    """
    try:
        nodes = interpreter._get_ops_details()
    except AttributeError:
        return None
    delegates = [n for n in nodes if n["op_name"] == "DELEGATE"]
    operators = [n for n in nodes if n["op_name"] != "DELEGATE"]
    maker = {int(tensor): i for i, n in enumerate(operators) for tensor in n["outputs"]}
    taken: set[int] = set()
    for node in delegates:
        reads = {int(t) for t in node["inputs"]}
        ahead = [int(t) for t in node["outputs"]]
        while ahead:
            index = maker.get(ahead.pop())
            if index is not None and index not in taken:
                taken.add(index)
                ahead += [int(t) for t in operators[index]["inputs"] if int(t) not in reads]
    outside = Counter(str(n["op_name"]) for i, n in enumerate(operators) if i not in taken)
    return Partitions(len(delegates), len(operators), outside)


def _check_device(device: str) -> None:
    if device != CPU:
        raise LoadFailed(
            f"the tflite target runs on the processor, {device} was required", remedy=f"ask for {CPU}"
        )


class TfliteSession(SessionBase):
    """One frame after another through an interpreter with XNNPACK.

    Attributes:
        engine: an ``Interpreter``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions) -> None:
        check_options("tflite", options, known=("devices",))
        module = _import()
        self.input, self.outputs = spec.input, spec.outputs
        _, refused = first_that_loads(options.devices, _check_device)
        with vendor_errors(
            "tflite", LoadFailed, "the artifact was refused", "build the bundle again for this version"
        ):
            interpreter = module.Interpreter(
                model_content=artifact.files[_MODEL], num_threads=thread_count(options)
            )
            interpreter.allocate_tensors()
            (entry,) = interpreter.get_input_details()
            # Output names do not survive conversion; their order does, and the bundle records it.
            exits = dict(zip(artifact.outputs, interpreter.get_output_details(), strict=True))
        found = {
            name: (tuple(int(n) for n in d["shape"]), np.dtype(d["dtype"]).name)
            for name, d in {spec.input.name: entry, **exits}.items()
        }
        check_session_tensors(spec, "tflite", found)
        found_partitions = partitions(interpreter)
        self.notes = refused + (() if found_partitions is None else (str(found_partitions),))
        if found_partitions is not None and found_partitions.count > MAX_PARTITIONS:
            warnings.warn(f"{spec.name}: {found_partitions}", RuntimeWarning, stacklevel=2)
        self.engine: Any = interpreter
        self._entry = int(entry["index"])
        self._exits = tuple((name, int(d["index"])) for name, d in exits.items())

    def infer(self, pixels: Array) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        engine = self.engine
        # A plain try: a context manager costs 35 us a frame when caches are cold.
        try:
            engine.set_tensor(self._entry, pixels)
            engine.invoke()
            # Copies: a view that a caller still holds would make the next invoke fail.
            return {name: engine.get_tensor(index) for name, index in self._exits}
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"tflite: inference failed: {error}", remedy=INFER_REMEDY) from error

    def close(self) -> None:
        """Free the engine."""
        self.engine = None


class Tflite:
    """Target ``tflite``."""

    name = "tflite"
    distribution = "tflite"
    modules: tuple[str, ...] = ("ai_edge_litert", "tflite_runtime")

    def compile(self, model: FloatModel, *, recipe: Recipe, calibration: Sequence[Array]) -> Artifact:
        """Float: the file as it is. Int8: static ranges by ai-edge-quantizer, uint8 pixels in, float maps out.

        Half and int8 weights alone: the same tool's float casting, and its weights for dynamic ranges: the engine finds
        those of activations frame by frame. What the recipe's ``keep_float`` names is not quantized; operators are
        found by the ONNX graph's weights.
        """
        check_recipe(
            self.name,
            recipe,
            precisions=("fp32", "fp16", "int8", "int8-wonly", "int8-mixed"),
            granularities=("channel", "tensor") if recipe.calibrated else ("channel",),
            methods=("minmax", "mse"),
            keep_float=recipe.calibrated,
        )
        if model.tflite is None:
            raise CompileFailed(
                f"{model.spec.name}: the tflite target needs the float .tflite beside the ONNX",
                remedy="make it with litert-torch (docs/bring-your-own.md) and name it with --tflite; "
                "a zoo model: python -m edge_training.export",
            )
        data = model.tflite.read_bytes()
        if recipe.calibrated:
            with vendor_errors("tflite", CompileFailed, "quantization failed", "check the float .tflite"):
                data = _quantize(model, model.tflite, recipe, calibration)
        elif recipe.precision != "fp32":
            with vendor_errors("tflite", CompileFailed, "compression failed", "check the float .tflite"):
                data = _compress(model.tflite, recipe)
        return Artifact(
            files={_MODEL: data},
            outputs=_output_order(data, model.spec),
            fingerprint={"tflite": _version()},
        )

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> TfliteSession:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        return TfliteSession(artifact, spec, options)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in ("ai-edge-litert", "tflite-runtime"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "unknown"


def _output_order(data: bytes, spec: ModelSpec) -> tuple[str, ...]:
    """Spec names in the order of the file's outputs: the signature calls them output_0, output_1 ... as exported.

    Raises:
        CompileFailed: the file's outputs are not the spec's; names the first that differs.
    """
    interpreter = _import().Interpreter(model_content=data)
    exported = interpreter.get_signature_runner(_SIGNATURE).get_output_details()
    index_to_name = {}
    for i, tensor in enumerate(spec.outputs):
        found = exported.get(f"output_{i}")
        shape = None if found is None else tuple(int(n) for n in found["shape"])
        if shape != tensor.shape or len(exported) != len(spec.outputs):
            raise CompileFailed(
                f"the float .tflite has {len(exported)} outputs, output_{i} of shape {shape}; "
                f"the spec wants {len(spec.outputs)}, there {tensor.name!r} {tensor.shape}",
                remedy="make it with the spec's outputs, in its order: docs/bring-your-own.md",
            )
        index_to_name[int(found["index"])] = tensor.name
    return tuple(index_to_name[int(d["index"])] for d in interpreter.get_output_details())


def _least_squares(
    source: Path, network: Any, calibration: Sequence[Array], ranges: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Ranges that cost least squared error, of what operators compute inside the float network, by tensor.

    Args:
        source: the float file.
        network: the same, parsed.
        calibration: input tensors.
        ranges: the whole range of every tensor by name, as the tool has them.
    """
    tflite, (graph,) = _import(), network.subgraphs
    computed = {o for op in graph.operators for o in op.outputs} - set(graph.outputs)
    # Without delegates, which keep what they compute inside to themselves.
    interpreter = tflite.Interpreter(
        model_path=str(source),
        experimental_op_resolver_type=tflite.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
        num_threads=2,
    )
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    known = {index: ranges.get(graph.tensors[index].name.decode()) for index in computed}
    of_one = {index: seen for index, seen in known.items() if seen and np.size(seen["min"]) == 1}
    whole = spans({i: (float(np.min(seen["min"])), float(np.max(seen["max"]))) for i, seen in of_one.items()})

    def frames() -> Iterator[dict[int, Array]]:
        for pixels in calibration:
            interpreter.set_tensor(entry["index"], pixels)
            interpreter.invoke()
            yield {index: interpreter.get_tensor(index) for index in whole}

    counts = count_all(frames(), whole)
    return {graph.tensors[i].name.decode(): least_squares(counts[i], *span) for i, span in whole.items()}


_RANGES = LastRanges[Any]()


def _quantize(model: FloatModel, source: Path, chosen: Recipe, calibration: Sequence[Array]) -> bytes:
    try:
        from ai_edge_litert.tools import flatbuffer_utils
        from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils
    except ImportError as error:
        raise MissingDependency(
            f"ai-edge-quantizer cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error

    def tool(scopes: Sequence[str]) -> Any:
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

    key = key_of(source, calibration, chosen.method)
    ranges = _RANGES.get(key)
    whole = flatbuffer_utils.read_model(str(source))
    entry = _pixels_in(whole)
    if ranges is None:
        # By itself the tool averages the pictures' extremes, which cuts off what they differ in.
        observer = calibrator.Calibrator(str(source), num_threads=2, qsv_update_func=qsv_utils.min_max_update)
        rules = recipe_manager.RecipeManager()
        rules.load_quantization_recipe(tool(()).get_quantization_recipe())
        observer.calibrate({_SIGNATURE: [{"args_0": pixels} for pixels in calibration]}, rules)
        ranges = observer.get_model_qsvs()
        if chosen.method == "mse":
            found = _least_squares(source, whole, calibration, ranges)
            for name, (low, high) in found.items():
                ranges[name]["min"] = np.full_like(ranges[name]["min"], low)
                ranges[name]["max"] = np.full_like(ranges[name]["max"], high)
        if entry is not None:
            name, scale = entry
            ranges[name]["min"] = np.full_like(ranges[name]["min"], 0)
            ranges[name]["max"] = np.full_like(ranges[name]["max"], 255 * scale)
        _RANGES.put(key, ranges)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / _MODEL
        # A copy: the tool may write into what it is given.
        result = tool(_scopes_in_float(model, source, chosen)).quantize(copy.deepcopy(ranges))
        result.export_model(str(out), overwrite=True)
        network = flatbuffer_utils.read_model(str(out))
        if entry is not None and _let_pixels_in(network, *entry):
            flatbuffer_utils.write_model(network, str(out))
        return out.read_bytes()


def _compress(source: Path, chosen: Recipe) -> bytes:
    """The file with weights in half precision or in int8, and float activations between operators."""
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe
    except ImportError as error:
        raise MissingDependency(
            f"ai-edge-quantizer cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
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


def _pixels_in(network: Any) -> tuple[str, float] | None:
    """Name and scale of the float tensor that is the pixels, cast and scaled by one number; None without a cast."""
    graph = network.subgraphs[0]

    def only_user(index: int) -> Any:
        users = [op for op in graph.operators if index in op.inputs]
        return users[0] if len(users) == 1 else None

    cast = only_user(graph.inputs[0])
    if cast is None or _code(network, cast) != "CAST":
        return None
    found, scale = int(cast.outputs[0]), 1.0
    product = only_user(found)
    if product is not None and _code(network, product) == "MUL":
        (other,) = (i for i in product.inputs if i != found)
        data = network.buffers[graph.tensors[other].buffer].data
        values = np.frombuffer(bytes(data if data is not None else b""), np.float32)
        if len(values) == 1 and values[0] > 0:
            found, scale = int(product.outputs[0]), float(values[0])
    return graph.tensors[found].name.decode(), scale


def _let_pixels_in(network: Any, name: str, scale: float) -> bool:
    """Read int8 pixels straight from the uint8 ones: the zero points differ by 128, the scale is the same; in place.

    Args:
        network: quantized.
        name: of the scaled pixels.
        scale: of a pixel.

    Returns:
        Whether it was so; not if the scaled pixels stayed float for some operator.
    """
    from ai_edge_litert.tools.flatbuffer_utils import schema_fb

    graph = network.subgraphs[0]
    makers = {int(i): op for op in graph.operators for i in op.outputs}
    quantizers = [op for op in graph.operators if _code(network, op) == "QUANTIZE"]
    names = {t.name.decode(): i for i, t in enumerate(graph.tensors)}
    # A product that became int8 itself has the name; one that stayed float, or a mere cast, is quantized after it.
    ends = [names[n] for n in (name, f"{name}_quantized") if n in names]
    ends = [i for i in ends if graph.tensors[i].type == schema_fb.TensorType.INT8]
    if not ends or not quantizers:
        return False
    target, path, at = ends[0], list[Any](), ends[0]
    while at != graph.inputs[0]:
        path.append(makers[at])
        before = [int(i) for i in makers[at].inputs if int(i) in makers or i == graph.inputs[0]]
        if len(before) != 1:
            return False
        at = before[0]
    inside = {int(i) for op in path for i in op.outputs} - {target}
    if any(int(i) in inside for op in graph.operators if op not in path for i in op.inputs):
        return False
    pixels = graph.tensors[graph.inputs[0]]
    pixels.quantization = copy.deepcopy(graph.tensors[target].quantization)
    pixels.quantization.zeroPoint = np.array([0])
    step = next(op for op in path if _code(network, op) == "QUANTIZE")
    step.inputs, step.outputs = [graph.inputs[0]], [target]
    graph.operators = [op for op in graph.operators if op is step or op not in path]
    return True


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


def _scopes_in_float(model: FloatModel, source: Path, chosen: Recipe) -> list[str]:
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


TARGET: Target = Tflite()
