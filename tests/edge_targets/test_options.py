"""What a device may decide about its engine, and that nothing of it is replaced silently."""

import subprocess
import sys
import types

import numpy as np
import pytest
import toys
from edge_targets.devices import first_that_loads
from edge_targets.threads import BUDGET_VARIABLE, cores, thread_count

from edge_sdk.errors import InputError, LoadFailed
from edge_sdk.model import snr_db
from edge_sdk.target import Artifact, FloatModel, LoadOptions, check_options, find_target
from edge_targets import onnxruntime as ours
from edge_targets import tflite


def pixels(seed=0):
    return toys.picture(np.random.default_rng(seed))[0][None]


def artifact(name, toy_onnx, recipe=toys.FP32):
    pytest.importorskip(name, reason=f"engine of {name} is not installed")
    return find_target(name).compile(FloatModel(toys.SPEC, toy_onnx), recipe=recipe, calibration=())


@pytest.mark.parametrize("options", [{"threads": 0}, {"streams": 0}, {"hint": "speed"}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        LoadOptions(**options)


def test_an_option_that_an_engine_does_not_have_is_refused_by_name():
    check_options("engine", LoadOptions(threads=2), known=())
    check_options("engine", LoadOptions(streams=2), known=("streams",))
    with pytest.raises(InputError, match="target engine has no streams, 2 was asked for"):
        check_options("engine", LoadOptions(streams=2), known=("devices",))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tflite"])
def test_every_engine_refuses_what_it_does_not_have(name):
    wrong = {"tflite": {"spinning": True}, "openvino": {"small_memory": True}, "onnxruntime": {"streams": 2}}
    with pytest.raises(InputError, match=f"target {name} has no {next(iter(wrong[name]))}"):
        find_target(name).load(Artifact({}, ()), toys.SPEC, options=LoadOptions(**wrong[name]))


# Threads


def test_threads_stay_within_the_budget_of_the_process(monkeypatch):
    monkeypatch.delenv(BUDGET_VARIABLE, raising=False)
    assert 1 <= thread_count(LoadOptions()) <= 4
    assert thread_count(LoadOptions(threads=9)) == 9
    monkeypatch.setenv(BUDGET_VARIABLE, "1")
    assert thread_count(LoadOptions()) == 1
    with pytest.raises(InputError, match=f"threads=2 was asked for, {BUDGET_VARIABLE}=1"):
        thread_count(LoadOptions(threads=2))


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_budget_that_is_no_number_is_an_error(monkeypatch, text):
    monkeypatch.setenv(BUDGET_VARIABLE, text)
    with pytest.raises(InputError, match=BUDGET_VARIABLE):
        thread_count(LoadOptions())


def test_a_container_with_less_than_a_core_gets_one_thread(tmp_path):
    everything = cores(tmp_path)
    for text, expected in (
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("max 100000", everything),
        ("nonsense", everything),
        (f"{(everything + 3) * 100000} 100000", everything),
    ):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert cores(tmp_path) == expected, text


# Devices


def refuse(*missing):
    def load(device):
        if device == "typo":
            raise InputError("no such device", remedy="name another")
        if device in missing:
            raise LoadFailed(f"no {device}", remedy=f"install {device}")
        return device.lower()

    return load


def test_one_device_is_required_and_several_are_tried_in_order():
    assert first_that_loads((), refuse()) == ("cpu", ())
    assert first_that_loads(("GPU",), refuse()) == ("gpu", ())
    assert first_that_loads(("NPU", "GPU", "CPU"), refuse("NPU", "GPU")) == (
        "cpu",
        ("not on NPU: no NPU", "not on GPU: no GPU"),
    )
    with pytest.raises(LoadFailed, match="no GPU") as caught:
        first_that_loads(("GPU",), refuse("GPU"))
    assert caught.value.remedy == "install GPU"
    with pytest.raises(LoadFailed, match="no NPU; no GPU"):
        first_that_loads(("NPU", "GPU"), refuse("NPU", "GPU"))
    with pytest.raises(InputError):
        first_that_loads(("typo", "CPU"), refuse())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_device_that_is_not_here_is_required_in_vain_and_preferred_with_a_note(name, toy_onnx):
    device = {"onnxruntime": "CUDA", "openvino": "NPU"}[name]
    target, built = find_target(name), artifact(name, toy_onnx)
    with pytest.raises(LoadFailed, match=device) as caught:
        target.load(built, toys.SPEC, options=LoadOptions(threads=1, devices=(device,)))
    assert "install" in caught.value.remedy
    with target.load(built, toys.SPEC, options=LoadOptions(threads=1, devices=(device, "CPU"))) as session:
        assert session.device == "CPU"
        assert session.notes[0].startswith(f"not on {device}: ")
        assert set(session.infer(pixels())) == {t.name for t in toys.SPEC.outputs}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("device", ["cpu", "CPUExecutionProvider", "", "MULTI:CPU", "AUTO:TPU"])
def test_a_device_that_does_not_exist_is_an_error(name, device, toy_onnx):
    with pytest.raises(InputError, match="knows no device"):
        find_target(name).load(
            artifact(name, toy_onnx), toys.SPEC, options=LoadOptions(devices=(device, "CPU"))
        )


def test_tflite_runs_on_the_processor_only():
    with pytest.raises(LoadFailed, match="GPU was required"):
        first_that_loads(("GPU",), tflite._check_device)
    assert first_that_loads(("GPU", "CPU"), tflite._check_device)[1] == (
        "not on GPU: the tflite target runs on the processor, GPU was required",
    )


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
    return ours._open(fake, Artifact({"model.onnx": b""}, ()), "CUDA", LoadOptions(threads=1))


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


# onnxruntime


@pytest.mark.parametrize("options", [{"spinning": True}, {"small_memory": True}])
def test_onnxruntime_computes_the_same_with_every_setting(options, toy_onnx):
    built = artifact("onnxruntime", toy_onnx)
    with find_target("onnxruntime").load(
        built, toys.SPEC, options=LoadOptions(threads=1, **options)
    ) as session:
        for name, expected in toys.engine(pixels()).items():
            assert snr_db(expected, session.infer(pixels())[name]) > 90
        settings = session.engine.get_session_options()
        assert settings.enable_cpu_mem_arena is not options.get("small_memory", False)
        spinning = settings.get_session_config_entry("session.intra_op.allow_spinning")
        assert spinning == str(int(options.get("spinning", False)))


# OpenVINO


@pytest.mark.parametrize(
    "options", [{"hint": "throughput"}, {"streams": 2, "threads": 2}, {"devices": ("AUTO",)}]
)
def test_openvino_computes_the_same_with_every_setting(options, toy_onnx):
    built = artifact("openvino", toy_onnx)
    with find_target("openvino").load(
        built, toys.SPEC, options=LoadOptions(**{"threads": 1, **options})
    ) as session:
        assert session.device == "CPU"
        for name, expected in toys.engine(pixels()).items():
            assert snr_db(expected, session.infer(pixels())[name]) > 90
        compiled = session.engine.get_compiled_model()
        if "streams" in options:
            assert compiled.get_property("NUM_STREAMS") == 2
        if "hint" in options:
            assert compiled.get_property("PERFORMANCE_HINT") == "THROUGHPUT"


def test_openvino_does_not_report_to_its_maker():
    pytest.importorskip("openvino", reason="engine of openvino is not installed")
    code = """
import os, sys
os.register_at_fork(before=lambda: print("forked"))
from edge_targets.openvino import _import
_import().Core()
print("there" if "openvino_telemetry" in sys.modules else "silent")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["silent"]


def test_more_streams_than_threads_are_refused_not_lowered(toy_onnx):
    with pytest.raises(InputError, match="2 streams were asked for, and 1 threads"):
        find_target("openvino").load(
            artifact("openvino", toy_onnx), toys.SPEC, options=LoadOptions(threads=1, streams=2)
        )


def test_openvino_stores_half_precision_in_half_the_bytes(toy_onnx):
    import dataclasses

    whole = artifact("openvino", toy_onnx)
    half = artifact("openvino", toy_onnx, dataclasses.replace(toys.FP32, name="fp16", precision="fp16"))
    assert len(half.files["model.bin"]) < 0.6 * len(whole.files["model.bin"])
    with find_target("openvino").load(half, toys.SPEC, options=LoadOptions(threads=1)) as session:
        for name, expected in toys.engine(pixels()).items():
            assert snr_db(expected, session.infer(pixels())[name]) > 40


# LiteRT


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
    found = tflite.partitions(
        interpreter(*NETWORK, node("DELEGATE", [1, 90], [3]), node("DELEGATE", [4, 91], [5]))
    )
    assert (found.count, found.operators, found.outside) == (2, 5, {"CAST": 1, "SOFTMAX": 1})
    assert str(found) == "XNNPACK runs 3 of 5 operators in 2 partition(s); outside: CAST 1, SOFTMAX 1"


def test_a_network_that_xnnpack_takes_whole_or_not_at_all():
    whole = tflite.partitions(interpreter(*NETWORK, node("DELEGATE", [0, 90, 91], [5])))
    assert str(whole) == "XNNPACK runs 5 of 5 operators in 1 partition(s)"
    none = tflite.partitions(interpreter(*NETWORK))
    assert (none.count, sum(none.outside.values())) == (0, 5)
    assert tflite.partitions(object()) is None


def test_the_real_interpreter_tells_its_partitions(toy_onnx, toy_tflite):
    target = find_target("tflite")
    built = target.compile(FloatModel(toys.SPEC, toy_onnx, toy_tflite), recipe=toys.FP32, calibration=())
    with target.load(built, toys.SPEC, options=LoadOptions(threads=1)) as session:
        assert session.device == "CPU"
        (note,) = session.notes
        assert note.startswith("XNNPACK runs ")


def test_many_partitions_are_a_warning_with_the_operators(toy_onnx, toy_tflite, monkeypatch):
    target = find_target("tflite")
    built = target.compile(FloatModel(toys.SPEC, toy_onnx, toy_tflite), recipe=toys.FP32, calibration=())
    many = tflite.Partitions(tflite.MAX_PARTITIONS + 1, 40, {"TRANSPOSE": 9})
    monkeypatch.setattr(tflite, "partitions", lambda interpreter: many)
    with pytest.warns(RuntimeWarning, match="toy: .* in 9 partition.*outside: TRANSPOSE 9"):
        target.load(built, toys.SPEC, options=LoadOptions(threads=1)).close()
