"""Which of the devices asked for an engine runs on; nothing is replaced silently."""

import pytest
import toys

from edge_sdk.errors import InputError, LoadFailed
from edge_sdk.target import LoadOptions, SourceModel, find_target
from edge_targets.device_fallback import first_that_loads


def artifact(name, toy_onnx):
    pytest.importorskip(name, reason=f"engine of {name} is not installed")
    return toys.compile_by(find_target(name), SourceModel(toys.SPEC, toy_onnx), toys.FP32)


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
        assert set(session.infer(toys.inputs())) == {t.name for t in toys.SPEC.outputs}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("device", ["cpu", "CPUExecutionProvider", "", "MULTI:CPU", "AUTO:TPU"])
def test_a_device_that_does_not_exist_is_an_error(name, device, toy_onnx):
    with pytest.raises(InputError, match="knows no device"):
        find_target(name).load(
            artifact(name, toy_onnx), toys.SPEC, options=LoadOptions(devices=(device, "CPU"))
        )
