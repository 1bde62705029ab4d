"""No engine reads a file that the bundle's hash does not cover, or runs what is not its own, when it loads or builds."""

import dataclasses

import pytest
import toys

from edge_sdk.errors import CompileFailed, InputError, LoadFailed
from edge_sdk.target import Artifact, LoadOptions, SourceModel, find_target

onnx = pytest.importorskip("onnx", reason="host tool not installed")


def artifact_of(**files):
    names = (tuple(t.name for t in tensors) for tensors in (toys.SPEC.inputs, toys.SPEC.outputs))
    return Artifact({name.replace("_", "."): data for name, data in files.items()}, *names)


def refused(target, match, **files):
    with pytest.raises(LoadFailed, match=match) as caught:
        find_target(target).load(artifact_of(**files), toys.SPEC, options=LoadOptions())
    assert "build the bundle" in caught.value.remedy or "build it" in caught.value.remedy


@pytest.fixture
def elsewhere(toy_onnx, tmp_path, monkeypatch):
    """The toy with its weights in a file beside it, which the current folder is of; a whole network to an engine."""
    path = tmp_path / "toy.onnx"
    onnx.save(
        onnx.load(str(toy_onnx)), str(path), save_as_external_data=True, size_threshold=0, location="weights"
    )
    monkeypatch.chdir(tmp_path)
    return path


def custom(toy_onnx, domain="custom"):
    """The toy with an operator of nobody's before its end."""
    model = onnx.load(str(toy_onnx))
    node = model.graph.node[-1]
    made = onnx.helper.make_node("Mine", [f"{node.output[0]}_"], [node.output[0]], domain=domain)
    node.output[0] += "_"
    model.graph.node.append(made)
    model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    return model.SerializeToString()


def test_onnxruntime_reads_the_bundle_alone(elsewhere, toy_onnx):
    pytest.importorskip("onnxruntime", reason="engine not installed")
    refused("onnxruntime", "lies in another file", model_onnx=elsewhere.read_bytes())
    refused("onnxruntime", "custom.Mine", model_onnx=custom(toy_onnx))
    refused("onnxruntime", "EPContext", model_onnx=ep_context())
    refused("onnxruntime", "own format", model_onnx=b"\x00\x00\x00\x00ORTM" + bytes(64))
    refused("onnxruntime", "not ONNX")


def ep_context():
    """A node that holds, or names, what an accelerator's compiler made."""
    node = onnx.helper.make_node("EPContext", [], ["y"], domain="com.microsoft", ep_cache_context="/tmp/x")
    graph = onnx.helper.make_graph([node], "g", [], [])
    return onnx.helper.make_model(graph).SerializeToString()


def test_tensorrt_reads_the_bundle_alone(fake_tensorrt, elsewhere, toy_onnx):
    build = b'{"precision": "fp32"}'
    files = {"build_json": build}
    refused("tensorrt", "lies in another file", model_onnx=elsewhere.read_bytes(), **files)
    refused("tensorrt", "custom.Mine", model_onnx=custom(toy_onnx), **files)
    # A plugin has no domain.
    refused("tensorrt", "ai.onnx.Mine", model_onnx=custom(toy_onnx, ""), **files)


def test_the_check_of_a_bundle_for_tensorrt_follows_no_name(elsewhere):
    from edge_sdk.profile import read_profile
    from edge_targets.tensorrt import check

    bundle = toys.bundle(
        target="tensorrt",
        artifact=artifact_of(model_onnx=elsewhere.read_bytes(), build_json=b'{"precision": "fp32"}'),
    )
    report = check.check(bundle, read_profile("jetson-orin-nano"))
    assert not report.passed
    assert "lies in another file" in str(report)


IR = b"""<?xml version="1.0"?>
<net name="n" version="11"><layers><layer id="0" name="x" type="Parameter" version="%s"/></layers></net>
"""


def test_openvino_reads_its_own_format_alone(elsewhere, toy_onnx, toy_tflite):
    pytest.importorskip("openvino", reason="engine not installed")
    weights = {"model_bin": b"1234"}
    for other in (elsewhere, toy_onnx, toy_tflite):
        refused("openvino", "not OpenVINO's IR", model_xml=other.read_bytes(), **weights)
    refused("openvino", "begins with <html>", model_xml=b'<?xml version="1.0"?><html/>', **weights)
    refused("openvino", "not OpenVINO's IR", model_xml=b'<?xml version="1.0"?><net', **weights)
    refused("openvino", "not OpenVINO's IR", model_xml=b"<?xmTFL3 ?><net/>", **weights)
    refused(
        "openvino", "not OpenVINO's IR", model_xml=b'<?xml version="1.0" encoding="none"?><net/>', **weights
    )
    refused("openvino", "document type", model_xml=b'<?xml version="1.0"?><!DOCTYPE net []><net/>', **weights)
    refused("openvino", "extension.Parameter", model_xml=IR % b"extension", **weights)
    named = (
        IR.replace(b"</layers>", b"</layers><rt_info><__weights_path value='/tmp/x'/></rt_info>") % b"opset1"
    )
    refused("openvino", "another file", model_xml=named, **weights)
    refused("openvino", "model.bin is missing", model_xml=IR % b"opset1")


