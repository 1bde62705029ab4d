"""TensorRT as far as the adapter sees it, in the version that ``FAKE_TENSORRT`` names; onnxruntime does its work.

Public names exist where the real version has them and nowhere else (a test holds that), and it refuses what the real
one refuses: uint8 that is not cast, half precision or quantized layers without their flag in a weakly typed network, any
precision flag in a strongly typed one, another version's engine. ``FAKE_TENSORRT_LOG`` names a file that records what
was asked, a JSON line each; ``FAKE_TENSORRT_DEATH`` is a signal that ends the process in a build.
"""

import json
import os
import time

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
_V = tuple(int(part) for part in __version__.split("."))
_MAGIC = b"fake plan "


def _record(what, **details):
    if path := os.environ.get("FAKE_TENSORRT_LOG"):
        with open(path, "a") as log:
            log.write(json.dumps({"call": what, **details}) + "\n")


class _Enum:
    """A value with a name, unequal to those of other enumerations."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def __int__(self):
        return self.value

    def __repr__(self):
        return self.name


def _enum(title, *names):
    members = [name for name in names if name]
    return type(title, (), {name: _Enum(name, index) for index, name in enumerate(members)})


_before_11 = _V < (11,)
_from_10 = _V >= (10,)
NetworkDefinitionCreationFlag = _enum(
    "NetworkDefinitionCreationFlag",
    _before_11 and "EXPLICIT_BATCH",
    _V[0] == 8 and "EXPLICIT_PRECISION",
    _from_10 and "STRONGLY_TYPED",
)
BuilderFlag = _enum(
    "BuilderFlag",
    "TF32",
    "DEBUG",
    "GPU_FALLBACK",
    _before_11 and "FP16",
    _before_11 and "INT8",
    _before_11 and "FP8",
)
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE", "DLA_MANAGED_SRAM")
DataType = _enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8")
TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = (
        _Enum(name, index)
        for index, name in enumerate(("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"))
    )

    def __init__(self):
        self._made = True


def _log(logger, text):
    assert logger._made, "a subclass must call ILogger.__init__"
    logger.log(ILogger.WARNING, "a warning that is nobody's business")
    logger.log(ILogger.ERROR, text)


if _from_10:

    class IProgressMonitor:
        def __init__(self):
            self._made = True


class IHostMemory(bytes):
    """Supports the buffer protocol, as the real one does."""

    @property
    def nbytes(self):
        return len(self)


class Builder:
    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        known = [m for m in vars(NetworkDefinitionCreationFlag).values() if isinstance(m, _Enum)]
        names = {m.name for m in known if flags >> int(m) & 1}
        _record("create_network", flags=sorted(names))
        if _V[0] == 8 and "EXPLICIT_BATCH" not in names:
            raise AssertionError("the ONNX parser of 8.6 wants explicit batch")
        return _Network("STRONGLY_TYPED" in names or not _before_11)

    def create_builder_config(self):
        return IBuilderConfig()

    def build_serialized_network(self, network, config):
        if death := os.environ.get("FAKE_TENSORRT_DEATH"):
            if int(death) == 0:
                time.sleep(60)
            os.kill(os.getpid(), int(death))
        types = network._types
        named = {flag.name for flag in config._flags}
        _record("build", flags=sorted(named), pools=config._pools, typed=network._typed)
        if network._typed and named & {"FP16", "INT8", "FP8"}:
            _log(self.logger, "Error Code 4: precision flags in a strongly typed network")
            return None
        if not network._typed and "HALF" in types and "FP16" not in named:
            _log(self.logger, "Error Code 4: half precision without the FP16 flag")
            return None
        if not network._typed and "INT8" in types and "INT8" not in named:
            _log(self.logger, "Error Code 4: quantized layers without the INT8 flag")
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            assert _from_10
            assert monitor._made, "a subclass must call IProgressMonitor.__init__"
            monitor.phase_start("Building engine", None, 2)
            monitor.phase_start("Tactics", "Building engine", 5)
            for step in range(5):
                assert monitor.step_complete("Tactics", step)
            monitor.phase_finish("Tactics")
            for step in range(2):
                assert monitor.step_complete("Building engine", step)
            monitor.phase_finish("Building engine")
        return IHostMemory(_MAGIC + __version__.encode() + b"\n" + network._onnx)


class IBuilderConfig:
    def __init__(self):
        self._flags, self._pools = {BuilderFlag.TF32}, {}

    if _from_10:
        progress_monitor = None
    else:
        __slots__ = ("_flags", "_pools")

    def set_flag(self, flag):
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool, size):
        self._pools[pool.name] = size


class _Network:
    def __init__(self, typed):
        self._typed, self._onnx, self._types = typed, b"", set()


class ParserError:
    def __init__(self, index, node, text):
        self._index, self._node, self._text = index, node, text

    def node(self):
        return self._index

    def desc(self):
        return self._text

    if _from_10:

        def node_name(self):
            return self._node.name

        def node_operator(self):
            return self._node.op_type


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._logger, self._errors = network, logger, []

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def parse(self, data):
        import onnx

        try:
            model = onnx.load_from_string(data)
            onnx.checker.check_model(model)
        except Exception as error:
            self._errors = [ParserError(0, onnx.NodeProto(), f"cannot be read: {error}")]
            return False
        pixels = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
        for index, node in enumerate(model.graph.node):
            if node.op_type != "Cast" and pixels & set(node.input):
                self._errors.append(ParserError(index, node, f"{node.op_type}: first input has type UInt8"))
        kinds = {t.data_type for t in model.graph.initializer}
        self._network._onnx = data
        self._network._types = {
            name
            for name, kind in (("HALF", onnx.TensorProto.FLOAT16), ("INT8", onnx.TensorProto.INT8))
            if kind in kinds
        }
        return not self._errors


class Runtime:
    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, plan):
        head, _, onnx = bytes(plan).partition(b"\n")
        if head != _MAGIC + __version__.encode():
            _log(self.logger, "Error Code 1: the engine was built by another version")
            return None
        return ICudaEngine(onnx, self.logger)


class ICudaEngine:
    def __init__(self, onnx, logger):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._logger = logger

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    def _find(self, name):
        return next(t for t in self._tensors if t.name == name)

    def get_tensor_name(self, index):
        return self._tensors[index].name

    def get_tensor_shape(self, name):
        return list(self._find(name).shape)

    def get_tensor_dtype(self, name):
        return {"tensor(uint8)": DataType.UINT8, "tensor(float)": DataType.FLOAT}[self._find(name).type]

    def create_execution_context(self):
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._addresses = engine, {}

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        if os.environ.get("FAKE_TENSORRT_FAIL"):
            _log(self._engine._logger, "Error Code 1: Cuda Runtime (an illegal memory access)")
            return False
        from cuda.bindings import runtime

        runtime.submit(self._work)
        return True

    def _work(self):
        import ctypes

        import numpy as np

        def view(tensor):
            kind = np.dtype(np.uint8 if tensor.type == "tensor(uint8)" else np.float32)
            size = int(np.prod(tensor.shape)) * kind.itemsize
            block = (ctypes.c_byte * size).from_address(self._addresses[tensor.name])
            return np.frombuffer(block, kind).reshape(tensor.shape)

        session = self._engine._session
        given = {t.name: view(t) for t in session.get_inputs()}
        for tensor, value in zip(session.get_outputs(), session.run(None, given), strict=True):
            view(tensor)[...] = value
