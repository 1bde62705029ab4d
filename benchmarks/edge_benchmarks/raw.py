"""Engines called the way their vendors' manuals do, with our sessions' settings: what an SDK must not slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edge_sdk.errors import InputError
from edge_sdk.spec import ModelSpec
from edge_sdk.target import Artifact
from edge_sdk.tensors import Array

Call = Callable[[Array], Any]


def raw_call(target: str, artifact: Artifact, spec: ModelSpec, threads: int) -> Call:
    """A function from input pixels to the engine's own idea of outputs.

    Args:
        target: name of one of our engines.
        artifact: of a bundle for it.
        spec: of the network.
        threads: of the engine.

    Raises:
        InputError: an engine that this module does not know.
    """
    known = {"onnxruntime": _onnxruntime, "openvino": _openvino, "tflite": _tflite}
    if target not in known:
        raise InputError(f"no raw call for target {target!r}", remedy=f"use one of {', '.join(known)}")
    return known[target](artifact, spec, threads)


def _onnxruntime(artifact: Artifact, spec: ModelSpec, threads: int) -> Call:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    (model,) = artifact.files.values()
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    names = [t.name for t in spec.outputs]
    return lambda pixels: session.run(names, {spec.input.name: pixels})


def _openvino(artifact: Artifact, spec: ModelSpec, threads: int) -> Call:
    import openvino

    core = openvino.Core()
    weights = openvino.Tensor(np.frombuffer(artifact.files["model.bin"], np.uint8))
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = core.read_model(artifact.files["model.xml"], weights)
    request = core.compile_model(model, "CPU", config).create_infer_request()
    # Sharing spares the vendor's call the copies that ours does not make either.
    return lambda pixels: request.infer([pixels], share_inputs=True, share_outputs=True)


def _tflite(artifact: Artifact, spec: ModelSpec, threads: int) -> Call:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter

    (model,) = artifact.files.values()
    engine = Interpreter(model_content=model, num_threads=threads)
    engine.allocate_tensors()
    (entry,) = engine.get_input_details()
    exits = [d["index"] for d in engine.get_output_details()]

    def call(pixels: Array) -> Any:
        engine.set_tensor(entry["index"], pixels)
        engine.invoke()
        return [engine.get_tensor(index) for index in exits]

    return call
