"""TensorRT: NVIDIA's Jetson boards, and other machines with its GPUs.

A bundle holds ONNX and never an engine, which is native code tied to a GPU and a version: the engine is built on the
device, once, and kept in the engine cache. ``docs/jetson.md`` is the user's text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize import qdq
from edge_quantize.blocks import in_float, of_onnx
from edge_sdk.device import board
from edge_sdk.errors import CompileFailed, InferFailed, InputError, LoadFailed, MissingDependency
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import (
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
from edge_targets import tensorrt_build
from edge_targets.cuda_memory import Cuda, CudaError, find_cuda
from edge_targets.ranges import LastRanges, key_of
from edge_targets.vendor import vendor_errors

MODEL, BUILD = "model.onnx", "build.json"
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


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency(
            f"onnx cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    return onnx


class TensorRtSession(SessionBase):
    """One frame after another through one execution context on one stream.

    Attributes:
        engine: a ``tensorrt.IExecutionContext``, for what is not wrapped here; None once closed.
        built: whether the engine was built now; False where it came from the cache.
        cached: whether the next start finds it in the cache.
    """

    device = DEVICE

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions) -> None:
        check_options("tensorrt", options, known=("devices", "progress", "workspace_bytes", "cuda_graph"))
        if unknown := [device for device in options.devices if device != DEVICE]:
            raise InputError(
                f"tensorrt knows no device {unknown[0]!r}", remedy=f"use {DEVICE}, or leave it out"
            )
        trt = _import()
        self._cuda = find_cuda()
        self.input, self.outputs = spec.input, spec.outputs
        self.engine: Any = None
        self._engine: Any = None
        self._graph: Any = None
        self._stream = 0
        self._addresses: dict[str, int] = {}
        self._log = tensorrt_build.make_log(trt)
        with vendor_errors("tensorrt", LoadFailed, "the artifact was refused", "build the bundle again"):
            try:
                self._engine, self.built, self.cached = _engine(
                    trt, self._cuda, self._log, artifact, spec, options
                )
                self._allocate(trt, spec)
                # A first run on nothing: what TensorRT sets up late is set up now, and before a capture.
                self._enqueue()
                self._cuda.synchronize(self._stream)
                if options.cuda_graph:
                    self._graph = self._cuda.capture(self._stream, self._enqueue)
            except BaseException:
                self.close()
                raise

    def _allocate(self, trt: Any, spec: ModelSpec) -> None:
        """Memory on both sides for every tensor of the engine, and the context that knows it."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {
            name: (
                tuple(engine.get_tensor_shape(name)),
                _DTYPES.get(engine.get_tensor_dtype(name).name, engine.get_tensor_dtype(name).name),
            )
            for name in names
        }
        check_session_tensors(spec, "tensorrt", found)
        if extra := sorted(set(names) - {t.name for t in (spec.input, *spec.outputs)}):
            raise LoadFailed(
                f"tensorrt: the engine has a tensor {extra[0]!r} that the spec does not name",
                remedy="build the bundle again",
            )
        self.engine = engine.create_execution_context()
        if self.engine is None:
            raise LoadFailed(
                f"tensorrt: no execution context: {'; '.join(self._log.errors)}",
                remedy="end other programs that use the GPU's memory",
            )
        self._stream = self._cuda.stream()
        for t in (spec.input, *spec.outputs):
            array = self._cuda.pinned(t.shape, t.dtype)
            self._addresses[t.name] = self._cuda.allocate(array.nbytes)
            self.engine.set_tensor_address(t.name, self._addresses[t.name])
            if t is spec.input:
                array[...] = 0
                self._pixels, self._shape, self._dtype = array, array.shape, array.dtype
                self._views: dict[str, Array] = {}
            else:
                self._views[t.name] = array

    def _enqueue(self) -> None:
        """Give the stream one frame's work: pixels to the device, the network, the answers back."""
        cuda, stream = self._cuda, self._stream
        cuda.to_device(self._addresses[self.input.name], self._pixels, stream)
        if not self.engine.execute_async_v3(stream):
            raise CudaError("; ".join(self._log.errors) or "execute_async_v3 failed without a reason")
        for name, array in self._views.items():
            cuda.to_host(array, self._addresses[name], stream)

    def infer(self, pixels: Array) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        # A plain try: a context manager costs 35 us a frame when caches are cold.
        try:
            if self.engine is None:
                raise ValueError("the session is closed")
            if pixels.shape != self._shape or pixels.dtype != self._dtype:  # a copy would broadcast and cast
                raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not {self._dtype} {self._shape}")
            self._pixels[...] = pixels
            if self._graph is not None:
                self._cuda.launch(self._graph, self._stream)
            else:
                self._enqueue()
            self._cuda.synchronize(self._stream)
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"tensorrt: inference failed: {error}", remedy=INFER_REMEDY) from error
        return self._views

    def close(self) -> None:
        """Free the engine; arrays handed out before keep their memory, but mean nothing any more."""
        cuda = self._cuda
        # What uses memory goes before the memory, and one failure hinders no other.
        self.engine = self._engine = None
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


