"""Graphs for TensorRT: what is quantized where, that it computes the same, and a finding for every broken rule."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine of onnxruntime is not installed")

import onnx
import onnxruntime
import toys
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.errors import CompileFailed
from edge_sdk.target import SourceModel, find_target
from edge_sdk.verify import snr_db
from edge_targets.tensorrt import qdq_placement
from edge_targets.tensorrt.float16 import check_float16_range, to_float16
from edge_targets.tensorrt.linter import RULES, lint
from edge_targets.tensorrt.prepare import prepare

SIDE = 16


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def residual(activation="silu"):
    """A residual block: conv, activation, conv, activation, plus the shortcut; then pool and gemm."""
    rng = np.random.default_rng(0)

    def act(name, given, out):
        if activation == "silu":
            return [
                helper.make_node("Sigmoid", [given], [f"{out}_gate"], name=f"{name}_gate"),
                helper.make_node("Mul", [given, f"{out}_gate"], [out], name=f"{name}_mul"),
            ]
        return [helper.make_node("Relu", [given], [out], name=name)]

    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2], name="transpose"),
        helper.make_node("Cast", ["nchw"], ["floats"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Mul", ["floats", "unit"], ["x"], name="normalize"),
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4, name="conv1"),
        *act("act1", "c1", "a1"),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], pads=[1] * 4, name="conv2"),
        *act("act2", "c2", "a2"),
        helper.make_node("Add", ["a1", "a2"], ["sum"], name="residual"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1, name="gemm"),
    ]
    constants = [
        constant("unit", 1 / 255),
        constant("w1", rng.normal(0, 0.3, (8, 3, 3, 3))),
        constant("b1", rng.normal(0, 0.1, 8)),
        constant("w2", rng.normal(0, 0.15, (8, 8, 3, 3)) * np.geomspace(0.05, 2, 8)[:, None, None, None]),
        constant("b2", rng.normal(0, 0.1, 8)),
        constant("w3", rng.normal(0, 0.5, (4, 8))),
        constant("b3", rng.normal(0, 0.1, 4)),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, (1, SIDE, SIDE, 3))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 4))],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(1)
    return [{"pixels": rng.integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8)} for _ in range(8)]


@pytest.fixture(scope="module")
def prepared():
    return prepare(residual())


@pytest.fixture(scope="module")
def quantized(prepared, frames):
    return qdq_placement.quantize(prepared, qdq_placement.ranges(prepared, frames))


def answer(model, frame):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, frame)[0]


def nodes(model):
    return {node.name: node for node in model.graph.node}


def edited(model, edit):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    edit(copy)
    return copy


def test_pixels_are_cast_before_they_are_moved(prepared, frames):
    first = prepared.graph.node[0]
    assert (first.op_type, list(first.input)) == ("Cast", ["pixels"])
    assert nodes(prepared)["transpose"].input[0] == first.output[0]
    assert np.array_equal(answer(prepared, frames[0]), answer(residual(), frames[0]))
    assert [f.rule for f in lint(residual())] == ["pixels-cast"]


def test_nodes_without_a_name_get_one_each():
    model = edited(residual(), lambda m: [n.ClearField("name") for n in m.graph.node])
    names = [n.name for n in prepare(model).graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_float16_is_typed_throughout_and_close(prepared, frames):
    half = to_float16(prepared)
    assert {t.data_type for t in half.graph.initializer} == {TensorProto.FLOAT16}
    assert {v.type.tensor_type.elem_type for v in half.graph.value_info} == {TensorProto.FLOAT16}
    assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert half.graph.node[-1].op_type == "Cast"
    for frame in frames:
        assert snr_db(answer(prepared, frame), answer(half, frame)) > 45


def test_the_factors_of_a_resize_stay_float32(prepared):
    model = edited(prepared, lambda m: None)
    model.graph.initializer.append(constant("factors", [1, 1, 2, 2]))
    resize = helper.make_node("Resize", ["sum", "", "factors"], ["large"], name="resize", mode="nearest")
    model.graph.node.insert(len(model.graph.node) - 3, resize)
    nodes(model)["pool"].input[0] = "large"
    half = to_float16(model)
    assert {t.name: t.data_type for t in half.graph.initializer}["factors"] == TensorProto.FLOAT


def test_a_weight_beyond_float16_is_named(prepared):
    model = edited(
        prepared, lambda m: m.graph.initializer[1].CopyFrom(constant("w1", np.full((8, 3, 3, 3), 1e6)))
    )
    with pytest.raises(CompileFailed, match="'w1'"):
        to_float16(model)


def test_an_activation_near_float16s_end_is_named_though_float32_computes_it(prepared, frames):
    check_float16_range(prepared, frames)
    model = edited(prepared, lambda m: m.graph.initializer[0].CopyFrom(constant("unit", 100)))
    with pytest.raises(CompileFailed, match="65504"):
        check_float16_range(model, frames)


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_pairs_stand_where_tensorrt_wants_them(activation, frames):
    prepared = prepare(residual(activation))
    model = qdq_placement.quantize(prepared, qdq_placement.ranges(prepared, frames))
    assert lint(model) == []
    pairs = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    # The input of every weighted operator, both summands (each behind its activation), and the three weights.
    assert pairs == {"x", "a1", "a2", "flat", "w1", "w2", "w3"}
    by_name = nodes(model)
    assert by_name["residual"].input[:] == ["a1_dequantized", "a2_dequantized"]
    assert by_name["conv2"].input[:] == ["a1_dequantized", "w2_dequantized", "b2"]


def test_a_convolutions_own_output_is_added_unquantized(frames):
    model = edited(residual("relu"), lambda m: m.graph.node.remove(nodes(m)["act2"]))
    nodes(model)["residual"].input[1] = "c2"
    prepared = prepare(model)
    quantized = qdq_placement.quantize(prepared, qdq_placement.ranges(prepared, frames))
    assert nodes(quantized)["residual"].input[:] == ["a1_dequantized", "c2"]
    assert lint(quantized) == []


def test_a_shortcut_from_a_convolution_is_added_in_int8_and_the_branch_in_its_kernel(frames):
    """Linear bottlenecks: both summands are convolutions' outputs, and the next block reads one of them."""

    def linear(m):
        m.graph.node.remove(nodes(m)["act1"])
        m.graph.node.remove(nodes(m)["act2"])
        nodes(m)["conv1"].output[0], nodes(m)["conv2"].output[0] = "a1", "a2"

    prepared = prepare(edited(residual("relu"), linear))
    for summands in (["a1", "a2"], ["a2", "a1"]):
        nodes(prepared)["residual"].input[:] = summands
        model = qdq_placement.quantize(prepared, qdq_placement.ranges(prepared, frames))
        assert lint(model) == []
        assert set(nodes(model)["residual"].input) == {"a1_dequantized", "a2"}


