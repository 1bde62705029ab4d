import importlib.metadata
import importlib.util
import sys
import types

import pytest

from edge_sdk.adapter import check_session_tensors
from edge_sdk.errors import LoadFailed, UnknownTarget
from edge_sdk.target import available_targets, engine_of, find_target, target_names


@pytest.mark.parametrize("name", target_names())
def test_a_listed_target_is_found_whether_its_engine_is_here_or_not(name, monkeypatch):
    for module in find_target(name).modules:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"edge_targets.{name}")
    assert find_target(name).name == name


@pytest.mark.parametrize(
    "name", ["os", "edge_sdk.model", "../tflite", "", "ONNXRUNTIME", "conformance", "profiles"]
)
def test_a_name_that_is_not_listed_is_never_imported(name, monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda asked: pytest.fail(f"imported {asked}"))
    with pytest.raises(UnknownTarget) as caught:
        find_target(name)
    assert "onnxruntime" in caught.value.remedy
    assert isinstance(caught.value, LookupError)


def test_an_outside_target_joins_by_its_entry_point(monkeypatch):
    outside = types.SimpleNamespace(name="rocket")
    entry = types.SimpleNamespace(name="rocket", load=lambda: outside)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [entry] if group == "edge_sdk.targets" else []
    )
    assert find_target("rocket") is outside
    with pytest.raises(UnknownTarget):
        find_target("boat")


@pytest.mark.parametrize(
    ("found", "available"),
    [
        (set(), ()),
        ({"onnxruntime"}, ("onnxruntime",)),
        ({"openvino", "tflite_runtime"}, ("openvino", "tflite")),
        ({"ai_edge_litert"}, ("tflite",)),
    ],
)
def test_installed_engines_are_found_by_name_and_not_imported(monkeypatch, found, available):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda module: real(module) if module == "edge_targets" else object() if module in found else None,
    )
    assert available_targets() == available


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("generic-cpu", "onnxruntime"),
        ("intel-cpu", "openvino"),
        ("raspberry-pi-4", "tflite"),
        ("raspberry-pi-5", "tflite"),
        ("openvino", "openvino"),
    ],
)
def test_a_board_stands_for_its_engine(name, engine):
    assert engine_of(name) == engine


@pytest.mark.parametrize("name", ["toaster", "", "../profiles/generic-cpu"])
def test_an_unknown_board_lists_the_known_ones(name):
    with pytest.raises(UnknownTarget) as caught:
        engine_of(name)
    assert "raspberry-pi-5" in caught.value.remedy


def test_tensors_that_differ_are_named():
    import toys

    right = {t.name: (t.shape, t.dtype) for t in (*toys.SPEC.inputs, *toys.SPEC.outputs)}
    check_session_tensors(toys.SPEC, "engine", right)
    with pytest.raises(LoadFailed, match="'extra'"):
        check_session_tensors(toys.SPEC, "engine", {**right, "extra": ((1,), "float32")})
    for change in (None, ((1, 8, 8, 3), "float32"), ((1, 8, 8, 2), "float16")):
        with pytest.raises(LoadFailed, match="'cls8'"):
            check_session_tensors(toys.SPEC, "engine", {**right, "cls8": change})
