"""CUDA's memory, one stream and its graphs: the few calls of the runtime that a session needs, by the binding at hand.

``cuda-python`` or cupy, whichever is installed: both wrap the same functions under nearly the same names, so the
difference ends in :func:`find_cuda`.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_sdk.errors import MissingDependency
from edge_sdk.tensors import Array

# Values of CUDA's own enumerations, fixed by its binary interface.
_TO_DEVICE, _TO_HOST = 1, 2
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1
_BINDINGS = ("cuda.bindings.runtime", "cuda.cudart", "cupy.cuda.runtime")


class CudaError(RuntimeError):
    """A call of the CUDA runtime failed; what it says."""


class Cuda:
    """The CUDA runtime for one session.

    Args:
        call: runs a function of the runtime by its name without the prefix ``cuda``, such as ``"Malloc"``, and gives
            its value; raises CudaError.
        kinds: what ``MemcpyAsync`` wants for a copy to the device and to the host.
        capture_mode: what ``StreamBeginCapture`` wants.
    """

    def __init__(self, call: Callable[..., Any], kinds: tuple[Any, Any], capture_mode: Any) -> None:
        self._call, self._mode = call, capture_mode
        self._to_device, self._to_host = kinds

    def facts(self) -> dict[str, str]:
        """What a plan depends on: ``gpu``, ``compute_capability``, ``driver`` and ``cuda`` (runtime) versions."""
        found = self._call("GetDeviceProperties", 0)
        if not isinstance(found, dict):
            found = {name: getattr(found, name) for name in ("name", "major", "minor")}
        name = found["name"]
        return {
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "compute_capability": f"{found['major']}.{found['minor']}",
            "driver": str(self._call("DriverGetVersion")),
            "cuda": str(self._call("RuntimeGetVersion")),
        }

    def free_bytes(self) -> int:
        """Memory of the device that nobody uses."""
        free, _ = self._call("MemGetInfo")
        return int(free)

    def stream(self) -> int:
        """A new stream's handle."""
        return int(self._call("StreamCreateWithFlags", _NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("StreamDestroy", stream)

    def allocate(self, size: int) -> int:
        """Address of ``size`` new bytes on the device."""
        return int(self._call("Malloc", size))

    def free(self, address: int) -> None:
        """Give memory of the device back."""
        self._call("Free", address)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        """A new array in page-locked memory of the host, which copies need no staging for.

        Its memory goes back when nobody holds the array any more: one that was handed out never dangles.
        """
        return np.asarray(_Pinned(self._call, shape, np.dtype(dtype)))

    def to_device(self, address: int, array: Array, stream: int) -> None:
        """Start to copy a pinned array to the device."""
        self._call("MemcpyAsync", address, array.ctypes.data, array.nbytes, self._to_device, stream)

    def to_host(self, array: Array, address: int, stream: int) -> None:
        """Start to copy memory of the device into a pinned array."""
        self._call("MemcpyAsync", array.ctypes.data, address, array.nbytes, self._to_host, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until all that a stream was given is done."""
        self._call("StreamSynchronize", stream)

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        """What ``work`` gives the stream, as a graph that is launched as one.

        Raises:
            CudaError: something in it cannot be captured.
        """
        self._call("StreamBeginCapture", stream, self._mode)
        try:
            work()
        finally:
            # Ended in any case: a stream that captures can do nothing else.
            graph = self._call("StreamEndCapture", stream)
        try:
            return self._call("GraphInstantiate", graph)
        finally:
            self._call("GraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:
        """Start a captured graph."""
        self._call("GraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """Give a captured graph back."""
        self._call("GraphExecDestroy", graph)


class _Pinned:
    """Owner of page-locked memory; numpy's view of it holds this object."""

    def __init__(self, call: Callable[..., Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._call = call
        self._address = int(call("HostAlloc", math.prod(shape) * dtype.itemsize, 0))
        self.__array_interface__ = {
            "version": 3,
            "data": (self._address, False),
            "shape": shape,
            "typestr": dtype.str,
        }

    def __del__(self) -> None:
        if hasattr(self, "__array_interface__"):
            with contextlib.suppress(Exception):  # the process may be ending
                self._call("FreeHost", self._address)


def find_cuda() -> Cuda:
    """The CUDA runtime through the first binding that is installed.

    Raises:
        MissingDependency: neither cuda-python nor cupy.
    """
    reasons = []
    for name in _BINDINGS:
        try:
            runtime = importlib.import_module(name)
        except ImportError as error:
            reasons.append(f"{name}: {error}")
            continue
        return _cupy(runtime) if name.startswith("cupy") else _cuda_python(runtime)
    raise MissingDependency(
        f"no CUDA binding can be imported ({'; '.join(reasons)})",
        remedy="pip install 'face-edge-sdk[tensorrt]', or cupy for this board's CUDA",
    )


def _cuda_python(runtime: Any) -> Cuda:
    """cuda-python: every function gives a tuple that starts with an error."""

    def call(name: str, *arguments: Any) -> Any:
        if name == "GraphInstantiate":
            arguments = (*arguments, 0)
        error, *values = getattr(runtime, f"cuda{name}")(*arguments)
        if int(error) != 0:
            text = runtime.cudaGetErrorString(error)[1]
            raise CudaError(f"cuda{name}: {text.decode() if isinstance(text, bytes) else text}")
        return values[0] if len(values) == 1 else tuple(values)

    kind, mode = runtime.cudaMemcpyKind, runtime.cudaStreamCaptureMode
    return Cuda(call, (kind(_TO_DEVICE), kind(_TO_HOST)), mode(_CAPTURE_THREAD_LOCAL))


def _cupy(runtime: Any) -> Cuda:
    """cupy: functions without the prefix, which raise."""

    def call(name: str, *arguments: Any) -> Any:
        try:
            return getattr(runtime, name[0].lower() + name[1:])(*arguments)
        except runtime.CUDARuntimeError as error:
            raise CudaError(f"cuda{name}: {error}") from error

    return Cuda(call, (_TO_DEVICE, _TO_HOST), _CAPTURE_THREAD_LOCAL)
