"""OpenVINO: Intel processors, graphics and NPUs, and a fast choice on other x86 and ARM processors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize.blocks import in_float, of_onnx
from edge_sdk.engine_cache import EngineCache
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
from edge_targets.threads import thread_count
from edge_targets.vendor import vendor_errors

_XML, _BIN = "model.xml", "model.bin"
_DTYPES = {"u8": "uint8", "f32": "float32"}
_DEVICE = re.compile(r"(CPU|GPU|NPU)(\.[0-9]+)?|AUTO(:(CPU|GPU|NPU)(\.[0-9]+)?(,(CPU|GPU|NPU)(\.[0-9]+)?)*)?")
_DRIVERS = {
    "GPU": "install Intel's graphics driver (Debian, Ubuntu: apt install intel-opencl-icd) and join the group render",
    "NPU": "install Intel's NPU driver and join the group render",
}
_GENERATED = re.compile(r"\b([A-Z][A-Za-z]+)_[0-9]+\b")


def _import() -> Any:
    try:
        with _unreported():
            import openvino
    except ImportError as error:
        raise MissingDependency(
            f"openvino cannot be imported: {error}", remedy="pip install 'face-edge-sdk[openvino]'"
        ) from error
    return openvino


@contextmanager
def _unreported() -> Iterator[None]:
    """Import without ``openvino_telemetry``: with it, OpenVINO and NNCF fork processes that report to their maker."""
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python is told that a module is not there
    try:
        yield
    finally:
        del sys.modules[name]


class OpenVinoSession(SessionBase):
    """One frame after another through a single infer request, over bound memory: no tensor is allocated for a frame.

    Attributes:
        engine: an ``openvino.InferRequest``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions) -> None:
        check_options("openvino", options, known=("devices", "hint", "streams"))
        ov = _import()
        self.input, self.outputs = spec.input, spec.outputs
        core = ov.Core()
        compiled, self.notes = first_that_loads(
            options.devices, lambda device: _open(ov, core, artifact, device, options)
        )
        self.device = "+".join(compiled.get_property("EXECUTION_DEVICES")) or CPU
        self.engine: Any = compiled.create_infer_request()
        ports = {p.any_name: p for p in (*compiled.inputs, *compiled.outputs)}
        found = {
            name: (tuple(p.shape), _DTYPES.get(p.element_type.get_type_name(), "other"))
            for name, p in ports.items()
        }
        check_session_tensors(spec, "openvino", found)
        self._entry, self._tensor = ports[spec.input.name], ov.Tensor
        self._bound: Array | None = None
        self._kept: Array | None = None
        # Bound once: every frame's answer is read from the request's own memory.
        self._views = {t.name: self.engine.get_tensor(ports[t.name]).data for t in spec.outputs}

    def infer(self, pixels: Array) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        # A plain try: a context manager costs 35 us a frame when caches are cold.
        try:
            if pixels is not self._bound:
                # The letterbox draws every frame on the same canvas: it is bound once, and nothing is copied.
                writable = pixels if pixels.flags.writeable else pixels.copy()
                self.engine.set_tensor(self._entry, self._tensor(writable, shared_memory=True))
                # A copy is made of what cannot be shared, and must be made again for the next frame.
                self._bound = pixels if writable is pixels else None
                self._kept = writable
            self.engine.start_async()
            self.engine.wait()
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"openvino: inference failed: {error}", remedy=INFER_REMEDY) from error
        return self._views

    def close(self) -> None:
        """Free the engine; views handed out before are void."""
        self._views, self.engine, self._bound, self._kept = {}, None, None, None


