"""Operations counted from artifacts, and stacks of convolutions that an engine takes without a host's tools."""

import numpy as np
import pytest
import toys

from edge_benchmarks import macs, roofline
from edge_sdk import protobuf, zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import InputError
from edge_sdk.target import Artifact, available_targets


def test_a_message_is_read_as_it_was_written():
    data = protobuf.integer(1, 5, 300, -1) + protobuf.text(2, "name") + protobuf.message(3, b"\x08\x01")
    found = protobuf.fields(data)
    assert found[1] == [5, 300, (1 << 64) - 1]
    assert found[2] == [b"name"]
    assert protobuf.fields(protobuf.one(found, 3)) == {1: [1]}
    assert protobuf.one(found, 9) == b""
    assert protobuf.varints(b"\x05\xac\x02") == [5, 300]


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x80", b"\x0f", b"\x09abc", b"\xff" * 12])
def test_anything_else_is_refused(data):
    with pytest.raises(InputError, match="not a protocol buffer"):
        protobuf.fields(data)


def test_a_graphs_operations_are_those_of_its_kernels(toy_onnx):
    pytest.importorskip("onnxruntime")
    # Every level's kernels are as large as their stride, so each sees every pixel once: 24 maps in all, 3 channels.
    outputs = 4 * toys.BINS + len(toys.LABELS)
    expected = len(toys.STRIDES) * toys.SIDE**2 * 3 * outputs
    assert macs.count(Artifact({"model.onnx": toy_onnx.read_bytes()}, (), ())) == (expected, "the ONNX graph")


def test_an_unknown_format_is_not_guessed():
    assert macs.count(Artifact({"model.plan": b"?"}, (), ())) is None


@pytest.mark.parametrize("bundle", zoo.bundles("fer-yolo11n"), ids=lambda b: f"{b.target}-{b.precision}")
def test_every_engines_artifact_of_one_network_has_the_same_operations(bundle):
    if bundle.target not in available_targets():
        pytest.skip(f"{bundle.target} is not installed")
    assert macs.count(Bundle.open(bundle.path).artifact)[0] == 791_411_200


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tflite"])
def test_every_engine_takes_the_stack_and_answers_alike(target, precision):
    if target not in available_targets():
        pytest.skip(f"{target} is not installed")
    if target == "tflite":
        pytest.importorskip("ai_edge_litert.schema_py_generated", reason="the old runtime has no schema")
    assert roofline.peak(target, precision, threads=1, seconds=0.01) > 0


def test_the_stack_computes_what_it_should():
    ort = pytest.importorskip("onnxruntime")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 256), np.uint8)
    answers = []
    for int8 in (False, True):
        session = ort.InferenceSession(roofline.stack_onnx(int8=int8), providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"pixels": pixels})[0])
    current, kernel = pixels[0].astype(np.float64) / 255, roofline._weights().T * roofline._SCALE
    for _ in range(roofline.LAYERS):
        current = np.maximum(current @ kernel, 0)
    assert np.allclose(answers[0][0], current, atol=1e-3)
    assert macs.count(Artifact({"m.onnx": roofline.stack_onnx(int8=True)}, (), ()))[0] == roofline.PEAK_MACS


def test_what_cannot_be_measured_leaves_a_reason(make_bundle, monkeypatch):
    path = make_bundle("a")
    monkeypatch.setattr(roofline.macs, "count", lambda artifact: None)
    monkeypatch.setattr(roofline, "peak", lambda *_, **__: 100.0)
    found = roofline.measure(path, 10.0, threads=1)
    assert (found.gmacs, found.achieved_gops, found.peak_gops, found.share) == (None, None, 100.0, None)
    assert "no operations" in found.reason
    monkeypatch.setattr(roofline.macs, "count", lambda artifact: (500_000_000, "a graph"))
    found = roofline.measure(path, 20.0, threads=1)
    assert (found.achieved_gops, found.share) == (50.0, 0.5)
