"""What is special in onnxruntime: providers, settings, and pixels in its QDQ graphs."""

import types

import numpy as np
import pytest
import toys

from edge_sdk.errors import LoadFailed
from edge_sdk.target import Artifact, LoadOptions, SourceModel, find_target
from edge_sdk.verify import snr_db
from edge_targets.onnxruntime import session
from edge_targets.onnxruntime.options import Options


def compiled(toy_onnx, recipe, calibration=None):
    pytest.importorskip("onnxruntime", reason="engine not installed")
    return toys.compile_by(find_target("onnxruntime"), SourceModel(toys.SPEC, toy_onnx), recipe, calibration)


class FakeRuntime:
    """An onnxruntime with CUDA in it, whose sessions lie where they are told."""

    def __init__(self, lie, *, tells=True):
        self.lie, self.asked = lie, None
        fake = self

        class Session:
            def __init__(self, data, settings, providers):
                fake.asked = providers

            def disable_fallback(self):
                pass

            def get_providers(self):
                return [*fake.lie, "CPUExecutionProvider"]

        if tells:
            Session.get_provider_graph_assignment_info = lambda self: [
                types.SimpleNamespace(ep_name=n) for n in (fake.lie or ["CPUExecutionProvider"])
            ]
        self.InferenceSession = Session
        self.SessionOptions = lambda: types.SimpleNamespace(add_session_config_entry=lambda k, v: None)

    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def opened(fake):
    return session._open(
        fake, Artifact({"model.onnx": b""}, (), ()), "CUDA", LoadOptions(threads=1), Options()
    )


@pytest.mark.parametrize("tells", [True, False])
def test_a_silent_fall_to_the_processor_is_an_error(tells):
    with pytest.raises(LoadFailed, match="runs this network on the processor, CUDA was required"):
        opened(FakeRuntime([], tells=tells))


def test_the_provider_that_really_runs_is_reported():
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    fake = FakeRuntime([cuda])
    assert opened(fake)[1] == "CUDA"
    assert fake.asked == [cuda, cpu]
    assert opened(FakeRuntime([cuda, cpu]))[1] == "CUDA+CPU"
    assert opened(FakeRuntime([cuda], tells=False))[1] == "CUDA"


def test_a_provider_that_can_start_but_takes_no_node_is_no_provider():
    fake = FakeRuntime(["CUDAExecutionProvider"])
    fake.InferenceSession.get_provider_graph_assignment_info = lambda self: [
        types.SimpleNamespace(ep_name="CPUExecutionProvider")
    ]
    with pytest.raises(LoadFailed, match="CUDA was required"):
        opened(fake)


@pytest.mark.parametrize("options", [{"spinning": True}, {"small_memory": True}])
def test_onnxruntime_computes_the_same_with_every_setting(options, toy_onnx):
    built = compiled(toy_onnx, toys.FP32)
    with find_target("onnxruntime").load(
        built, toys.SPEC, options=LoadOptions(threads=1, engine=options)
    ) as loaded:
        for name, expected in toys.answers().items():
            assert snr_db(expected, loaded.infer(toys.inputs())[name]) > 90
        settings = loaded.handle.get_session_options()
        assert settings.enable_cpu_mem_arena is not options.get("small_memory", False)
        spinning = settings.get_session_config_entry("session.intra_op.allow_spinning")
        assert spinning == str(int(options.get("spinning", False)))


def test_onnxruntime_dequantizes_the_pixels_themselves(toy_onnx):
    import onnx

    pytest.importorskip("onnxruntime", reason="engine not installed")
    graph = onnx.load_from_string(compiled(toy_onnx, toys.INT8).files["model.onnx"]).graph
    (first,) = (n for n in graph.node if "pixels" in n.input)
    (second,) = (n for n in graph.node if first.output[0] in n.input)
    assert (first.op_type, second.op_type) == ("Transpose", "DequantizeLinear")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    scale, zero = (constants[name] for name in second.input[1:])
    assert scale == np.float32(1 / 255)
    assert (zero, zero.dtype) == (0, np.uint8)
    assert not [n for n in graph.node if n.op_type in ("Cast", "Mul")]


def test_a_picture_brighter_than_all_of_calibration_is_not_clipped(toy_onnx):
    """Where the maps themselves stay in range: only the pixels' quantization can have cut it."""
    rng = np.random.default_rng(0)
    # Red and green cancel in the class maps, so a brighter blue is all that is new.
    dark = [rng.integers(0, 100, toys.SPEC.inputs[0].shape).astype(np.uint8) for _ in range(16)]
    artifact = compiled(toy_onnx, toys.INT8, [{"pixels": picture} for picture in dark])
    bright = dark[0].copy()
    bright[..., 2] = 255
    with find_target("onnxruntime").load(artifact, toys.SPEC, options=LoadOptions(threads=1)) as loaded:
        found, truth = loaded.infer({"pixels": bright})["cls8"], toys.engine(bright)["cls8"]
    np.testing.assert_allclose(found, truth, atol=0.2)
