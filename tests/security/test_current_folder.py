"""What lies in the current folder never runs: anybody may have put it there."""

import subprocess

import pytest

from edge_sdk.child import command, environment

PLANTED = ("json", "numpy", "struct", "signal", "edge_sdk", "onnxruntime", "runpy", "tempfile")


@pytest.fixture
def run(tmp_path):
    """Run the command in a folder full of traps; returns what sprang."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w').close()\n")
    changes = environment()

    def edge_sdk(*arguments):
        done = subprocess.run(
            command(("-c", "import sys; from edge_sdk.cli import main; sys.exit(main())", *arguments)),
            capture_output=True,
            text=True,
            cwd=folder,
            env=changes,
            timeout=300,
        )
        assert done.returncode in (0, 1), done.stderr
        return sorted(path.name for path in tmp_path.iterdir() if path.is_file())

    return edge_sdk


def test_doctor_runs_nothing_of_it(run):
    assert run("doctor") == []


def test_bench_runs_nothing_of_it(run):
    pytest.importorskip("onnxruntime", reason="engine not installed")
    model = ("pad-minifasnet", "--threads", "1")
    assert run("bench", *model, "--scenario", "cold", "--processes", "1") == []
    assert run("bench", *model, "--duration", "0.5", "--repeat", "2", "--memory") == []


def test_conformance_runs_nothing_of_it(run):
    pytest.importorskip("onnxruntime", reason="engine not installed")
    pytest.importorskip("onnx", reason="host tool not installed")
    assert run("conformance", "onnxruntime", "--precision", "fp32") == []