def test_scales_are_symmetric_scalar_for_activations_and_by_channel_for_weights(quantized):
    values = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = values[node.input[1]], values[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            weight = node.name.startswith("w")
            assert scale.shape == ((8,) if node.name[:2] in ("w1", "w2") else (4,) if weight else ())


def test_the_int8_network_computes_what_the_float_one_does(prepared, quantized, frames):
    for frame in frames:
        assert snr_db(answer(prepared, frame), answer(quantized, frame)) > 20


def test_what_a_recipe_keeps_in_float_has_no_pair(prepared, frames):
    model = qdq_placement.quantize(
        prepared, qdq_placement.ranges(prepared, frames), keep_float=("conv2", "residual")
    )
    by_name = nodes(model)
    assert by_name["conv2"].input[:] == ["a1", "w2", "b2"]
    assert by_name["residual"].input[:] == ["a1", "a2"]
    assert by_name["gemm"].input[1] == "w3_dequantized"
    assert lint(model, keep_float=("conv2", "residual")) == []


def test_an_activation_that_is_always_zero_cannot_be_calibrated(prepared, frames):
    nothing = qdq_placement.ranges(prepared, [{"pixels": np.zeros_like(frames[0]["pixels"])}])
    with pytest.raises(CompileFailed, match="always 0"):
        qdq_placement.quantize(prepared, nothing)


def put(name, value):
    """Replace a constant."""

    def edit(model):
        for tensor in model.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))

    return edit


