"""What a device runs of the OpenVINO target."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_sdk.adapter import (
    INFER_REMEDY,
    Ownership,
    SessionBase,
    check_session_tensors,
    thread_count,
    vendor_errors,
)
from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import CompileFailed, InferFailed, InputError, LoadFailed, MissingDependency
from edge_sdk.reporting import unreported
from edge_sdk.spec import ModelSpec
from edge_sdk.target import CPU, Artifact, LoadOptions
from edge_sdk.tensors import Array, Tensors
from edge_targets.device_fallback import first_that_loads
from edge_targets.openvino import ir_file
from edge_targets.openvino.options import Options

XML, BIN = "model.xml", "model.bin"
"""Files of the artifact: the graph and its weights."""
_DTYPES = {"u8": "uint8", "f32": "float32"}
_DEVICE = re.compile(r"(CPU|GPU|NPU)(\.[0-9]+)?|AUTO(:(CPU|GPU|NPU)(\.[0-9]+)?(,(CPU|GPU|NPU)(\.[0-9]+)?)*)?")
_DRIVERS = {
    "GPU": "install Intel's graphics driver (Debian, Ubuntu: apt install intel-opencl-icd) and join the group render",
    "NPU": "install Intel's NPU driver and join the group render",
}


def import_openvino() -> Any:
    """The vendor's module.

    Raises:
        MissingDependency: it is not installed, or cannot be imported.
    """
    try:
        with unreported():
            import openvino
    except ImportError as error:
        raise MissingDependency(
            f"openvino cannot be imported: {error}", remedy="pip install 'face-edge-sdk[openvino]'"
        ) from error
    return openvino


class OpenVinoSession(SessionBase):
    """One frame after another through a single infer request, over bound memory: no tensor is allocated for a frame.

    Args:
        artifact: IR, ``model.xml`` and ``model.bin``.
        spec: of the network.
        options: of every engine.
        own: of OpenVINO alone.

    Attributes:
        handle: an ``openvino.InferRequest``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions, own: Options) -> None:
        ov = import_openvino()
        _refuse_fork()
        self._ownership = Ownership(self)
        check_file(artifact)
        self.inputs, self.outputs = spec.inputs, spec.outputs
        core = ov.Core()
        compiled, self.notes = first_that_loads(
            options.devices, lambda device: _open(ov, core, artifact, device, options, own)
        )
        self.device = "+".join(compiled.get_property("EXECUTION_DEVICES")) or CPU
        self.handle: Any = compiled.create_infer_request()
        ports = {p.any_name: p for p in (*compiled.inputs, *compiled.outputs)}
        found = {
            name: (tuple(p.shape), _DTYPES.get(p.element_type.get_type_name(), "other"))
            for name, p in ports.items()
        }
        check_session_tensors(spec, "openvino", found)
        self._tensor = ov.Tensor
        self._order = tuple(p.any_name for p in compiled.inputs)
        self._entries = tuple((t.name, ports[t.name]) for t in spec.inputs)
        # The array that each input's memory is, and what keeps that memory alive.
        self._bound: dict[str, Array | None] = dict.fromkeys(self._order)
        self._kept: dict[str, Array] = {}
        # Bound once: every frame's answer is read from the request's own memory.
        self._views = {t.name: self.handle.get_tensor(ports[t.name]).data for t in spec.outputs}

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        bound, handle, ownership = self._bound, self.handle, self._ownership
        try:
            mine = ownership.take()
        except IndexError:
            raise ownership.refusal() from None
        # A plain try: a context manager costs 35 us per frame when caches are cold.
        try:
            for name, port in self._entries:
                array = inputs[name]
                if array is not bound[name]:
                    # Frames are drawn on one canvas, and states kept in one array: bound once, nothing is copied.
                    writable = array if array.flags.writeable else array.copy()
                    handle.set_tensor(port, self._tensor(writable, shared_memory=True))
                    # A copy is made of what cannot be shared, and must be made again for the next frame.
                    bound[name] = array if writable is array else None
                    self._kept[name] = writable
            handle.start_async()
            handle.wait()
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"openvino: inference failed: {error}", remedy=INFER_REMEDY) from error
        finally:
            ownership.give(mine)
        return self._views

    def vendor_call(self, inputs: Tensors) -> Callable[[], object]:
        """``InferRequest.infer`` on shared arrays; see :class:`edge_sdk.target.Session`."""
        infer, arrays = self.handle.infer, [inputs[name] for name in self._order]
        # It binds its arrays as infer does, which must know of it; what cannot be shared is bound anew.
        bound, binds = self._bound, {n: a if a.flags.writeable else None for n, a in inputs.items()}

        def call() -> object:
            bound.update(binds)
            # Sharing spares the vendor's call the copies that ours does not make either.
            return infer(arrays, share_inputs=True, share_outputs=True)

        return call

    def close(self) -> None:
        """Free the engine; views handed out before are void."""
        if not self._ownership.end():
            return
        self._views, self.handle, self._kept = {}, None, {}
        self._bound = dict.fromkeys(self._order)


def check_file(artifact: Artifact, error: type[LoadFailed | CompileFailed] = LoadFailed) -> None:
    """Refuse what is not OpenVINO's IR of its own operators, with its weights beside it, by this error."""
    missing = next((name for name in (XML, BIN) if name not in artifact.files), None)
    problem = f"{missing} is missing" if missing else ir_file.problem(artifact.files[XML])
    if problem:
        raise error(
            f"openvino: {XML}: {problem}", remedy="build the bundle from a graph of standard operators"
        )


_used_by: int | None = None
"""Process that used OpenVINO first."""


def _refuse_fork() -> None:
    """Raise LoadFailed in a process forked from one that used OpenVINO, which would end this one by SIGABRT."""
    global _used_by
    if _used_by is None:
        _used_by = os.getpid()
    if _used_by != os.getpid():
        raise LoadFailed(
            "openvino was used by the process that this one was forked from, and cannot start its threads again",
            remedy="start processes by 'spawn' or 'forkserver', or load models only after the fork",
        )


def _open(ov: Any, core: Any, artifact: Artifact, device: str, options: LoadOptions, own: Options) -> Any:
    """The network compiled for a device that is there."""
    if not _DEVICE.fullmatch(device):
        raise InputError(
            f"openvino knows no device {device!r}", remedy="use CPU, GPU, GPU.1, NPU, AUTO or AUTO:GPU,CPU"
        )
    threads = thread_count(options)
    if own.streams is not None and own.streams > threads:
        raise InputError(
            f"{own.streams} streams were asked for, and {threads} threads to compute them",
            remedy="ask for as many threads as streams, or for fewer streams",
        )
    if device != CPU:  # looking for devices wakes every driver
        _check_present(core, device)
    config: dict[str, Any] = {"PERFORMANCE_HINT": own.hint.upper()}
    if own.streams is not None:
        config["NUM_STREAMS"] = own.streams
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
    return core.read_model(artifact.files[XML], ov.Tensor(np.frombuffer(artifact.files[BIN], np.uint8)))


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
    if cache and (kept := cache.get(facts)):
        # Ours and whole, says its MAC; if the engine refuses it all the same, it is compiled as if there were none.
        with contextlib.suppress(RuntimeError):
            return core.import_model(kept, device, config)
    compiled = core.compile_model(_read(ov, core, artifact), device, config)
    if cache:
        cache.put(facts, compiled.export_model().getvalue())
    return compiled
