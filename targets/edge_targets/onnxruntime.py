"""onnxruntime: the portable default, on every processor that has a wheel."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_sdk.errors import CompileFailed, InferFailed, LoadFailed, MissingDependency
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import (
    INFER_REMEDY,
    Artifact,
    FloatModel,
    LoadOptions,
    SessionBase,
    Target,
    check_recipe,
    check_session_tensors,
)
from edge_sdk.tensors import Array, Tensors
from edge_targets.threads import thread_count
from edge_targets.vendor import vendor_errors

_MODEL = "model.onnx"
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


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
    """One frame after another through onnxruntime's CPU provider.

    Attributes:
        engine: an ``onnxruntime.InferenceSession``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions) -> None:
        ort = _import()
        self.input, self.outputs = spec.input, spec.outputs
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = thread_count(options)
        settings.inter_op_num_threads = 1
        # Threads that spin between frames starve the camera and the other engines of a small board.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        with vendor_errors(
            "onnxruntime", LoadFailed, "the artifact was refused", "build the bundle again for this version"
        ):
            session = ort.InferenceSession(
                artifact.files[_MODEL], settings, providers=["CPUExecutionProvider"]
            )
        found = {
            t.name: (tuple(t.shape), _DTYPES.get(t.type, t.type))
            for t in (*session.get_inputs(), *session.get_outputs())
        }
        check_session_tensors(spec, "onnxruntime", found)
        self._names = [t.name for t in spec.outputs]
        self.engine: Any = session

    def infer(self, pixels: Array) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        # A plain try: a context manager costs 35 us a frame when caches are cold.
        try:
            outputs = self.engine.run(self._names, {self.input.name: pixels})
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"onnxruntime: inference failed: {error}", remedy=INFER_REMEDY) from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        """Free the engine."""
        self.engine = None


class OnnxRuntime:
    """Target ``onnxruntime``."""

    name = "onnxruntime"
    distribution = "onnxruntime"
    modules: tuple[str, ...] = ("onnxruntime",)

    def compile(self, model: FloatModel, *, recipe: Recipe, calibration: Sequence[Array]) -> Artifact:
        """Float: the graph as it is. Int8: QDQ with unsigned activations and signed per-channel weights.

        Unsigned activations, because signed ones ran about twice as slow as float on x86.
        """
        check_recipe(self.name, recipe, precisions=("fp32", "int8"))
        data = model.onnx.read_bytes()
        if recipe.precision == "int8":
            with vendor_errors(
                "onnxruntime", CompileFailed, "quantization failed", "check the graph with onnx.checker"
            ):
                data = _quantize(model, calibration)
        return Artifact(
            files={_MODEL: data},
            outputs=tuple(t.name for t in model.spec.outputs),
            fingerprint=_fingerprint(),
        )

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> OnnxRuntimeSession:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        return OnnxRuntimeSession(artifact, spec, options)


def _fingerprint() -> Mapping[str, str]:
    return {"onnxruntime": str(_import().__version__)}


def _quantize(model: FloatModel, calibration: Sequence[Array]) -> bytes:
    from onnxruntime.quantization import (
        CalibrationDataReader,
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

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(str(model.onnx), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantized),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return quantized.read_bytes()


TARGET: Target = OnnxRuntime()
