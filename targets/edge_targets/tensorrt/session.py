"""What a device runs of the tensorrt target: it needs neither onnx nor anything of the host."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any

from edge_sdk import onnx_file
from edge_sdk.adapter import INFER_REMEDY, Ownership, SessionBase, check_session_tensors, vendor_errors
from edge_sdk.errors import CompileFailed, InferFailed, InputError, LoadFailed, MissingDependency
from edge_sdk.host_info import available_mb, board
from edge_sdk.spec import ModelSpec
from edge_sdk.target import Artifact, LoadOptions
from edge_sdk.tensors import Array, Tensors
from edge_targets.tensorrt import builder as plan_builder
from edge_targets.tensorrt.cuda_memory import Cuda, CudaError, find_cuda
from edge_targets.tensorrt.operators import OPERATORS
from edge_targets.tensorrt.options import Options

MODEL, BUILD = "model.onnx", "build.json"
"""Files of the artifact: the graph, and the precision that it is built in."""
DEVICE = "GPU"
_DTYPES = {"UINT8": "uint8", "FLOAT": "float32"}


def _import() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise MissingDependency(
            f"tensorrt cannot be imported: {error}",
            remedy="on a Jetson: sudo apt install python3-libnvinfer, a venv with --system-site-packages, "
            "and pip install 'face-edge-sdk[tensorrt]' for CUDA's memory",
        ) from error
    return tensorrt


class TensorRtSession(SessionBase):
    """One frame after another through one execution context on one stream.

    Args:
        artifact: the graph, and how it is built.
        spec: of the network.
        options: of every engine; ``cache`` keeps plans, ``progress`` follows a build.
        own: of TensorRT alone.

    Attributes:
        handle: a ``tensorrt.IExecutionContext``, for what is not wrapped here; None once closed.
        built: whether the plan was built now; False where it came from the cache.
        cached: whether the next start finds it in the cache.
    """

    device = DEVICE

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions, own: Options) -> None:
        if unknown := [device for device in options.devices if device != DEVICE]:
            raise InputError(
                f"tensorrt knows no device {unknown[0]!r}", remedy=f"use {DEVICE}, or leave it out"
            )
        trt = _import()
        check_file(artifact)
        self._cuda = find_cuda()
        self._ownership = Ownership(self)
        self.inputs, self.outputs = spec.inputs, spec.outputs
        self.handle: Any = None
        self._plan: Any = None
        self._graph: Any = None
        self._stream = 0
        self._addresses: dict[str, int] = {}
        # Page-locked arrays on the host's side, by tensor.
        self._entries: tuple[tuple[str, Array], ...] = ()
        self._views: dict[str, Array] = {}
        self._log = plan_builder.make_log(trt)
        with vendor_errors("tensorrt", LoadFailed, "the artifact was refused", "build the bundle again"):
            try:
                self._plan, self.built, self.cached = _load_plan(
                    trt, self._cuda, self._log, artifact, spec, options, own
                )
                self._allocate(spec)
                # A first run on nothing: what TensorRT sets up late is set up now, and before a capture.
                self._enqueue()
                self._cuda.synchronize(self._stream)
                if own.cuda_graph:
                    self._graph = self._cuda.capture(self._stream, self._enqueue)
            except BaseException:
                self.close()
                raise

    def _allocate(self, spec: ModelSpec) -> None:
        """Memory on both sides for every tensor of the plan, and the context that knows it."""
        plan = self._plan
        names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
        found = {
            name: (
                tuple(plan.get_tensor_shape(name)),
                _DTYPES.get(plan.get_tensor_dtype(name).name, plan.get_tensor_dtype(name).name),
            )
            for name in names
        }
        check_session_tensors(spec, "tensorrt", found)
        self.handle = plan.create_execution_context()
        if self.handle is None:
            raise LoadFailed(
                f"tensorrt: no execution context: {'; '.join(self._log.errors)}",
                remedy="end other programs that use the GPU's memory",
            )
        self._stream = self._cuda.stream()
        arrays = {}
        for t in (*spec.inputs, *spec.outputs):
            arrays[t.name] = self._cuda.pinned(t.shape, t.dtype)
            self._addresses[t.name] = self._cuda.allocate(arrays[t.name].nbytes)
            self.handle.set_tensor_address(t.name, self._addresses[t.name])
        self._entries = tuple((t.name, arrays[t.name]) for t in spec.inputs)
        self._views = {t.name: arrays[t.name] for t in spec.outputs}
        for _, array in self._entries:
            array[...] = 0

    def _enqueue(self) -> None:
        """Give the stream the work of one frame: inputs to the device, the network, the answers back."""
        cuda, stream, addresses = self._cuda, self._stream, self._addresses
        for name, array in self._entries:
            cuda.to_device(addresses[name], array, stream)
        if not self.handle.execute_async_v3(stream):
            raise CudaError("; ".join(self._log.errors) or "execute_async_v3 failed without a reason")
        for name, array in self._views.items():
            cuda.to_host(array, addresses[name], stream)

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        ownership = self._ownership
        try:
            mine = ownership.take()
        except IndexError:
            raise ownership.refusal() from None
        # A plain try: a context manager costs 35 us per frame when caches are cold.
        try:
            for name, pinned in self._entries:
                array = inputs[name]
                if (
                    array.shape != pinned.shape or array.dtype != pinned.dtype
                ):  # a copy would broadcast and cast
                    raise ValueError(
                        f"{name} is {array.dtype} {array.shape}, not {pinned.dtype} {pinned.shape}"
                    )
                pinned[...] = array
            if self._graph is not None:
                self._cuda.launch(self._graph, self._stream)
            else:
                self._enqueue()
            self._cuda.synchronize(self._stream)
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"tensorrt: inference failed: {error}", remedy=INFER_REMEDY) from error
        finally:
            ownership.give(mine)
        return self._views

    def vendor_call(self, inputs: Tensors) -> Callable[[], object]:
        """Copies, ``execute_async_v3`` and copies on one stream; see :class:`edge_sdk.target.Session`.

        Pixels go into page-locked memory as the vendor's samples have it; no CUDA graph.
        """
        fed = [(pinned, inputs[name]) for name, pinned in self._entries]

        def call() -> object:
            for pinned, array in fed:
                pinned[...] = array
            self._enqueue()
            self._cuda.synchronize(self._stream)
            return self._views

        return call

    def close(self) -> None:
        """Free the engine; arrays handed out before keep their memory, but mean nothing any more."""
        if not self._ownership.end():
            return
        cuda = self._cuda
        # What uses memory goes before the memory, and one failure hinders no other.
        self.handle = self._plan = None
        graph, self._graph = self._graph, None
        if graph is not None:
            with contextlib.suppress(CudaError):
                cuda.destroy_graph(graph)
        while self._addresses:
            with contextlib.suppress(CudaError):
                cuda.free(self._addresses.popitem()[1])
        if self._stream:
            with contextlib.suppress(CudaError):
                cuda.destroy_stream(self._stream)
            self._stream = 0


def check_file(artifact: Artifact, error: type[LoadFailed | CompileFailed] = LoadFailed) -> None:
    """Refuse a graph that reads what the bundle's hash does not cover, or an operator outside the list, by this error.

    To TensorRT every name that it does not know is a plugin, of whatever library is loaded.
    """
    if problem := onnx_file.problem(artifact.files.get(MODEL, b""), {"": OPERATORS}):
        raise error(
            f"tensorrt: {MODEL}: {problem}",
            remedy="run 'edge-sdk check BUNDLE --target jetson-orin-nano', which names nodes; "
            "build it from a graph of standard operators with its weights inside",
        )


def _load_plan(
    trt: Any,
    cuda: Cuda,
    log: Any,
    artifact: Artifact,
    spec: ModelSpec,
    options: LoadOptions,
    own: Options,
) -> tuple[Any, bool, bool]:
    """The plan as this device built it before, or built now.

    Returns:
        A ``tensorrt.ICudaEngine``, whether it was built, and whether it is in the cache.
    """
    onnx, precision = _network(artifact)
    facts = plan_facts(trt, cuda, onnx, precision, spec, own)
    runtime = trt.Runtime(log)
    serialized = options.cache.get(facts) if options.cache else None
    if serialized is not None:
        # Ours and whole, says its MAC; if the runtime refuses it all the same, it is built as if there were none.
        plan = runtime.deserialize_cuda_engine(serialized)
        if plan is not None:
            return plan, False, True
    machine = board().value
    # A Jetson's GPU works in the system's memory, of which CUDA does not count what caches would give back.
    jetson = machine is not None and machine.l4t
    free = int((available_mb().value or 0) * 1e6) if jetson else cuda.free_bytes()
    serialized = plan_builder.build(
        onnx,
        plan_builder.BuildOptions(precision, own.workspace_bytes or plan_builder.workspace_limit(free)),
        progress=options.progress,
    )
    kept = options.cache.put(facts, serialized) if options.cache else False
    plan = runtime.deserialize_cuda_engine(serialized)
    if plan is None:
        raise LoadFailed(
            f"tensorrt: the plan that was built cannot be loaded: {'; '.join(log.errors)}",
            remedy="end other programs that use the GPU's memory, or run 'edge-sdk doctor'",
        )
    return plan, True, kept


def is_built(artifact: Artifact, spec: ModelSpec, options: LoadOptions, own: Options) -> bool:
    """Whether the cache holds the plan; False too where the load would fail."""
    try:
        facts = plan_facts(_import(), find_cuda(), *_network(artifact), spec, own)
    except Exception:  # vendor exceptions share no base class; the load says what is wrong
        return False
    return options.cache is not None and options.cache.get(facts) is not None


def _network(artifact: Artifact) -> tuple[bytes, str]:
    """The graph, and its precision."""
    return artifact.files[MODEL], str(json.loads(artifact.files[BUILD])["precision"])


def plan_facts(
    trt: Any, cuda: Cuda, onnx: bytes, precision: str, spec: ModelSpec, own: Options
) -> dict[str, str]:
    """Everything that a plan depends on: the key of the engine cache.

    A workspace that follows from free memory is not in it, or no start would find what another one built.
    """
    machine = board().value
    return {
        "onnx": hashlib.sha256(onnx).hexdigest(),
        "tensorrt": str(trt.__version__),
        **cuda.facts(),
        "l4t": (machine.l4t if machine is not None else None) or "",
        "precision": precision,
        "shapes": json.dumps([(t.name, t.shape, t.dtype) for t in (*spec.inputs, *spec.outputs)]),
        "options": json.dumps({"workspace_bytes": own.workspace_bytes}),
    }