class OpenVino:
    """Target ``openvino``."""

    name = "openvino"
    distribution = "openvino"
    modules: tuple[str, ...] = ("openvino",)

    def compile(self, model: FloatModel, *, recipe: Recipe, calibration: Sequence[Array]) -> Artifact:
        """Float: the graph as IR. Int8: NNCF with the MIXED preset (symmetric weights, asymmetric activations).

        fp16: weights stored in half precision; a processor computes with them in float, a GPU or NPU in half. What the
        recipe's ``keep_float`` names is NNCF's ignored scope: OpenVINO keeps the ONNX names of operators.
        """
        check_recipe(
            self.name,
            recipe,
            precisions=("fp32", "fp16", "int8", "int8-wonly", "int8-mixed"),
            methods=("minmax", "mse", "percentile"),
            symmetric=(None, False, True),
            keep_float=recipe.calibrated,
        )
        ov = _import()
        with vendor_errors(
            "openvino", CompileFailed, "conversion failed", "check the graph with onnx.checker"
        ):
            network = ov.convert_model(str(model.onnx))
            if recipe.calibrated:
                network = _quantize(network, model, recipe, calibration)
            elif recipe.precision == "int8-wonly":
                nncf = _import_nncf()
                network = nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_SYM)
            _name_by_order(network)
            with tempfile.TemporaryDirectory() as folder:
                ov.save_model(network, str(Path(folder) / _XML), compress_to_fp16=recipe.precision == "fp16")
                files = {name: (Path(folder) / name).read_bytes() for name in (_BIN, _XML)}
        return Artifact(
            files=files,
            outputs=tuple(t.name for t in model.spec.outputs),
            fingerprint={"openvino": str(ov.__version__).split("-")[0]},
        )

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> OpenVinoSession:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        return OpenVinoSession(artifact, spec, options)


