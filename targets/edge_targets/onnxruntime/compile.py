"""onnxruntime: the portable default, on every processor that has a wheel.

Other execution providers than the processor's run only when they are named, and never hand over to it unseen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize.blocks import in_float, of_onnx
from edge_quantize.histogram import count_all, least_squares, spans
from edge_quantize.pixels import front, let_in
from edge_quantize.qdq import amax, inner
from edge_quantize.trained import for_onnxruntime
from edge_sdk.errors import CompileFailed, InferFailed, InputError, LoadFailed, MissingDependency
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

_MODEL = "model.onnx"
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
PROVIDERS = {
    CPU: "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
    "QNN": "QNNExecutionProvider",
    "XNNPACK": "XnnpackExecutionProvider",
    "OpenVINO": "OpenVINOExecutionProvider",
}
"""Devices by the names that a caller uses."""
_PACKAGES = {
    "CUDA": "pip install onnxruntime-gpu, in an environment without onnxruntime",
    "TensorRT": "pip install onnxruntime-gpu, in an environment without onnxruntime, beside the system's TensorRT",
    "QNN": "pip install onnxruntime-qnn, in an environment without onnxruntime",
    "OpenVINO": "pip install onnxruntime-openvino, in an environment without onnxruntime",
}


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"onnxruntime cannot be imported: {error}",
            remedy="pip install 'face-edge-sdk[onnxruntime]'",
        ) from error
    return onnxruntime


class OnnxRuntimeSession(SessionBase):
    """One frame after another through one execution provider, over bound memory: no tensor is allocated for a frame.

    Attributes:
        engine: an ``onnxruntime.InferenceSession``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions) -> None:
        check_options("onnxruntime", options, known=("devices", "spinning", "small_memory"))
        ort = _import()
        self.input, self.outputs = spec.input, spec.outputs
        (session, self.device), self.notes = first_that_loads(
            options.devices, lambda device: _open(ort, artifact, device, options)
        )
        found = {
            t.name: (tuple(t.shape), _DTYPES.get(t.type, t.type))
            for t in (*session.get_inputs(), *session.get_outputs())
        }
        check_session_tensors(spec, "onnxruntime", found)
        self.engine: Any = session
        self._value, self._binding = ort.OrtValue.ortvalue_from_numpy, session.io_binding()
        self._bound: Array | None = None
        # Bound once: every frame's answer is read from the same arrays.
        self._views = {t.name: np.empty(t.shape, t.dtype) for t in spec.outputs}
        for name, view in self._views.items():
            self._binding.bind_ortvalue_output(name, self._value(view))

    def infer(self, pixels: Array) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        # A plain try: a context manager costs 35 us a frame when caches are cold.
        try:
            if pixels is not self._bound:
                # The letterbox draws every frame on the same canvas: it is bound once, and nothing is copied.
                self._binding.bind_ortvalue_input(self.input.name, self._value(pixels))
                self._bound = pixels
            self.engine.run_with_iobinding(self._binding)
        except Exception as error:  # vendor exceptions share no base class
            self._bound = None
            raise InferFailed(f"onnxruntime: inference failed: {error}", remedy=INFER_REMEDY) from error
        return self._views

    def close(self) -> None:
        """Free the engine; arrays handed out before are void."""
        self._views, self.engine, self._binding, self._bound = {}, None, None, None


