"""LiteRT (TensorFlow Lite): Raspberry Pi and other small ARM boards.

The device runs ``ai-edge-litert``, or the older ``tflite-runtime`` where only that is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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

_MODEL = "model.tflite"
_SIGNATURE = "serving_default"


def _import() -> Any:
    """The interpreter's module: the living package first, the old one second."""
    failures = []
    for name in ("ai_edge_litert", "tflite_runtime"):
        try:
            return __import__(f"{name}.interpreter", fromlist=["Interpreter"])
        except (ImportError, AttributeError) as error:  # AttributeError: tflite_runtime under numpy 2
            failures.append(f"{name}: {error}")
    raise MissingDependency(
        f"no TFLite engine can be imported ({'; '.join(failures)})",
        remedy="pip install 'face-edge-sdk[tflite]', or 'face-edge-sdk[tflite-runtime]' for the old engine",
    )


class TfliteSession(SessionBase):
    """One frame after another through an interpreter with XNNPACK.

    Attributes:
        engine: an ``Interpreter``, for what is not wrapped here; None once closed.
    """

    def __init__(self, artifact: Artifact, spec: ModelSpec, options: LoadOptions) -> None:
        module = _import()
        self.input, self.outputs = spec.input, spec.outputs
        with vendor_errors(
            "tflite", LoadFailed, "the artifact was refused", "build the bundle again for this version"
        ):
            interpreter = module.Interpreter(
                model_content=artifact.files[_MODEL], num_threads=thread_count(options)
            )
            interpreter.allocate_tensors()
            (entry,) = interpreter.get_input_details()
            # Output names do not survive conversion; their order does, and the bundle records it.
            exits = dict(zip(artifact.outputs, interpreter.get_output_details(), strict=True))
        found = {
            name: (tuple(int(n) for n in d["shape"]), np.dtype(d["dtype"]).name)
            for name, d in {spec.input.name: entry, **exits}.items()
        }
        check_session_tensors(spec, "tflite", found)
        self.engine: Any = interpreter
        self._entry = int(entry["index"])
        self._exits = tuple((name, int(d["index"])) for name, d in exits.items())

    def infer(self, pixels: Array) -> Tensors:
        """Run one frame; see :class:`edge_sdk.target.Session`."""
        engine = self.engine
        # A plain try: a context manager costs 35 us a frame when caches are cold.
        try:
            engine.set_tensor(self._entry, pixels)
            engine.invoke()
            # Copies: a view that a caller still holds would make the next invoke fail.
            return {name: engine.get_tensor(index) for name, index in self._exits}
        except Exception as error:  # vendor exceptions share no base class
            raise InferFailed(f"tflite: inference failed: {error}", remedy=INFER_REMEDY) from error

    def close(self) -> None:
        """Free the engine."""
        self.engine = None


class Tflite:
    """Target ``tflite``."""

    name = "tflite"
    distribution = "tflite"
    modules: tuple[str, ...] = ("ai_edge_litert", "tflite_runtime")

    def compile(self, model: FloatModel, *, recipe: Recipe, calibration: Sequence[Array]) -> Artifact:
        """Float: the file as it is. Int8: static ranges by ai-edge-quantizer, uint8 pixels in, float maps out."""
        check_recipe(self.name, recipe, precisions=("fp32", "int8"))
        if model.tflite is None:
            raise CompileFailed(
                f"{model.spec.name}: the tflite target needs the float .tflite beside the ONNX",
                remedy="make it with litert-torch (docs/bring-your-own.md) and name it with --tflite; "
                "a zoo model: python -m edge_training.export",
            )
        data = model.tflite.read_bytes()
        if recipe.precision == "int8":
            with vendor_errors("tflite", CompileFailed, "quantization failed", "check the float .tflite"):
                data = _quantize(model.tflite, calibration)
        return Artifact(
            files={_MODEL: data},
            outputs=_output_order(data, model.spec),
            fingerprint={"tflite": _version()},
        )

    def load(self, artifact: Artifact, spec: ModelSpec, *, options: LoadOptions) -> TfliteSession:
        """Make a session; see :class:`edge_sdk.target.Target`."""
        return TfliteSession(artifact, spec, options)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in ("ai-edge-litert", "tflite-runtime"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "unknown"


def _output_order(data: bytes, spec: ModelSpec) -> tuple[str, ...]:
    """Spec names in the order of the file's outputs: the signature calls them output_0, output_1 ... as exported.

    Raises:
        CompileFailed: the file's outputs are not the spec's; names the first that differs.
    """
    interpreter = _import().Interpreter(model_content=data)
    exported = interpreter.get_signature_runner(_SIGNATURE).get_output_details()
    index_to_name = {}
    for i, tensor in enumerate(spec.outputs):
        found = exported.get(f"output_{i}")
        shape = None if found is None else tuple(int(n) for n in found["shape"])
        if shape != tensor.shape or len(exported) != len(spec.outputs):
            raise CompileFailed(
                f"the float .tflite has {len(exported)} outputs, output_{i} of shape {shape}; "
                f"the spec wants {len(spec.outputs)}, there {tensor.name!r} {tensor.shape}",
                remedy="make it with the spec's outputs, in its order: docs/bring-your-own.md",
            )
        index_to_name[int(found["index"])] = tensor.name
    return tuple(index_to_name[int(d["index"])] for d in interpreter.get_output_details())


def _output_ranges(model: Path, calibration: Sequence[Array]) -> list[tuple[str, float, float]]:
    """Name, least and greatest value of each output of the float network over all calibration pictures."""
    interpreter = _import().Interpreter(model_path=str(model))
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    exits = [(str(d["name"]), int(d["index"])) for d in interpreter.get_output_details()]
    extremes = []
    for pixels in calibration:
        interpreter.set_tensor(entry["index"], pixels)
        interpreter.invoke()
        values = [interpreter.get_tensor(index) for _, index in exits]
        extremes.append([(float(v.min()), float(v.max())) for v in values])
    table = np.array(extremes)
    return [
        (name, float(table[:, i, 0].min()), float(table[:, i, 1].max())) for i, (name, _) in enumerate(exits)
    ]


def _quantize(model: Path, calibration: Sequence[Array]) -> bytes:
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe
    except ImportError as error:
        raise MissingDependency(
            f"ai-edge-quantizer cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    tool = quantizer.Quantizer(str(model), recipe.static_wi8_ai8())
    for operation in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        tool.update_quantization_recipe(regex=".*", operation_name=operation, algorithm_key="no_quantize")
    ranges = tool.calibrate({_SIGNATURE: [{"args_0": pixels} for pixels in calibration]}, num_threads=2)
    # The tool averages ranges over pictures: good inside, where rare extremes cost resolution; at the outputs it would
    # clip the scores of the clearest faces, so these get their whole range.
    for name, low, high in _output_ranges(model, calibration):
        ranges[name]["min"] = np.full_like(ranges[name]["min"], low)
        ranges[name]["max"] = np.full_like(ranges[name]["max"], high)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / _MODEL
        tool.quantize(ranges).export_model(str(out), overwrite=True)
        return out.read_bytes()


TARGET: Target = Tflite()