def _open(ov: Any, core: Any, artifact: Artifact, device: str, options: LoadOptions) -> Any:
    """The network compiled for a device that is there."""
    if not _DEVICE.fullmatch(device):
        raise InputError(
            f"openvino knows no device {device!r}", remedy="use CPU, GPU, GPU.1, NPU, AUTO or AUTO:GPU,CPU"
        )
    threads = thread_count(options)
    if options.streams is not None and options.streams > threads:
        raise InputError(
            f"{options.streams} streams were asked for, and {threads} threads to compute them",
            remedy="ask for as many threads as streams, or for fewer streams",
        )
    if device != CPU:  # looking for devices wakes every driver
        _check_present(core, device)
    config: dict[str, Any] = {"PERFORMANCE_HINT": options.hint.upper()}
    if options.streams is not None:
        config["NUM_STREAMS"] = options.streams
    processor = {
        "INFERENCE_NUM_THREADS": threads,
        # The default silently computes float layers in bf16 where the processor can: not what was gated.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if device == CPU:
        config |= processor
    elif device.startswith("AUTO"):
        config |= {
            "DEVICE_PROPERTIES": {CPU: processor},
            # It would answer from the processor until the other device is ready, and when that fails.
            "ENABLE_STARTUP_FALLBACK": False,
            "ENABLE_RUNTIME_FALLBACK": False,
        }
    with vendor_errors(
        "openvino", LoadFailed, "the artifact was refused", "build the bundle again for this version"
    ):
        if device.startswith("AUTO"):  # which cannot be exported: what it chose may differ next time
            return core.compile_model(_read(ov, core, artifact), device, config)
        return _compiled(ov, core, artifact, device, config, options.cache)


def _check_present(core: Any, device: str) -> None:
    has = core.available_devices
    for name in device.removeprefix("AUTO").removeprefix(":").split(","):
        if name and name not in has and not any(h.split(".")[0] == name for h in has):
            raise LoadFailed(
                f"OpenVINO sees no {name} here, only {', '.join(has)}",
                remedy=_DRIVERS.get(name.split(".")[0], "ask for a device that is there"),
            )


def _read(ov: Any, core: Any, artifact: Artifact) -> Any:
    return core.read_model(artifact.files[_XML], ov.Tensor(_blob(artifact.files[_BIN])))


def _compiled(
    ov: Any, core: Any, artifact: Artifact, device: str, config: dict[str, Any], cache: EngineCache | None
) -> Any:
    """The network ready for a device: as this machine compiled it before, or compiled now."""
    facts = {
        **{name: hashlib.sha256(data).hexdigest() for name, data in artifact.files.items()},
        "openvino": str(ov.__version__),
        "device": f"{device} {core.get_property(device, 'FULL_DEVICE_NAME')}",
        "capabilities": " ".join(core.get_property(device, "OPTIMIZATION_CAPABILITIES")),
        "config": json.dumps(config, sort_keys=True),
    }
    if cache and (engine := cache.get(facts)):
        # Ours and whole, says its MAC; if the engine refuses it all the same, it is compiled as if there were none.
        with contextlib.suppress(RuntimeError):
            return core.import_model(engine, device, config)
    compiled = core.compile_model(_read(ov, core, artifact), device, config)
    if cache:
        cache.put(facts, compiled.export_model().getvalue())
    return compiled


def _blob(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


def _name_by_order(network: Any) -> None:
    """Rename generated nodes by their order in the graph.

    Their names count all nodes that this process ever made, so that the second of two equal builds would differ.
    """
    numbers: dict[str, int] = {}
    for node in network.get_ordered_ops():
        name = _GENERATED.sub(
            lambda found: f"{found[1]}_{numbers.setdefault(found[0], len(numbers))}", node.get_friendly_name()
        )
        node.set_friendly_name(name)


def _import_nncf() -> Any:
    try:
        with _unreported():
            import nncf
    except ImportError as error:
        raise MissingDependency(
            f"nncf cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    return nncf


def _quantize(network: Any, model: FloatModel, recipe: Recipe, calibration: Sequence[Array]) -> Any:
    nncf = _import_nncf()
    # Also for minmax: by itself the tool averages the pictures' extremes, which cuts off what they differ in.
    estimators = nncf.quantization.range_estimator.RangeEstimatorParametersSet
    ranges = {
        "minmax": estimators.MINMAX,
        "mse": estimators.HISTOGRAM,
        "percentile": estimators.MEAN_QUANTILE,
    }
    advanced = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges[recipe.method])
    items = [{model.spec.input.name: pixels} for pixels in calibration]
    quantized = nncf.quantize(
        network,
        nncf.Dataset(items),
        preset=nncf.QuantizationPreset.PERFORMANCE if recipe.symmetric else nncf.QuantizationPreset.MIXED,
        subset_size=len(items),
        advanced_parameters=advanced,
        # Not validated: a constant of an ignored operator is no node to NNCF.
        ignored_scope=nncf.IgnoredScope(names=_ignored(network, model, recipe), validate=False),
    )
    _let_pixels_in(quantized)
    return quantized


def _let_pixels_in(network: Any) -> None:
    """Give the pixels' own quantization the steps that they have, 0 to 255: the engine then leaves it out."""
    from openvino import opset13

    node, scale = network.get_parameters()[0], 1.0
    while True:
        users = [entry.get_node() for entry in node.output(0).get_target_inputs()]
        if len(users) != 1:
            return
        node = users[0]
        kind = node.get_type_name()
        if kind == "Multiply":
            factors = [
                v.get_node() for v in node.input_values() if v.get_node().get_type_name() == "Constant"
            ]
            values = factors[0].get_data().reshape(-1) if factors else np.zeros(0)
            if len(values) != 1 or not values[0] > 0:
                return
            scale *= float(values[0])
        elif kind == "FakeQuantize":
            break
        elif kind not in ("Convert", "Transpose"):
            return
    if node.get_attributes()["levels"] != 256:
        return
    for index, limit in ((1, 0.0), (2, 255.0), (3, 0.0), (4, 255.0)):
        constant = opset13.constant(np.float32(limit * scale))
        constant.set_friendly_name(node.input_value(index).get_node().get_friendly_name())
        node.input(index).replace_source_output(constant.output(0))


def _ignored(network: Any, model: FloatModel, recipe: Recipe) -> list[str]:
    """Names of the operators that stay in float; a convolution is two here, with and without its bias."""
    chosen = (
        {op.name for op in in_float(of_onnx(model.onnx), recipe.keep_float)} if recipe.keep_float else set()
    )
    names = [str(op.get_friendly_name()) for op in network.get_ordered_ops()]
    return [name for name in names if name in chosen or name.rpartition("/")[0] in chosen]


TARGET: Target = OpenVino()
