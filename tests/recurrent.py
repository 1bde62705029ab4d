"""A recurrent classifier small enough to make in a test.

Its first logit is how bright the crop is, 0..1, plus half of what it was in the step before; the other is 0. The graph
has its inputs and outputs in another order than the spec, and its pixels have an odd name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import toys

from edge_quantize.golden import golden_cases
from edge_sdk.image import FaceCrop
from edge_sdk.spec import ModelSpec, StatePair
from edge_sdk.target import LoadOptions, SourceModel, find_target
from edge_sdk.tasks import task_of
from edge_sdk.tasks.classification import ClassificationHead
from edge_sdk.tensors import TensorSpec
from edge_sdk.testing import FakeSession

SIDE = 16
HEAD = ClassificationHead(
    kind="classification", labels=("bright", "dark"), crop=FaceCrop(margin=1.0, outside="repeat")
)
SPEC = ModelSpec(
    "recurrent",
    (TensorSpec("Z9_frame", (1, SIDE, SIDE, 3), "uint8", "NHWC"), TensorSpec("h", (1, 2), "float32", "NC")),
    (TensorSpec("logits", (1, 2), "float32", "NC"), TensorSpec("H", (1, 2), "float32", "NC")),
    HEAD,
    licence="Apache-2.0",
    state=(StatePair("h", "H"),),
)


def compute(inputs):
    """What the network says, in numpy."""
    seen = np.array([[inputs["Z9_frame"].mean() / 255, 0]], np.float32)
    logits = seen + inputs["h"] / 2
    return {"logits": logits, "H": logits.copy()}


def session() -> FakeSession:
    """The network without an engine."""
    return FakeSession(SPEC, answer=compute)


def write_onnx(path: Path) -> Path:
    """The network as an ONNX file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((2, 3, SIDE, SIDE), np.float32)
    kernel[0] = 1 / (3 * SIDE * SIDE)
    nodes = [
        helper.make_node("Transpose", ["Z9_frame"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["unit"]),
        helper.make_node("Conv", ["unit", "kernel"], ["map"]),
        helper.make_node("Flatten", ["map"], ["seen"]),
        helper.make_node("Mul", ["h", "half"], ["faded"]),
        helper.make_node("Add", ["seen", "faded"], ["logits"]),
        helper.make_node("Identity", ["logits"], ["H"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
    ]

    def info(name, kind, *shape):
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "recurrent",
        [info("h", TensorProto.FLOAT, 1, 2), info("Z9_frame", TensorProto.UINT8, 1, SIDE, SIDE, 3)],
        [info("H", TensorProto.FLOAT, 1, 2), info("logits", TensorProto.FLOAT, 1, 2)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def write_bundle(folder: Path, spec: ModelSpec, onnx: Path, engine: str = "onnxruntime") -> Path:
    """A bundle of a float network whose golden cases are true."""
    target = find_target(engine)
    artifact = target.compile(SourceModel(spec, onnx), recipe=toys.FP32)
    with target.load(artifact, spec, options=LoadOptions(threads=1)) as made:
        golden = golden_cases(made, task_of(spec))
    path = folder / f"{spec.name}.{engine}.edge"
    toys.bundle(spec=spec, target=engine, artifact=artifact, golden=golden).write(path)
    return path