def wire(node, index, tensor):
    """Let a node read another tensor."""
    return lambda model: nodes(model)[node].input.__setitem__(index, tensor)


def both(*edits):
    return lambda model: [edit(model) for edit in edits]


def pair_between_conv_and_gate(model):
    add_pair("c1")(model)
    nodes(model)["act1_gate"].input[0] = "c1_dequantized"
    nodes(model)["act1_mul"].input[0] = "c1_dequantized"


def add_pair(tensor):
    def edit(model):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), f"{tensor}_scale"))
        model.graph.initializer.append(numpy_helper.from_array(np.int8(0), f"{tensor}_zero_point"))
        for kind, given, made in (
            ("QuantizeLinear", tensor, "quantized"),
            ("DequantizeLinear", f"{tensor}_quantized", "dequantized"),
        ):
            inputs = [given, f"{tensor}_scale", f"{tensor}_zero_point"]
            name = f"{tensor}_{kind}"
            model.graph.node.append(helper.make_node(kind, inputs, [f"{tensor}_{made}"], name=name))

    return edit


def quantized_output(model):
    nodes(model)["gemm"].output[0] = "raw"
    add_pair("raw")(model)
    nodes(model)["raw_DequantizeLinear"].output[0] = "logits"


@pytest.mark.parametrize(
    ("rule", "node", "edit"),
    [
        ("pixels-cast", "transpose", both(wire("transpose", 0, "pixels"))),
        ("qdq-int8", "a1_QuantizeLinear", put("a1_zero_point", np.uint8(0))),
        ("qdq-symmetric", "a1_QuantizeLinear", put("a1_zero_point", np.int8(3))),
        ("qdq-scale", "a1_QuantizeLinear", put("a1_scale", np.float32(0))),
        ("qdq-scale", "w2_QuantizeLinear", put("w2_scale", np.full(8, np.nan, np.float32))),
        ("qdq-scale", "a1_QuantizeLinear", wire("a1_QuantizeLinear", 1, "pooled")),
        ("qdq-pair", "a1_QuantizeLinear", wire("a1_DequantizeLinear", 1, "a2_scale")),
        ("qdq-pair", "a1_QuantizeLinear", wire("pool", 0, "a1_quantized")),
        ("qdq-activation-scalar", "a1_QuantizeLinear", put("a1_scale", np.full(8, 0.1, np.float32))),
        ("qdq-weight-channel", "conv2", put("w2_scale", np.float32(0.1))),
        ("qdq-half", "conv2", wire("conv2", 1, "w2")),
        ("qdq-half", "gemm", wire("gemm", 0, "flat")),
        ("qdq-fusion", "c1_QuantizeLinear", pair_between_conv_and_gate),
        ("qdq-residual", "residual", wire("residual", 0, "a1")),
        ("qdq-output", "raw_DequantizeLinear", quantized_output),
        ("qdq-bias", "b2_DequantizeLinear", both(add_pair("b2"), wire("conv2", 2, "b2_dequantized"))),
    ],
)
def test_every_rule_names_the_node_that_breaks_it(quantized, rule, node, edit):
    found = lint(edited(quantized, edit))
    assert (rule, node) in {(f.rule, f.node) for f in found}
    assert all(f.rule in RULES and f.problem for f in found)


def test_no_rule_is_without_a_case():
    parametrized = test_every_rule_names_the_node_that_breaks_it.pytestmark[0].args[1]
    assert {case[0] for case in parametrized} == set(RULES)


def test_what_onnxruntime_quantizes_for_itself_is_no_graph_for_tensorrt(toy_onnx):
    model = SourceModel(toys.SPEC, toy_onnx)
    artifact = toys.compile_by(find_target("onnxruntime"), model, toys.INT8)
    rules = {f.rule for f in lint(onnx.load_from_string(artifact.files["model.onnx"]))}
    assert {"qdq-int8", "qdq-bias"} <= rules