def test_openvinos_weights_are_the_bundles(toy_onnx, tmp_path, monkeypatch):
    """Also where a file of that name lies in the current folder."""
    pytest.importorskip("openvino", reason="engine not installed")
    target = find_target("openvino")
    made = target.compile(SourceModel(toys.SPEC, toy_onnx), recipe=toys.FP32)
    (tmp_path / "model.bin").write_bytes(made.files["model.bin"])
    monkeypatch.chdir(tmp_path)
    cut = dataclasses.replace(made, files={**made.files, "model.bin": b""})
    with pytest.raises(LoadFailed):
        target.load(cut, toys.SPEC, options=LoadOptions())


def changed(toy_tflite, change):
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(toy_tflite))
    change(model, flatbuffer_utils.schema_fb)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def make_custom(model, schema):
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = "Mine"


def make_delegate(model, schema):
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.DELEGATE
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.DELEGATE


def make_custom_behind_a_negative_number(model, schema):
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = -1


def name_a_group(model, schema):
    group = schema.ExternalBufferGroupT()
    group.name = "/tmp/weights"
    model.externalBufferGroups = [group]


def move_a_tensor(model, schema):
    model.subgraphs[0].tensors[0].externalBuffer = 1


def reach_beyond(model, schema):
    model.buffers[-1].offset, model.buffers[-1].size = 2**40, 16


def reach_beyond_with_options(model, schema):
    operator = model.subgraphs[0].operators[0]
    operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize = 2**40, 16


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (make_custom, "'Mine' is custom"),
        (make_delegate, "'DELEGATE' is custom"),
        (make_custom_behind_a_negative_number, "is custom"),
        (name_a_group, "another file"),
        (move_a_tensor, "another file"),
        (reach_beyond, "beyond the end"),
        (reach_beyond_with_options, "beyond the end"),
    ],
)
def test_tflite_reads_the_bundle_alone(toy_tflite, toy_onnx, tmp_path, change, match):
    data = changed(toy_tflite, change)
    refused("tflite", match, model_tflite=data)
    path = tmp_path / "float.tflite"
    path.write_bytes(data)
    with pytest.raises(CompileFailed, match=match):
        find_target("tflite").compile(SourceModel(toys.SPEC, toy_onnx, path), recipe=toys.FP32)


def test_a_damaged_tflite_file_is_told_from_a_whole_one(toy_tflite):
    from edge_targets.tflite import tflite_file

    whole = toy_tflite.read_bytes()
    assert tflite_file.problem(whole) is None
    assert tflite_file.problem(toys.frame().tobytes()) == "the file is not TFLite"
    for size in range(8, min(len(whole), 400)):
        tflite_file.problem(whole[:size])  # says something or nothing, and raises nothing
    for place in range(400):
        tflite_file.problem(whole[:place] + b"\xff\xff\xff" + whole[place + 3 :])
    assert "damaged" in tflite_file.problem(whole[:64])


def test_a_build_refuses_what_a_load_would(elsewhere, toy_onnx, tmp_path):
    from edge_quantize.graph.check_graph import check_graph
    from edge_quantize.graph.import_onnx import read_graph

    path = tmp_path / "custom.onnx"
    path.write_bytes(custom(toy_onnx))
    for source, match in ((elsewhere, "lies in another file"), (path, "custom.Mine")):
        with pytest.raises(InputError, match=match):
            check_graph(SourceModel(toys.SPEC, source))
        with pytest.raises(InputError, match=match):
            read_graph(source)


def test_an_operator_that_onnx_lacks_is_found_in_a_branch(toy_onnx, tmp_path):
    from edge_quantize.graph.check_graph import check_graph

    model = onnx.load(str(toy_onnx))
    other = onnx.helper.make_graph([onnx.helper.make_node("NoSuch", [], ["z"])], "g", [], [])
    branch = onnx.helper.make_node("If", ["c"], ["z"], then_branch=other, else_branch=other)
    model.graph.node.append(branch)
    path = tmp_path / "branch.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="NoSuch"):
        check_graph(SourceModel(toys.SPEC, path))
