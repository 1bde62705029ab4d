"""What a device imports is what it runs: nothing of the compile host, in a fresh process."""

import pytest
import toys

from edge_sdk.child import run_python
from edge_sdk.target import SourceModel, find_target, is_installed, target_names

TELL = """
host = [m for m in sys.modules if m.split(".")[0] == "edge_quantize"]
host += [m for m in sys.modules if m.startswith("edge_targets.") and m.rpartition(".")[2] == "compile"]
print(" ".join(host))
"""


def imported(code, *arguments):
    """Modules of the host that a fresh process has after some code."""
    ended = run_python(("-c", f"import sys\n{code}\n{TELL}", *arguments), timeout_s=120)
    assert ended.problem is None, ended.said
    return ended.lines[-1].split()


@pytest.mark.parametrize("name", target_names())
def test_finding_an_engine_imports_nothing_of_the_host_and_no_session(name):
    code = f"""
from edge_sdk.target import find_target
find_target("{name}")
assert set(m for m in sys.modules if m.startswith("edge_targets.{name}.")) <= {{"edge_targets.{name}.options"}}
assert not [m for m in sys.modules if m.split(".")[0] in {find_target(name).modules!r}]
"""
    assert imported(code) == []


def test_listing_the_engines_imports_nothing_of_the_host():
    assert imported("from edge_sdk.target import available_targets; available_targets()") == []


@pytest.mark.parametrize("name", [n for n in target_names() if n != "tensorrt"])
def test_loading_and_running_a_bundle_imports_nothing_of_the_host(name, toy_onnx, toy_tflite, tmp_path):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    target = find_target(name)
    if not is_installed(target):
        pytest.skip(f"engine of {name} is not installed")
    artifact = toys.compile_by(target, SourceModel(toys.SPEC, toy_onnx, toy_tflite), toys.FP32)
    toys.bundle(target=name, artifact=artifact).write(tmp_path / "toy.edge")
    code = """
import numpy as np
import edge_sdk
with edge_sdk.load(sys.argv[1]) as model:
    model(np.zeros((64, 64, 3), np.uint8))
"""
    assert imported(code, str(tmp_path / "toy.edge")) == []


def test_a_plan_is_loaded_and_run_without_the_host(toy_onnx, fake_tensorrt, tmp_path):
    """The vendor's stand-in uses onnx itself; the adapter and its build must not use the host."""
    target = find_target("tensorrt")
    artifact = toys.compile_by(target, SourceModel(toys.SPEC, toy_onnx), toys.FP32)
    toys.bundle(target="tensorrt", artifact=artifact).write(tmp_path / "toy.edge")
    code = """
import numpy as np
import edge_sdk
with edge_sdk.load(sys.argv[1]) as model:
    model(np.zeros((64, 64, 3), np.uint8))
"""
    assert imported(code, str(tmp_path / "toy.edge")) == []
