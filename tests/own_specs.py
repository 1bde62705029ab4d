"""Spec files of users' networks, and a classifier as other tools export one."""

import numpy as np

DETECTOR = """
name = "mine"
size = [{side}, {side}]
licence = "Apache-2.0"
{first}
[head]
kind = "detection"
labels = {labels}
strides = [8, 16, 32]
bins = {bins}
confidence = 0.25
iou = 0.5
max_faces = 100

[head.letterbox]
pad = 114
max_scale = 2.0
"""
CLASSIFIER = """
name = "mine"
size = [16, 16]
licence = "Apache-2.0"
{first}
[head]
kind = "{task}"
labels = {labels}
{decision}
[head.crop]
margin = 1.0
outside = "repeat"
"""
SIDE = 64


def spec_file(folder, text=DETECTOR, more="", **values):
    defaults = {"labels": '["a", "b", "c"]', "side": SIDE, "bins": 16, "task": "classification"}
    values = {**defaults, "first": "", "decision": "", **values}
    path = folder / "mine.toml"
    path.write_text(text.format(**values) + more)
    return path


def write_exported_classifier(path, *, softmax):
    """As other tools export one: normalised BGR floats in, ``probs`` out; answers with the mean of each channel."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "pick"], ["answer" if softmax else "probs"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["answer"], ["probs"], axis=1))
    pick = np.eye(3, 2, dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(pick, "pick")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
