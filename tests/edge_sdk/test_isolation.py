"""A bundle that its engine dies of is an error, in a process of its own."""

import json
import os
import time

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

import edge_sdk as edge
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.errors import ChecksumMismatch, InputError, LoadFailed, MissingDependency
from edge_sdk.isolation import prove_in_child
from edge_sdk.target import Artifact, LoadOptions

# An engine of another package, whose artifact says what it does when it is loaded.
ENGINE = """
import os, sys, time
from dataclasses import dataclass
import toys
from edge_sdk.errors import MissingDependency
from edge_sdk.testing import FakeSession


class Wild(toys.FakeTarget):
    name = "wild"

    def load(self, artifact, spec, *, options):
        if os.environ["WILD_PARENT"] == str(os.getpid()) and os.environ.get("WILD_ALLOWED") is None:
            raise AssertionError("it was loaded in the process that asked")
        exec(artifact.files["model.onnx"])
        return super().load(artifact, spec, options=options)


TARGET = Wild()
"""


@pytest.fixture
def wild(tmp_path, monkeypatch):
    """Makes a bundle whose load runs some code."""
    info = tmp_path / "wild-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wild\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edge_sdk.targets]\nwild = wild_engine:TARGET\n")
    (tmp_path / "wild_engine.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WILD_PARENT", str(os.getpid()))

    def bundle(code):
        names = (tuple(t.name for t in tensors) for tensors in (toys.SPEC.inputs, toys.SPEC.outputs))
        path = tmp_path / "wild.edge"
        toys.bundle(target="wild", artifact=Artifact({"model.onnx": code.encode()}, *names)).write(path)
        return path

    return bundle


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGILL"])
def test_an_engine_that_dies_is_an_error_that_names_the_signal(wild, signal):
    path = wild(f"import signal; os.kill(os.getpid(), signal.{signal})")
    with pytest.raises(LoadFailed, match=f"wild died of {signal} in a process of its own") as caught:
        edge.load(path, isolated=True)
    assert "do not use this bundle" in caught.value.remedy


def test_an_engine_that_hangs_is_an_error_in_time(wild):
    began = time.monotonic()
    with pytest.raises(LoadFailed, match="wild gave no answer within 3 s"):
        edge.load(wild("time.sleep(600)"), isolated=3)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "code", ["os._exit(0)", "os._exit(7)", "raise SystemError('odd')", "print(1); os._exit(0)"]
)
def test_an_engine_that_ends_the_process_is_an_error(wild, code):
    with pytest.raises(LoadFailed):
        edge.load(wild(code), isolated=True)


def test_what_the_child_refuses_is_refused_here_in_its_own_words(wild):
    path = wild("raise MissingDependency('no wild engine', remedy='pip install wild')")
    with pytest.raises(MissingDependency, match="no wild engine") as caught:
        edge.load(path, isolated=True)
    assert caught.value.remedy == "pip install wild"
    with pytest.raises(ChecksumMismatch, match="golden vectors fail"):
        edge.load(wild("self.answer = lambda p: toys.engine(255 - p)"), isolated=True)


def test_what_passes_is_loaded_with_what_was_asked_for(wild, monkeypatch):
    monkeypatch.setenv("WILD_ALLOWED", "1")
    path = wild(
        "sys.stdout.write('no end of line'); assert options.threads == 3 and options.engine == {'a': 1}"
    )
    options = LoadOptions(threads=3, engine={"a": 1})
    with edge.load(path, options=options, isolated=True) as model:
        assert model(toys.frame()).labels == ("red",)
    with pytest.raises(InputError, match="cannot be handed"):
        edge.load(path, options=LoadOptions(engine={"a": object()}), isolated=True)


def test_a_bundle_that_changes_meanwhile_is_refused(wild):
    path = wild("pass")
    before = Bundle.open(path)
    wild("1")
    with pytest.raises(ChecksumMismatch, match="changed while it was examined"):
        prove_in_child(path, before, "wild", LoadOptions())


def test_verify_isolates_unless_told_otherwise(wild, capsys, monkeypatch):
    crash = wild("import signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert main(["verify", str(crash)]) == 3
    what, _ = capsys.readouterr().err.splitlines()
    assert "died of SIGSEGV" in what
    assert main(["verify", str(wild("time.sleep(600)")), "--timeout", "3"]) == 3
    assert "gave no answer within 3 s" in capsys.readouterr().err
    fine = str(wild("pass"))
    assert main(["verify", fine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["golden"] == "pass"
    assert main(["verify", str(wild("self.answer = lambda p: toys.engine(255 - p)"))]) == 1
    for wrong in ("0", "-1", "nan", "inf"):
        assert main(["verify", fine, "--timeout", wrong]) == 2
    monkeypatch.setenv("WILD_ALLOWED", "1")
    assert main(["verify", str(wild("pass")), "--no-isolation"]) == 0


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "tflite"])
def test_real_engines_load_isolated(engine):
    pytest.importorskip("ai_edge_litert" if engine == "tflite" else engine, reason="engine not installed")
    edge.load("fer-yolo11n", target=engine, isolated=True).close()
