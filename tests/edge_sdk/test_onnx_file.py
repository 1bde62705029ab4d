"""An ONNX file that reads another file, at whatever depth it says so, or that runs what is custom, is no such file."""

import pytest

from edge_sdk import onnx_file, protobuf

onnx = pytest.importorskip("onnx", reason="host tool not installed")
from onnx import TensorProto, helper  # noqa: E402


def tensor(external=False, name="w"):
    made = helper.make_tensor(name, TensorProto.FLOAT, (1,), [1.0])
    if external:
        made.ClearField("float_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="../secret")
    return made


def sparse(part):
    indices = helper.make_tensor("i", TensorProto.INT64, (1,), [0])
    made = onnx.SparseTensorProto(values=tensor(part == "values"), indices=indices, dims=[4])
    if part == "indices":
        made.indices.CopyFrom(tensor(True, "i"))
    return made


def graph(nodes=(), weights=(), **more):
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))
    return helper.make_graph(list(nodes) or [helper.make_node("Identity", ["w"], ["y"])], "g", [], [output],
                             list(weights), **more)  # fmt: skip


def model(made=None, **more):
    return helper.make_model(
        graph() if made is None else made, opset_imports=[helper.make_opsetid("", 17)], **more
    )


def branch(inner):
    """An If with a branch."""
    other = graph(weights=[tensor()])
    return graph([helper.make_node("If", ["c"], ["y"], then_branch=other, else_branch=inner)])


def function(node):
    opset = [helper.make_opsetid("", 17)]
    return helper.make_function("local", "Local", [], ["y"], [node], opset)


def trained():
    made = model(graph(weights=[tensor()]))
    made.training_info.add().initialization.CopyFrom(graph(weights=[tensor(True)]))
    return made


def tensors_of_an_attribute():
    node = helper.make_node("Identity", ["w"], ["y"])
    node.attribute.append(helper.make_attribute("many", [tensor(), tensor(True)]))
    return model(graph([node]))


def location_alone():
    """Some readers go by the place, others by the names."""
    made = tensor()
    made.data_location = TensorProto.EXTERNAL
    return model(graph(weights=[made]))


def names_alone():
    made = tensor(True)
    made.data_location = TensorProto.DEFAULT
    return model(graph(weights=[made]))


CONSTANT = ("Constant", [], ["y"])


def constant():
    """A body with a constant that lies elsewhere."""
    return graph([helper.make_node(*CONSTANT, value=tensor(True))])


OUTSIDE = {
    "a weight": lambda: model(graph(weights=[tensor(), tensor(True)])),
    "only the place": location_alone,
    "only the names": names_alone,
    "values of a sparse weight": lambda: model(graph(sparse_initializer=[sparse("values")])),
    "indices of a sparse weight": lambda: model(graph(sparse_initializer=[sparse("indices")])),
    "a constant": lambda: model(graph([helper.make_node(*CONSTANT, value=tensor(True))])),
    "a sparse constant": lambda: model(graph([helper.make_node(*CONSTANT, sparse_value=sparse("values"))])),
    "one of an attribute's tensors": tensors_of_an_attribute,
    "a branch": lambda: model(branch(graph(weights=[tensor(True)]))),
    "a branch of a branch": lambda: model(branch(branch(graph(weights=[tensor(True)])))),
    "a constant in a loop": lambda: model(
        graph([helper.make_node("Loop", ["n", "c"], ["y"], body=constant())])
    ),
    "a scan's weight": lambda: model(
        graph([helper.make_node("Scan", ["x"], ["y"], body=graph(weights=[tensor(True)]), num_scan_inputs=1)])
    ),
    "a function": lambda: model(functions=[function(helper.make_node(*CONSTANT, value=tensor(True)))]),
    "a branch in a function": lambda: model(
        functions=[function(branch(graph(weights=[tensor(True)])).node[0])]
    ),
    "training": trained,
}


@pytest.mark.parametrize("where", OUTSIDE)
def test_data_in_another_file_is_found(where):
    assert "lies in another file" in onnx_file.problem(OUTSIDE[where]().SerializeToString())


def test_a_second_part_of_the_graph_is_looked_into_as_well():
    """Protocol buffers join messages that come twice."""
    whole = model(graph(weights=[tensor()])).SerializeToString()
    more = onnx.ModelProto()
    more.graph.initializer.append(tensor(True))
    assert "'w' lies in another file" in onnx_file.problem(whole + more.SerializeToString())


def test_what_is_whole_passes():
    within = branch(
        graph([helper.make_node(*CONSTANT, value=tensor())], sparse_initializer=[sparse("neither")])
    )
    assert onnx_file.problem(model(within).SerializeToString()) is None


@pytest.mark.parametrize(
    ("domain", "name"),
    [("custom", "Relu"), ("com.microsoft", "EPContext"), ("com.microsoft", "PyOp"), ("ai.onnx.training", "Adam"),
     ("org.pytorch.aten", "ATen"), ("", "Plugin")],
)  # fmt: skip
def test_an_operator_outside_the_list_is_named(domain, name):
    operators = {**onnx_file.STANDARD, "": ("Identity", "If")}
    for made in (lambda g: g, branch):
        custom = made(graph([helper.make_node(name, ["w"], ["y"], domain=domain)]))
        assert f"{domain or 'ai.onnx'}.{name}" in onnx_file.problem(
            model(custom).SerializeToString(), operators
        )
    assert onnx_file.problem(model(custom).SerializeToString(), None) is None


def test_a_function_does_not_make_its_own_operators_known():
    node = helper.make_node("Local", [], ["y"], domain="local")
    made = model(graph([node]), functions=[function(helper.make_node(*CONSTANT, value=tensor()))])
    assert "local.Local" in onnx_file.problem(made.SerializeToString())


def long_key(number):
    """A field's number and type, 32 bits too far: readers that cut it off take it for the small one."""
    return protobuf._encode((number << 3 | 2) + (1 << 32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no graph at all",
        b"\x0b\x0c",  # a group
        b"\x3a\x7f\x0a",  # cut off
        b"\x38\x01",  # a graph that is a number
        b"\x02\x00",  # field 0
        b"\xff" * 11,
        long_key(7) + b"\x00",
        b"\x08\x08\x00\x00ORTM",
    ],
)
def test_what_is_not_onnx_is_told(data):
    assert "not ONNX" in onnx_file.problem(data)


def test_depth_costs_no_stack():
    data = b""
    for _ in range(20_000):  # graph, node, attribute
        data = (
            protobuf.message(6, protobuf.message(1, protobuf.message(5, data)))
            if len(data) < 40_000
            else data
        )
    assert onnx_file.problem(protobuf.message(7, protobuf.message(1, protobuf.message(5, data)))) is None


def test_more_parts_than_anybody_needs_are_refused(monkeypatch):
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 10)
    assert "more than 10 parts" in onnx_file.problem(
        model(graph(weights=[tensor()] * 20)).SerializeToString()
    )
