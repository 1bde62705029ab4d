"""Engines that kill, hang or miss something, as findings; and recorded boards."""

import json
import sys

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

from edge_sdk.cli import main
from edge_sdk.profile import read_profile
from edge_targets import doctor
from edge_targets.probe import Probe, probe


@pytest.fixture
def onnxruntime_is(tmp_path, monkeypatch):
    """Put other code in the place of the engine's module: child processes import it too."""
    pytest.importorskip("onnxruntime", reason="engine of onnxruntime is not installed")

    def write(code):
        (tmp_path / "onnxruntime.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)

    return write


@pytest.mark.parametrize(
    ("code", "problem", "remedy"),
    [
        ("import os; os.kill(os.getpid(), 4)", "died of SIGILL", "pip install 'onnxruntime<"),
        ("import os; os.kill(os.getpid(), 11)", "died of SIGSEGV", "--force-reinstall --no-deps onnxruntime=="),
        (
            "raise ImportError('libgomp.so.1: cannot open shared object file')",
            "libgomp.so.1",
            "pip install 'face-edge-sdk[onnxruntime]'",
        ),
        ("raise ImportError('numpy.core.multiarray failed to import')", "multiarray", "pip install 'numpy<2'"),
        ("raise SystemError('built against numpy 1')", "numpy 1", "pip install"),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_start_is_a_finding_with_its_pip_line(onnxruntime_is, code, problem, remedy):
    onnxruntime_is(code)
    found = probe("onnxruntime")
    assert found.works is False
    assert problem in found.problem
    assert remedy in found.remedy


def test_an_engine_that_hangs_is_a_finding(onnxruntime_is):
    onnxruntime_is("import time; time.sleep(60)")
    found = probe("onnxruntime", timeout_s=3.0)
    assert found.works is False
    assert "no answer within 3 s" in found.problem
    assert found.remedy


def test_an_engine_that_works_has_run_a_bundle():
    pytest.importorskip("onnxruntime", reason="engine of onnxruntime is not installed")
    found = probe("onnxruntime")
    assert (found.works, found.device, found.problem) == (True, "CPU", "")
    assert found.bundle.endswith(".edge")
    assert found.version.startswith("onnxruntime ")


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch):
    from edge_targets import probe as module

    monkeypatch.setattr(module, "installed_version", lambda engine: None)
    found = probe("tflite")
    assert (found.works, found.version, found.problem) == (False, None, "not installed")
    assert found.remedy == "pip install 'face-edge-sdk[tflite]'"


# Recorded machines


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def pi(tmp_path):
    return write(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/device-tree/compatible": "raspberrypi,5-model-b\0",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "84000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
            "usr/lib/python3/dist-packages/libcamera/__init__.py": "",
        },
    )


@pytest.fixture
def engines(monkeypatch):
    """What came of trying each engine; by default all work."""
    outcomes = {}

    def fake(name, *, timeout_s):
        return outcomes.get(name, Probe(name, True, f"{name} 1.0", "CPU", "a.edge"))

    monkeypatch.setattr(doctor, "probe", fake)
    return outcomes


@pytest.fixture
def on_arm(monkeypatch):
    monkeypatch.setattr(doctor.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "prefix", "/home/pi/venv")


def test_a_hot_board_in_an_ordinary_environment_gets_its_findings(pi, engines, on_arm):
    found = doctor.examine(root=pi)
    assert (found.profile, found.runs) == ("raspberry-pi-5", True)
    told = {f.what: f.remedy for f in found.findings}
    assert "the governor is powersave" in told
    assert "84 °C" in told
    assert (
        "power supply"
        in told["the processor is or was slowed: under-voltage since boot; throttled since boot"]
    )
    (camera,) = [remedy for what, remedy in told.items() if "libcamera" in what]
    assert "--system-site-packages" in camera
    assert found.facts["throttling"] == "under-voltage since boot; throttled since boot"


def test_without_the_camera_library_apt_is_named(pi, engines, on_arm):
    (pi / "usr/lib/python3/dist-packages/libcamera/__init__.py").unlink()
    (pi / "usr/lib/python3/dist-packages/libcamera").rmdir()
    assert any("apt install python3-picamera2" in f.remedy for f in doctor.examine(root=pi).findings)


def test_a_profile_whose_engine_is_missing_cannot_run_and_names_the_boards_install_line(pi, engines, on_arm):
    engines["tflite"] = Probe("tflite", False, problem="not installed", remedy="pip install x")
    found = doctor.examine(read_profile("raspberry-pi-5"), root=pi)
    assert found.runs is False
    assert found.findings[0].level == "error"
    assert found.findings[0].remedy == read_profile("raspberry-pi-5").install
    # Another board's engine that is not installed is nobody's problem.
    engines["tensorrt"] = Probe("tensorrt", False, problem="not installed", remedy="pip install y")
    assert not any("tensorrt" in f.what for f in found.findings)


def test_where_no_profile_was_asked_for_any_engine_that_answers_will_do(pi, engines, on_arm):
    engines["tflite"] = Probe("tflite", False, problem="not installed", remedy="pip install x")
    found = doctor.examine(root=pi)
    assert [f.level for f in found.findings if "tflite" in f.what] == ["warning"]
    for name in ("onnxruntime", "openvino", "tensorrt"):
        engines[name] = Probe(name, False, problem="not installed", remedy="pip install x")
    assert doctor.examine(root=pi).findings[0].level == "error"


def test_a_broken_engine_that_the_board_does_not_need_is_a_warning(pi, engines, on_arm):
    engines["openvino"] = Probe(
        "openvino", False, "openvino 1.0", problem="its process died of SIGILL", remedy="r"
    )
    found = doctor.examine(root=pi)
    assert found.runs is True
    assert [f.level for f in found.findings if "SIGILL" in f.what] == ["warning"]


def test_a_profile_of_another_architecture_cannot_run(tmp_path, engines, monkeypatch):
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    found = doctor.examine(read_profile("raspberry-pi-5"), root=tmp_path)
    assert found.runs is False
    assert "aarch64" in found.findings[0].what


def test_the_options_of_each_engine_are_shown_with_type_and_default(engines, capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "option hint: 'latency' or 'throughput', 'latency' unless asked for" in shown
    assert "option streams: int or None, None unless asked for" in shown
    assert "option spinning: bool, False unless asked for" in shown
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["options"]
    assert told["tflite"] == []
    assert {"name": "cuda_graph", "type": "bool", "default": "False"} in told["tensorrt"]


@pytest.mark.parametrize(
    ("files", "profile"),
    [
        ({"proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}, "jetson-agx-orin"),
        ({"proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference\0"}, "jetson-orin-nx"),
        ({"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0"}, "raspberry-pi-4"),
        ({"proc/cpuinfo": "vendor_id : GenuineIntel\nmodel name : i5\n"}, "intel-cpu"),
        ({"proc/cpuinfo": "vendor_id : AuthenticAMD\nmodel name : Ryzen\n"}, "generic-cpu"),
    ],
)
def test_a_machine_finds_its_profile(tmp_path, engines, files, profile):
    assert doctor.examine(root=write(tmp_path, files)).profile == profile


def test_the_command_ends_with_3_where_the_profile_asked_for_cannot_run(engines, capsys):
    engines["onnxruntime"] = Probe(
        "onnxruntime", False, "onnxruntime 1.0", problem="its process died of SIGILL", remedy="do"
    )
    assert main(["doctor", "--profile", "generic-cpu"]) == 3
    shown = capsys.readouterr().out
    assert "error: onnxruntime: its process died of SIGILL\n  do" in shown
    assert main(["doctor"]) == 0
    capsys.readouterr()
    assert main(["doctor", "--profile", "generic-cpu", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] is False
    assert told["facts"]["python"]
    assert main(["doctor", "--profile", "toaster"]) == 2
