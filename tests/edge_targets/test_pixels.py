"""Int8 networks read the pixels as they are: nothing casts, scales or quantizes them first."""

import numpy as np
import pytest
import toys

from edge_sdk.target import FloatModel, LoadOptions, find_target

pytest.importorskip("onnx", reason="host tool not installed")


def pixels(seed):
    return toys.picture(np.random.default_rng(seed))[0][None]


def compiled(name, onnx, tflite=None):
    model = FloatModel(toys.SPEC, onnx, tflite)
    return find_target(name).compile(model, recipe=toys.INT8, calibration=[pixels(s) for s in range(16)])


def test_onnxruntime_dequantizes_the_pixels_themselves(toy_onnx):
    import onnx

    pytest.importorskip("onnxruntime", reason="engine not installed")
    graph = onnx.load_from_string(compiled("onnxruntime", toy_onnx).files["model.onnx"]).graph
    (first,) = (n for n in graph.node if "pixels" in n.input)
    (second,) = (n for n in graph.node if first.output[0] in n.input)
    assert (first.op_type, second.op_type) == ("Transpose", "DequantizeLinear")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    scale, zero = (constants[name] for name in second.input[1:])
    assert scale == np.float32(1 / 255)
    assert (zero, zero.dtype) == (0, np.uint8)
    assert not [n for n in graph.node if n.op_type in ("Cast", "Mul")]


def test_litert_moves_the_zero_point_of_the_pixels_only(toy_onnx, toy_tflite):
    pytest.importorskip("ai_edge_quantizer", reason="host tool not installed")
    flat = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils", reason="engine not installed")
    network = flat.read_model_from_bytearray(
        bytearray(compiled("tflite", toy_onnx, toy_tflite).files["model.tflite"])
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


def test_openvino_gives_the_pixels_their_own_256_steps(toy_onnx):
    openvino = pytest.importorskip("openvino", reason="engine not installed")
    pytest.importorskip("nncf", reason="host tool not installed")
    files = compiled("openvino", toy_onnx).files
    weights = openvino.Tensor(np.frombuffer(files["model.bin"], np.uint8))
    network = openvino.Core().read_model(files["model.xml"], weights)
    fakes = [op for op in network.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    limits = [[float(op.input_value(i).get_node().get_data()) for i in range(1, 5)] for op in fakes]
    assert limits[0] == pytest.approx([0, 1, 0, 1])  # after the multiplication by 1/255


def test_a_picture_brighter_than_all_of_calibration_is_not_clipped(toy_onnx):
    """Where the maps themselves stay in range: only the pixels' quantization can have cut it."""
    pytest.importorskip("onnxruntime", reason="engine not installed")
    model, target = FloatModel(toys.SPEC, toy_onnx), find_target("onnxruntime")
    rng = np.random.default_rng(0)
    # Red and green cancel in the class maps, so a brighter blue is all that is new.
    dark = [rng.integers(0, 100, toys.SPEC.input.shape).astype(np.uint8) for _ in range(16)]
    artifact = target.compile(model, recipe=toys.INT8, calibration=dark)
    bright = dark[0].copy()
    bright[..., 2] = 255
    with target.load(artifact, toys.SPEC, options=LoadOptions(threads=1)) as session:
        found, truth = session.infer(bright)["cls8"], toys.engine(bright)["cls8"]
    np.testing.assert_allclose(found, truth, atol=0.2)
