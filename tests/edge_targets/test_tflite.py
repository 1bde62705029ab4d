"""What is special in LiteRT: partitions, float files, and pixels in its int8 files."""

import types

import numpy as np
import pytest
import toys

from edge_sdk.errors import CompileFailed, InputError, LoadFailed
from edge_sdk.target import Artifact, LoadOptions, SourceModel, find_target
from edge_targets.conformance.several_inputs import PAIR
from edge_targets.tflite import TARGET, session


def compiled(toy_onnx, toy_tflite, recipe=toys.FP32):
    return toys.compile_by(TARGET, SourceModel(toys.SPEC, toy_onnx, toy_tflite), recipe)


def test_it_runs_on_the_processor_only(toy_onnx, toy_tflite):
    built = compiled(toy_onnx, toy_tflite)
    with pytest.raises(LoadFailed, match="GPU was required"):
        TARGET.load(built, toys.SPEC, options=LoadOptions(threads=1, devices=("GPU",)))
    with TARGET.load(built, toys.SPEC, options=LoadOptions(threads=1, devices=("GPU", "CPU"))) as loaded:
        assert loaded.notes[0] == "not on GPU: the tflite target runs on CPU alone, GPU was required"


def test_it_has_no_options_of_its_own():
    with pytest.raises(InputError, match="no option 'spinning'") as caught:
        TARGET.load(Artifact({}, (), ()), toys.SPEC, options=LoadOptions(engine={"spinning": True}))
    assert "it has no options of its own" in caught.value.remedy


def test_inputs_go_in_by_the_order_of_the_file(tmp_path):
    """The signature has the spec's order; the file may have another, which the artifact records."""
    flat = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils", reason="engine not installed")
    path = PAIR.write_tflite(tmp_path / "pair.tflite")
    network = flat.read_model(str(path))
    network.subgraphs[0].inputs = list(network.subgraphs[0].inputs)[::-1]
    flat.write_model(network, str(path))
    model = SourceModel(PAIR.spec, PAIR.write_onnx(tmp_path / "pair.onnx"), path)
    built = TARGET.compile(model, recipe=toys.FP32)
    assert built.inputs == ("vector", "crop")
    with TARGET.load(built, PAIR.spec, options=LoadOptions(threads=1)) as loaded:
        found, right = loaded.infer(PAIR.inputs(0)), PAIR.compute(PAIR.inputs(0))
    np.testing.assert_allclose(found["answer"], right["answer"], atol=1e-4)


def node(name, inputs, outputs):
    return {"op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}


def interpreter(*nodes):
    return types.SimpleNamespace(_get_ops_details=lambda: list(nodes))


NETWORK = (
    node("CAST", [0], [1]),
    node("CONV_2D", [1, 90], [2]),
    node("MUL", [2, 2], [3]),
    node("SOFTMAX", [3], [4]),
    node("CONV_2D", [4, 91], [5]),
)


def test_operators_between_a_delegates_tensors_are_its_own():
    found = session.partitions(
        interpreter(*NETWORK, node("DELEGATE", [1, 90], [3]), node("DELEGATE", [4, 91], [5]))
    )
    assert (found.count, found.operators, found.outside) == (2, 5, {"CAST": 1, "SOFTMAX": 1})
    assert str(found) == "XNNPACK runs 3 of 5 operators in 2 partition(s); outside: CAST 1, SOFTMAX 1"


def test_a_network_that_xnnpack_takes_whole_or_not_at_all():
    whole = session.partitions(interpreter(*NETWORK, node("DELEGATE", [0, 90, 91], [5])))
    assert str(whole) == "XNNPACK runs 5 of 5 operators in 1 partition(s)"
    none = session.partitions(interpreter(*NETWORK))
    assert (none.count, sum(none.outside.values())) == (0, 5)
    assert session.partitions(object()) is None


def test_the_real_interpreter_tells_its_partitions(toy_onnx, toy_tflite):
    built = compiled(toy_onnx, toy_tflite)
    with TARGET.load(built, toys.SPEC, options=LoadOptions(threads=1)) as loaded:
        assert loaded.device == "CPU"
        (note,) = loaded.notes
        assert note.startswith("XNNPACK runs ")


def test_many_partitions_are_a_warning_with_the_operators(toy_onnx, toy_tflite, monkeypatch):
    built = compiled(toy_onnx, toy_tflite)
    many = session.Partitions(session.MAX_PARTITIONS + 1, 40, {"TRANSPOSE": 9})
    monkeypatch.setattr(session, "partitions", lambda interpreter: many)
    with pytest.warns(RuntimeWarning, match="toy: .* in 9 partition.*outside: TRANSPOSE 9"):
        TARGET.load(built, toys.SPEC, options=LoadOptions(threads=1)).close()


def test_litert_moves_the_zero_point_of_the_pixels_only(toy_onnx, toy_tflite):
    pytest.importorskip("ai_edge_quantizer", reason="host tool not installed")
    flat = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils", reason="engine not installed")
    network = flat.read_model_from_bytearray(
        bytearray(compiled(toy_onnx, toy_tflite, toys.INT8).files["model.tflite"])
    )
    graph = network.subgraphs[0]
    kinds = {v: k for k, v in vars(flat.schema_fb.BuiltinOperator).items()}
    readers = [op for op in graph.operators if graph.inputs[0] in op.inputs]
    assert [kinds[network.operatorCodes[op.opcodeIndex].builtinCode] for op in readers] == ["QUANTIZE"]
    before, after = (graph.tensors[i].quantization for i in (graph.inputs[0], readers[0].outputs[0]))
    # The toy's 1/255 was folded into its weights: a pixel is one step.
    assert (before.scale[0], before.zeroPoint[0]) == (1, 0)
    assert (after.scale[0], after.zeroPoint[0]) == (1, -128)
    codes = {kinds[network.operatorCodes[op.opcodeIndex].builtinCode] for op in graph.operators}
    assert "CAST" not in codes


def test_a_float_tflite_of_another_network_is_refused_by_output(toy_tflite, toy_onnx):
    pytest.importorskip("ai_edge_litert", reason="engine of tflite is not installed")
    model = SourceModel(toys.CLASSIFIER, toy_onnx, toy_tflite)
    with pytest.raises(CompileFailed, match=r"6 outputs, output_0.*wants 1, there 'logits'"):
        find_target("tflite").compile(model, recipe=toys.FP32)
