"""A CUDA runtime on the processor, as cuda-python names it: memory is memory, a stream runs at once or is captured."""

import ctypes
import enum

live: dict[int, object] = {}
"""What was made and not given back: addresses, streams, graphs."""
calls: list[str] = []
failing: dict[str, int] = {}
"""Function to the error that it shall give."""
_capture: list | None = None
_numbers = iter(range(1000, 10**9))


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorLaunchFailure = 719


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class _Properties:
    name, major, minor = b"Fake Orin", 8, 7


def submit(work):
    """Do it now, or remember it for the graph that is being captured."""
    if _capture is None:
        work()
    else:
        _capture.append(work)


def _answer(name, *values):
    calls.append(name)
    if name in failing:
        return (cudaError_t(failing[name]), *(None for _ in values))
    return (cudaError_t.cudaSuccess, *values)


def _memory(name, size):
    if name in failing:
        return _answer(name, None)
    block = ctypes.create_string_buffer(max(1, size))
    live[ctypes.addressof(block)] = block
    return _answer(name, ctypes.addressof(block))


def _handle(name, what):
    if name in failing:
        return _answer(name, None)
    number = next(_numbers)
    live[number] = what
    return _answer(name, number)


def _gone(name, what):
    del live[int(what)]
    return _answer(name)


def cudaMalloc(size):
    return _memory("cudaMalloc", size)


def cudaHostAlloc(size, flags):
    return _memory("cudaHostAlloc", size)


def cudaFree(pointer):
    return _gone("cudaFree", pointer)


def cudaFreeHost(pointer):
    return _gone("cudaFreeHost", pointer)


def cudaStreamCreateWithFlags(flags):
    return _handle("cudaStreamCreateWithFlags", "stream")


def cudaStreamDestroy(stream):
    return _gone("cudaStreamDestroy", stream)


def cudaMemcpyAsync(target, source, size, kind, stream):
    assert live[stream] == "stream"
    assert isinstance(kind, cudaMemcpyKind)
    submit(lambda: ctypes.memmove(target, source, size))
    return _answer("cudaMemcpyAsync")


def cudaStreamSynchronize(stream):
    assert live[stream] == "stream"
    return _answer("cudaStreamSynchronize")


def cudaStreamBeginCapture(stream, mode):
    global _capture
    _capture = []
    return _answer("cudaStreamBeginCapture")


def cudaStreamEndCapture(stream):
    global _capture
    works, _capture = _capture, None
    return _handle("cudaStreamEndCapture", works)


def cudaGraphInstantiate(graph, flags):
    return _handle("cudaGraphInstantiate", list(live[graph]))


def cudaGraphLaunch(graph, stream):
    for work in live[graph]:
        work()
    return _answer("cudaGraphLaunch")


def cudaGraphDestroy(graph):
    return _gone("cudaGraphDestroy", graph)


def cudaGraphExecDestroy(graph):
    return _gone("cudaGraphExecDestroy", graph)


def cudaGetDeviceProperties(device):
    return _answer("cudaGetDeviceProperties", _Properties())


def cudaDriverGetVersion():
    return _answer("cudaDriverGetVersion", 12060)


def cudaRuntimeGetVersion():
    return _answer("cudaRuntimeGetVersion", 12060)


def cudaMemGetInfo():
    return _answer("cudaMemGetInfo", 3 * 2**30, 8 * 2**30)


def cudaGetErrorString(error):
    return (cudaError_t.cudaSuccess, cudaError_t(error).name.encode())
