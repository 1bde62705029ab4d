"""Graphs that are not the spec's, and graphs that no engine could compile: refused by the name of what is wrong."""

import dataclasses

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="host tool not installed")

import toys  # noqa: E402

from edge_quantize.graph.check_graph import check_graph  # noqa: E402
from edge_sdk.errors import InputError  # noqa: E402
from edge_sdk.target import SourceModel  # noqa: E402


@pytest.fixture
def checked(toy_onnx, tmp_path):
    """Check the toy's graph after a change, against the toy's spec or another."""

    def run(change=lambda model: None, spec=toys.SPEC):
        model = onnx.load(str(toy_onnx))
        change(model)
        onnx.save(model, str(tmp_path / "changed.onnx"))
        check_graph(SourceModel(spec, tmp_path / "changed.onnx"))

    return run


def test_the_toy_is_what_its_spec_says(checked):
    checked()


def not_finite(model):
    (weight,) = [w for w in model.graph.initializer if w.name == "w_cls8"]
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def unknown_operator(model):
    node = model.graph.node[-1]
    node.op_type, node.name = "Magic", "the-magic-node"


def from_the_future(model):
    model.opset_import[0].version = 999


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (not_finite, r"weight 'w_cls8' .* not finite"),
        (unknown_operator, r"node 'the-magic-node' is a ai\.onnx\.Magic"),
        (from_the_future, "opset 999"),
    ],
)
def test_a_graph_that_nobody_could_compile_is_named_by_tensor_or_node(checked, change, match):
    with pytest.raises(InputError, match=match) as caught:
        checked(change)
    assert caught.value.exit_code == 2


def free_height(model):
    (cls8,) = [v for v in model.graph.output if v.name == "cls8"]
    cls8.type.tensor_type.shape.dim[1].dim_param = "height"


def another_input(model):
    model.graph.input.append(onnx.helper.make_tensor_value_info("pose", onnx.TensorProto.FLOAT, (1, 4)))


def output_as_input(model):
    """The name is there, on the wrong side."""
    (cls8,) = [v for v in model.graph.output if v.name == "cls8"]
    model.graph.output.remove(cls8)
    model.graph.input.append(cls8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (free_height, "'cls8'.*dynamic"),
        (another_input, "an input 'pose' that the spec does not know"),
        (output_as_input, "'cls8'"),
    ],
)
def test_every_tensor_is_looked_for_by_name_on_its_own_side(checked, change, match):
    with pytest.raises(InputError, match=match):
        checked(change)


def test_an_input_that_the_graph_lacks_is_named(checked):
    (pixels,) = toys.SPEC.inputs
    spec = dataclasses.replace(toys.SPEC, inputs=(dataclasses.replace(pixels, name="picture"),))
    with pytest.raises(InputError, match="'picture'"):
        checked(spec=spec)


def test_a_file_that_is_no_graph_is_named(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no graph at all")
    with pytest.raises(InputError, match=r"x\.onnx"):
        check_graph(SourceModel(toys.SPEC, tmp_path / "x.onnx"))
