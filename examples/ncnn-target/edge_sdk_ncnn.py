"""Target ``ncnn``, for float networks: what a package outside face-edge-sdk has to write to add an engine.

pip install -e examples/ncnn-target && pip install --no-deps pnnx
edge-sdk conformance ncnn
edge-sdk build fer-yolo11n --target ncnn --recipe fp32 --evaluation val/ -o fer.ncnn.edge
"""

import importlib.util
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge_sdk import errors
from edge_sdk.adapter import (
    INFER_REMEDY,
    Ownership,
    SessionBase,
    TargetBase,
    check_recipe,
    check_session_tensors,
    engine_options,
    refuse_devices,
    thread_count,
    vendor_errors,
)
from edge_sdk.target import Artifact, Target

PARAM, BIN = "model.param", "model.bin"
_PNNX_TYPES = {"uint8": "u8", "float32": "f32"}


class NcnnSession(SessionBase):
    """One frame after another through an ``ncnn.Net``; see ``edge_sdk.target.Session``."""

    def __init__(self, artifact, spec, options):
        refuse_devices("ncnn", options.devices)
        try:
            import ncnn
        except ImportError as error:
            raise errors.MissingDependency(f"no ncnn: {error}", remedy="pip install ncnn") from error
        self.ownership = Ownership(self)
        self.inputs, self.outputs, self.ncnn, self.handle = spec.inputs, spec.outputs, ncnn, ncnn.Net()
        self.handle.opt.num_threads = thread_count(options)
        for halving in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(self.handle.opt, f"use_{halving}", False)  # float is what was gated
        with (
            vendor_errors("ncnn", errors.LoadFailed, "the artifact was refused", "build the bundle again"),
            tempfile.TemporaryDirectory() as folder,
        ):
            for name in (PARAM, BIN):
                (Path(folder) / name).write_bytes(artifact.files[name])
            # Its reader goes on where a file ends early: the sizes are ours to compare.
            shapes, size = artifact.files[PARAM].decode().split("\n#", 1)
            if int(size) != len(artifact.files[BIN]):
                raise ValueError(f"{BIN} has {len(artifact.files[BIN])} bytes, {int(size)} are expected")
            if self.handle.load_param_mem(shapes) or self.handle.load_model(str(Path(folder) / BIN)):
                raise ValueError("ncnn cannot read it")
            outputs = self._run({t.name: t.zeros() for t in spec.inputs})
        found = {name: (values.shape, values.dtype.name) for name, values in outputs.items()}
        # Shapes of inputs it does not tell.
        check_session_tensors(spec, "ncnn", {**found, **{t.name: (t.shape, t.dtype) for t in spec.inputs}})

    def _run(self, inputs):
        extractor = self.handle.create_extractor()
        # A Mat reads its array and does not keep it alive.
        floats = [inputs[t.name][0].astype(np.float32) for t in self.inputs]
        for index, array in enumerate(floats):
            extractor.input(f"in{index}", self.ncnn.Mat(array))
        return {t.name: np.array(extractor.extract(f"out{i}")[1])[None] for i, t in enumerate(self.outputs)}

    def infer(self, inputs):
        """Run one frame."""
        with self.ownership:
            try:
                for tensor in self.inputs:
                    tensor.check(inputs[tensor.name])  # ncnn itself takes any shape and answers with nonsense
                return self._run(inputs)
            except Exception as error:
                raise errors.InferFailed(f"ncnn: inference failed: {error}", remedy=INFER_REMEDY) from error

    def close(self):
        """Free the engine."""
        if self.ownership.end():
            self.handle = None


class Ncnn(TargetBase):
    """See ``edge_sdk.target.Target``."""

    name = "ncnn"
    distribution = "ncnn"
    modules = ("ncnn",)

    def compile(self, model, *, recipe, ranges=None):
        """Convert the ONNX graph."""
        check_recipe("ncnn", recipe, precisions=("fp32",))
        found = importlib.util.find_spec("pnnx")
        if found is None:
            raise errors.MissingDependency("no pnnx", remedy="pip install --no-deps pnnx")
        shapes = (f"[{','.join(map(str, t.shape))}]{_PNNX_TYPES[t.dtype]}" for t in model.spec.inputs)
        with (
            vendor_errors("ncnn", errors.CompileFailed, "pnnx failed", "check the graph with onnx.checker"),
            tempfile.TemporaryDirectory() as folder,
        ):
            source = Path(folder) / "model.onnx"
            source.write_bytes(model.onnx.read_bytes())
            pnnx = Path(found.submodule_search_locations[0]) / "pnnx"
            command = [str(pnnx), str(source), f"inputshape={','.join(shapes)}", "fp16=0"]
            subprocess.run(command, check=True, capture_output=True, cwd=folder)
            # ncnn computes in float only: the cast from uint8 is done when pixels come in, and here it is nothing.
            param = source.with_suffix(".ncnn.param").read_text().replace("\nTensor.to ", "\nNoop ")
            data = source.with_suffix(".ncnn.bin").read_bytes()
        files = {PARAM: f"{param}\n#{len(data)}".encode(), BIN: data}
        names = (tuple(t.name for t in tensors) for tensors in (model.spec.inputs, model.spec.outputs))
        return Artifact(files, *names, {"ncnn": version("ncnn")})

    def load(self, artifact, spec, *, options):
        """Make a session."""
        engine_options(self, options)  # it has none: what is asked for is refused
        return NcnnSession(artifact, spec, options)


TARGET: Target = Ncnn()