class OnnxRuntime:
    """Target ``onnxruntime``."""

    name = "onnxruntime"
    distribution = "onnxruntime"
    modules: tuple[str, ...] = ("onnxruntime",)

    def compile(self, model: FloatModel, *, recipe: Recipe, calibration: Sequence[Array]) -> Artifact:
        """Float: the graph as it is. Half: its weights in float16, cast back when it is loaded. Int8: QDQ, with trained
        ranges the quantized graph's own.

        What the recipe's ``keep_float`` names gets no QDQ.

        Int8 activations are unsigned unless the recipe says symmetric, because signed ones ran about twice as slow as
        float on x86. Int8 weights alone are refused: the tool's dynamic quantization quantizes activations too, frame
        by frame.
        """
        check_recipe(
            self.name,
            recipe,
            precisions=("fp32", "fp16", "int8", "int8-mixed"),
            granularities=("channel", "tensor"),
            methods=(*_METHODS, "trained"),
            symmetric=(None, False, True),
            keep_float=True,
        )
        data = model.onnx.read_bytes()
        if recipe.precision == "fp16":
            data = _halve(model.onnx)
        elif recipe.trained:
            data = _trained(model)
        elif recipe.calibrated:
            with vendor_errors(
                "onnxruntime", CompileFailed, "quantization failed", "check the graph with onnx.checker"
            ):
                data = _quantize(model, recipe, calibration)
        return Artifact(
            files={_MODEL: data},
            outputs=tuple(t.name for t in model.spec.outputs),
            fingerprint=_fingerprint(),
        )

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> OnnxRuntimeSession:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        return OnnxRuntimeSession(artifact, spec, options)


def _open(ort: Any, artifact: Artifact, device: str, options: LoadOptions) -> tuple[Any, str]:
    """An inference session, and the device or devices that its nodes really lie on."""
    provider = PROVIDERS.get(device)
    if provider is None:
        raise InputError(
            f"onnxruntime knows no device {device!r}", remedy=f"use one of {', '.join(PROVIDERS)}"
        )
    if provider not in (has := ort.get_available_providers()):
        raise LoadFailed(
            f"this onnxruntime was built without {provider}: it has {', '.join(has)}",
            remedy=_PACKAGES.get(device, f"build onnxruntime with {provider}"),
        )
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = thread_count(options)
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    for key, value in {
        # Threads that spin between frames starve the camera and the other engines of a small board.
        "session.intra_op.allow_spinning": str(int(options.spinning)),
        # For what _placed asks.
        "session.record_ep_graph_assignment_info": str(int(device != CPU)),
    }.items():
        settings.add_session_config_entry(key, value)
    if options.small_memory:
        settings.enable_cpu_mem_arena = settings.enable_mem_pattern = False
    providers = [provider] if device == CPU else [provider, PROVIDERS[CPU]]
    with vendor_errors(
        "onnxruntime", LoadFailed, "the artifact was refused", "build the bundle again for this version"
    ):
        session = ort.InferenceSession(artifact.files[_MODEL], settings, providers=providers)
        session.disable_fallback()
    return session, device if device == CPU else _placed(session, device)


def _placed(session: Any, device: str) -> str:
    """Where the nodes went: onnxruntime turns to the processor without a word when a provider fails or takes none."""
    used = {PROVIDERS[device]} if PROVIDERS[device] in session.get_providers() else set()
    if used and hasattr(session, "get_provider_graph_assignment_info"):  # onnxruntime 1.24 and later
        used = {part.ep_name for part in session.get_provider_graph_assignment_info()}
    if PROVIDERS[device] not in used:
        raise LoadFailed(
            f"onnxruntime runs this network on the processor, {device} was required",
            remedy=f"see why {PROVIDERS[device]} cannot start or takes no node: set ORT_LOG_LEVEL=0; or ask for CPU",
        )
    return f"{device}+{CPU}" if PROVIDERS[CPU] in used else device


def _fingerprint() -> Mapping[str, str]:
    return {"onnxruntime": str(_import().__version__)}


_RANGES = LastRanges[bytes]()
_METHODS = {"minmax": "MinMax", "mse": "MinMax", "percentile": "Percentile"}
"""A recipe's word and the tool's. Not its Entropy: of 128 bins it makes 128 levels, which leaves the whole range.
It has none of least squared error: :func:`_least_squares` cuts off what its minima and maxima hold too much."""


