"""Libraries are told not to report before any of them is imported."""

import importlib.util
import os
import sys

import pytest

from edge_sdk import reporting
from edge_sdk.child import run_python

UNSET = dict.fromkeys(reporting.SWITCHES, "")


def test_importing_the_sdk_sets_every_switch():
    code = "import edge_sdk, os, sys; print([os.environ[name] for name in sys.argv[1:]])"
    ended = run_python(("-c", code, *reporting.SWITCHES), timeout_s=60, changes=UNSET)
    assert ended.lines == (str(list(reporting.SWITCHES.values())),)


def test_importing_any_module_of_any_floor_does_too():
    for module in ("edge_quantize.graph.activations", "edge_targets.onnxruntime", "edge_benchmarks.macs"):
        code = f"import {module}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
        assert run_python(("-c", code), timeout_s=60, changes=UNSET).lines == ("1",)


def test_who_set_a_switch_has_decided(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    reporting.switch_off()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_an_engine_that_was_imported_before_is_warned_of(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", object())
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    with pytest.warns(RuntimeWarning, match="import edge_sdk first"):
        reporting.switch_off()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_module_that_reports_is_hidden_while_others_are_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with reporting.unreported(), pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")
    assert "openvino_telemetry" not in sys.modules


def test_matplotlib_leaves_nothing_in_the_users_folders(tmp_path):
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    code = "from edge_sdk.reporting import import_matplotlib as get; import os; get().font_manager; print(*os.environ)"
    changes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    ended = run_python(("-c", code), timeout_s=120, changes=changes)
    assert ended.problem is None, ended.said
    assert "MPLCONFIGDIR" not in ended.lines[-1]
    assert list(tmp_path.iterdir()) == []