def _engine(
    trt: Any, cuda: Cuda, log: Any, artifact: Artifact, spec: ModelSpec, options: LoadOptions
) -> tuple[Any, bool, bool]:
    """The engine as this device built it before, or built now; whether it was built, and whether it is in the cache."""
    onnx, precision = _network(artifact)
    facts = engine_facts(trt, cuda, onnx, precision, spec, options)
    runtime = trt.Runtime(log)
    plan = options.cache.get(facts) if options.cache else None
    if plan is not None:
        # Ours and whole, says its MAC; if the runtime refuses it all the same, it is built as if there were none.
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            return engine, False, True
    machine = board().value
    # A Jetson's GPU works in the system's memory, of which CUDA does not count what caches would give back.
    free = _available_bytes() if machine is not None and machine.l4t else cuda.free_bytes()
    plan = tensorrt_build.build(
        onnx,
        tensorrt_build.BuildOptions(
            precision, options.workspace_bytes or tensorrt_build.workspace_limit(free)
        ),
        progress=options.progress,
    )
    kept = options.cache.put(facts, plan) if options.cache else False
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise LoadFailed(
            f"tensorrt: the engine that was built cannot be loaded: {'; '.join(log.errors)}",
            remedy="end other programs that use the GPU's memory, or run 'edge-sdk doctor'",
        )
    return engine, True, kept


def _network(artifact: Artifact) -> tuple[bytes, str]:
    """The graph, and its precision."""
    return artifact.files[MODEL], str(json.loads(artifact.files[BUILD])["precision"])


def engine_facts(
    trt: Any, cuda: Cuda, onnx: bytes, precision: str, spec: ModelSpec, options: LoadOptions
) -> dict[str, str]:
    """Everything that an engine depends on: the key of the engine cache.

    A workspace that follows from free memory is not in it, or no start would find what another one built.
    """
    machine = board().value
    return {
        "onnx": hashlib.sha256(onnx).hexdigest(),
        "tensorrt": str(trt.__version__),
        **cuda.facts(),
        "l4t": (machine.l4t if machine is not None else None) or "",
        "precision": precision,
        "shapes": json.dumps([(t.name, t.shape, t.dtype) for t in (spec.input, *spec.outputs)]),
        "options": json.dumps({"workspace_bytes": options.workspace_bytes}),
    }


def _available_bytes() -> int:
    """Memory that the system can give without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


class TensorRt:
    """Target ``tensorrt``."""

    name = "tensorrt"
    distribution = "tensorrt"
    modules: tuple[str, ...] = ("tensorrt",)
    stand_in = "onnxruntime"
    """Target that runs the same artifact where there is no TensorRT: on a build host, and while an engine builds."""

    def compile(self, model: FloatModel, *, recipe: Recipe, calibration: Sequence[Array]) -> Artifact:
        """ONNX: float32, float16 throughout, or explicit symmetric QDQ; see :mod:`edge_quantize.qdq`."""
        check_recipe(
            self.name,
            recipe,
            precisions=("fp32", "fp16", "int8", "int8-mixed"),
            methods=("minmax", "mse", "percentile", "entropy", "trained"),
            symmetric=(None, True),
            keep_float=True,
        )
        onnx = _import_onnx()
        with vendor_errors(
            "tensorrt", CompileFailed, "conversion failed", "check the graph with onnx.checker"
        ):
            # Trained ranges stand in a graph that is explicit QDQ already; the linter holds it to the same rules.
            source = model.quantized if recipe.trained else model.onnx
            graph, kept = qdq.prepare(onnx.load(str(source))), list[str]()
            if recipe.precision == "fp16":
                qdq.check_float16_range(graph, probes(model.spec))
                graph = qdq.to_float16(graph)
            elif recipe.calibrated:
                graph, kept = _quantize(graph, model, recipe, calibration)
            if found := qdq.lint(graph, keep_float=kept):
                theirs = "place the pairs as edge_training.qat does"
                raise CompileFailed(
                    f"tensorrt: {found[0]}",
                    remedy=theirs if recipe.trained else "report it with the network: this is our fault",
                )
            return Artifact(
                files={
                    MODEL: graph.SerializeToString(deterministic=True),
                    BUILD: json.dumps({"precision": recipe.precision}).encode() + b"\n",
                },
                outputs=tuple(t.name for t in model.spec.outputs),
                fingerprint={"onnx": str(onnx.__version__)},
            )

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> TensorRtSession:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        return TensorRtSession(artifact, spec, options)

    def starts_at_once(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> bool:
        """Whether a load finds its engine in the cache and builds nothing; False too where the load would fail."""
        try:
            facts = engine_facts(_import(), find_cuda(), *_network(artifact), spec, options)
        except Exception:  # vendor exceptions share no base class; the load says what is wrong
            return False
        return options.cache is not None and options.cache.get(facts) is not None


_RANGES = LastRanges[dict[str, float]]()


def _quantize(
    graph: Any, model: FloatModel, recipe: Recipe, calibration: Sequence[Array]
) -> tuple[Any, list[str]]:
    assert recipe.method != "trained", "its graph is quantized already"
    key = key_of(model.onnx, calibration, recipe.method)
    ranges = _RANGES.get(key)
    if ranges is None:
        ranges = qdq.ranges(graph, calibration, recipe.method)
        _RANGES.put(key, ranges)
    kept = [op.name for op in in_float(of_onnx(graph), recipe.keep_float)]
    return qdq.quantize(graph, ranges, keep_float=kept), kept


def probes(spec: ModelSpec) -> list[Array]:
    """Input tensors for a look at a network's ranges without pictures: black, white, and noise of two kinds."""
    rng = np.random.default_rng(0)
    shape = spec.input.shape
    coarse = rng.integers(0, 256, (1, -(-shape[1] // 16), -(-shape[2] // 16), 3)).astype(np.uint8)
    blocks = coarse.repeat(16, 1).repeat(16, 2)[:, : shape[1], : shape[2]]
    return [
        np.zeros(shape, np.uint8),
        np.full(shape, 255, np.uint8),
        rng.integers(0, 256, shape).astype(np.uint8),
        np.ascontiguousarray(blocks),
    ]


TARGET: Target = TensorRt()
