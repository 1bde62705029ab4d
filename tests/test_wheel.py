"""What an installation gets: the four floors, and nothing that only a checkout needs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SOURCE = (".git", ".venv*", "runs", "dist", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names of the files in the wheel that this tree makes."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: a build backend may leave files where it builds.
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_SOURCE, "weights", "tests"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps"]
    done = subprocess.run(
        [*pip, "-w", str(folder), str(folder / "source")], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in done.stderr or "No module named pip" in done.stderr:
        pytest.skip(f"the wheel cannot be built here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.slow
def test_a_device_gets_the_four_floors_and_no_training_code(names):
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"edge_sdk", "edge_quantize", "edge_targets", "edge_benchmarks"}


@pytest.mark.slow
def test_what_is_found_by_its_folder_is_in_the_wheel(names):
    for engine in ("onnxruntime", "openvino", "tflite", "tensorrt"):
        assert {f"edge_targets/{engine}/{part}.py" for part in ("__init__", "session", "compile")} <= set(
            names
        )
    for task in ("detection", "classification", "liveness"):
        assert f"edge_sdk/tasks/{task}.py" in names
        assert f"edge_quantize/metrics/{task}.py" in names
    assert "edge_targets/profiles/raspberry-pi-5.toml" in names
    assert "edge_quantize/recipes/int8.toml" in names
    assert "edge_sdk/zoo/bundles/index.json" in names
    assert "edge_sdk/zoo/keys/README.md" in names
