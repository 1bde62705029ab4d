"""What a device runs of the onnxruntime target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge_sdk import onnx_file
from edge_sdk.adapter import (
    INFER_REMEDY,
    Ownership,
    SessionBase,
    check_session_tensors,
    thread_count,
    vendor_errors,
)
from edge_sdk.errors import CompileFailed, InferFailed, InputError, LoadFailed, MissingDependency
from edge_sdk.spec import ModelSpec
from edge_sdk.target import CPU, Artifact, LoadOptions
from edge_sdk.tensors import Array, Tensors
from edge_targets.device_fallback import first_that_loads
from edge_targets.onnxruntime.options import Options

MODEL = "model.onnx"
"""File of the artifact."""
PROVIDERS = {
    CPU: "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
    "QNN": "QNNExecutionProvider",
    "XNNPACK": "XnnpackExecutionProvider",
    "OpenVINO": "OpenVINOExecutionProvider",
}
"""Execution providers by the names of devices that a caller uses."""
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_PACKAGES = {
    "CUDA": "pip install onnxruntime-gpu, in an environment without onnxruntime",
    "TensorRT": "pip install onnxruntime-gpu, in an environment without onnxruntime, beside the system's TensorRT",
    "QNN": "pip install onnxruntime-qnn, in an environment without onnxruntime",
    "OpenVINO": "pip install onnxruntime-openvino, in an environment without onnxruntime",
}


def import_onnxruntime() -> Any:
    """The vendor's module.

    Raises:
        MissingDependency: it is not installed, or cannot be imported.
    """
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

    Args:
        artifact: with a ``model.onnx``.
        spec: of the network.
        options: of every engine.
        own: of onnxruntime alone.

    Attributes:
        handle: an ``onnxruntime.InferenceSession``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions, own: Options) -> None:
        ort = import_onnxruntime()
        self._ownership = Ownership(self)
        check_file(artifact)
        self.inputs, self.outputs = spec.inputs, spec.outputs
        (session, self.device), self.notes = first_that_loads(
            options.devices, lambda device: _open(ort, artifact, device, options, own)
        )
        found = {
            t.name: (tuple(t.shape), _DTYPES.get(t.type, t.type))
            for t in (*session.get_inputs(), *session.get_outputs())
        }
        check_session_tensors(spec, "onnxruntime", found)
        self.handle: Any = session
        self._value, self._binding = ort.OrtValue.ortvalue_from_numpy, session.io_binding()
        self._names = tuple(t.name for t in spec.inputs)
        # The array that each input was bound to last.
        self._bound: dict[str, Array | None] = dict.fromkeys(self._names)
        # Bound once: every frame's answer is read from the same arrays.
        self._views = {t.name: np.empty(t.shape, t.dtype) for t in spec.outputs}
        for name, view in self._views.items():
            self._binding.bind_ortvalue_output(name, self._value(view))

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        bound, ownership = self._bound, self._ownership
        try:
            mine = ownership.take()
        except IndexError:
            raise ownership.refusal() from None
        # A plain try: a context manager costs 35 us per frame when caches are cold.
        try:
            for name in self._names:
                array = inputs[name]
                if array is not bound[name]:
                    # Frames are drawn on one canvas, and states kept in one array: bound once, nothing is copied.
                    self._binding.bind_ortvalue_input(name, self._value(array))
                    bound[name] = array
            self.handle.run_with_iobinding(self._binding)
        except Exception as error:  # vendor exceptions share no base class
            self._bound = dict.fromkeys(self._names)
            raise InferFailed(f"onnxruntime: inference failed: {error}", remedy=INFER_REMEDY) from error
        finally:
            ownership.give(mine)
        return self._views

    def vendor_call(self, inputs: Tensors) -> Callable[[], object]:
        """``InferenceSession.run``; see :class:`edge_sdk.target.Session`."""
        run, names, fed = self.handle.run, [t.name for t in self.outputs], dict(inputs)
        return lambda: run(names, fed)

    def close(self) -> None:
        """Free the engine; arrays handed out before are void."""
        if not self._ownership.end():
            return
        self._views, self.handle, self._binding = {}, None, None
        self._bound = dict.fromkeys(self._names)


def check_file(artifact: Artifact, error: type[LoadFailed | CompileFailed] = LoadFailed) -> None:
    """Refuse a graph that reads what the bundle's hash does not cover, or runs what is not ONNX's, by this error."""
    if problem := onnx_file.problem(artifact.files.get(MODEL, b"")):
        raise error(
            f"onnxruntime: {MODEL}: {problem}",
            remedy="build the bundle from a graph of standard operators with its weights inside",
        )


def _open(ort: Any, artifact: Artifact, device: str, options: LoadOptions, own: Options) -> tuple[Any, str]:
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
        "session.intra_op.allow_spinning": str(int(own.spinning)),
        # Never its own format, which check_file does not read.
        "session.load_model_format": "ONNX",
        # For what _placed asks.
        "session.record_ep_graph_assignment_info": str(int(device != CPU)),
    }.items():
        settings.add_session_config_entry(key, value)
    if own.small_memory:
        settings.enable_cpu_mem_arena = settings.enable_mem_pattern = False
    providers = [provider] if device == CPU else [provider, PROVIDERS[CPU]]
    with vendor_errors(
        "onnxruntime", LoadFailed, "the artifact was refused", "build the bundle again for this version"
    ):
        session = ort.InferenceSession(artifact.files[MODEL], settings, providers=providers)
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
