"""The device installs numpy, OpenCV and one engine: importing the SDK must not ask for more."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge_sdk

ROOT = Path(__file__).parents[1]
PACKAGES = ("edge_sdk", "edge_quantize", "edge_targets", "edge_benchmarks")
HEAVY = {
    "torch",
    "onnxruntime",
    "openvino",
    "ai_edge_litert",
    "tflite_runtime",
    "tensorrt",
    "cv2",
    "onnx",
    "nncf",
    "ai_edge_quantizer",
    "litert_torch",
    "pycocotools",
    "rich",
    "cryptography",
}
IMPORT_ALL = """
import importlib, pkgutil, sys
for root in sys.argv[1].split(","):
    package = importlib.import_module(root)
    for module in pkgutil.walk_packages(package.__path__, root + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(" ".join(sorted({m.split(".")[0] for m in sys.modules})))
"""


def run(python, *arguments, **environment):
    path = os.pathsep.join(str(ROOT / p) for p in (".", "quantize", "targets", "benchmarks"))
    return subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def test_importing_every_module_imports_no_engine_no_torch_and_no_opencv():
    done = run(sys.executable, "-c", IMPORT_ALL, ",".join(PACKAGES))
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_the_runtime_walks_all_its_modules():
    names = {m.name for m in pkgutil.walk_packages(edge_sdk.__path__, "edge_sdk.")}
    assert {"edge_sdk.model", "edge_sdk.tasks.detection", "edge_sdk.sources.files", "edge_sdk.zoo"} <= names


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Python with numpy and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", "numpy"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"numpy cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.slow
def test_every_module_imports_where_only_numpy_is_installed(bare):
    done = run(bare, "-c", IMPORT_ALL, ",".join(PACKAGES))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command_helps_where_only_numpy_is_installed(bare):
    done = run(bare, "-m", "edge_sdk", "--help")
    assert done.returncode == 0
    assert "predict" in done.stdout


@pytest.mark.slow
def test_a_missing_package_is_named_with_the_command_that_installs_it(bare, toy_bundle, tmp_path):
    picture = tmp_path / "x.png"
    picture.write_bytes(b"")
    done = run(bare, "-m", "edge_sdk", "predict", str(toy_bundle), "--source", str(picture))
    assert done.returncode == 3
    assert "pip install 'face-edge-sdk[" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_bundle_can_be_inspected_where_only_numpy_is_installed(bare, toy_bundle):
    done = run(bare, "-m", "edge_sdk", "inspect", str(toy_bundle))
    assert done.returncode == 0, done.stderr
    assert "toy (detection)" in done.stdout