def _halve(path: Path) -> bytes:
    """The graph with float weights stored as float16; onnxruntime folds the casts when it loads the graph."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    network = onnx.load(str(path))
    graph, casts = network.graph, []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    graph.node.extend([*casts, *(nodes := list(graph.node))])
    del graph.node[: len(nodes)]
    data: bytes = network.SerializeToString(deterministic=True)
    return data


def _trained(model: FloatModel) -> bytes:
    """The quantized graph in the form that the kernels want."""
    import onnx

    assert model.quantized is not None, "the workbench asks for it"
    with vendor_errors(
        "onnxruntime", CompileFailed, "conversion failed", "check the graph with onnx.checker"
    ):
        graph = for_onnxruntime(onnx.load(str(model.quantized)))
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _of_pixels(scale: float) -> dict[str, Any]:
    """Quantization in which the integers are the pixels."""
    from onnxruntime.quantization import QuantType

    zero = np.array(0, np.uint8)
    return {"quant_type": QuantType.QUInt8, "scale": np.array(scale, np.float32), "zero_point": zero}


def _quantize(model: FloatModel, recipe: Recipe, calibration: Sequence[Array]) -> bytes:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self._items = iter(calibration)

        def get_next(self) -> dict[str, Array] | None:
            pixels = next(self._items, None)
            return None if pixels is None else {model.spec.input.name: pixels}

    key = key_of(model.onnx, calibration, recipe.method, recipe.symmetric)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        ranges = Path(folder) / "ranges.json"
        quant_pre_process(str(model.onnx), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(prepared))
        for node in graph.graph.node:  # exclusion is by name
            node.name = node.name or node.output[0]
        onnx.save(graph, str(prepared))
        entry = front(graph)
        if recipe.symmetric:  # pixels are unsigned
            entry = None
        own_scale = {} if entry is None else {entry.scaled: [_of_pixels(entry.scale)]}
        if known := _RANGES.get(key):
            ranges.write_bytes(known)

        def quantize(keep_float: Sequence[str]) -> None:
            stay = [op.name for op in in_float(of_onnx(graph), keep_float)]
            quantize_static(
                str(prepared),
                str(quantized),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=recipe.granularity == "channel",
                calibrate_method=CalibrationMethod[_METHODS[recipe.method]],
                activation_type=QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*(entry.nodes if entry else ()), *stay],
                calibration_cache_path=str(ranges),
                extra_options={
                    "TensorQuantOverrides": own_scale,
                    "ActivationSymmetric": bool(recipe.symmetric),
                },
            )

        if not known:
            quantize(())  # the ranges of every tensor, whatever the next recipe keeps in float
            if recipe.method == "mse":
                _least_squares(graph, calibration, ranges, symmetric=bool(recipe.symmetric))
            _RANGES.put(key, ranges.read_bytes())
        if known or recipe.keep_float or recipe.method == "mse":
            quantize(recipe.keep_float)
        made = onnx.load(str(quantized))
        if entry is not None and let_in(made, entry):
            onnx.save(made, str(quantized))
        return quantized.read_bytes()


def _least_squares(network: Any, calibration: Sequence[Array], file: Path, *, symmetric: bool) -> None:
    """Put ranges of least squared error in the place of whole ones, of what nodes compute inside the float network.

    Args:
        network: ``onnx.ModelProto``, float.
        calibration: input tensors.
        file: the tool's ranges of this network; rewritten.
        symmetric: with zero in the middle.
    """
    from onnxruntime.quantization.calibrate import TensorData, load_tensors_data, save_tensors_data

    ranges = load_tensors_data(file)
    ends = {value.name for value in (*network.graph.input, *network.graph.output)}
    inside = {name: seen for name, seen in ranges.items() if name not in ends}
    whole = spans({n: (float(np.min(s.lowest)), float(np.max(s.highest))) for n, s in inside.items()})
    if symmetric:
        reached = amax(network, list(whole), calibration, "mse")
        found = {name: (-top, top) for name, top in reached.items()}
    else:
        counts = count_all(inner(network, list(whole), calibration), whole)
        found = {name: least_squares(counts[name], *span) for name, span in whole.items()}
    for name, (low, high) in found.items():
        ranges[name] = TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
    save_tensors_data(ranges, file)


TARGET: Target = OnnxRuntime()
