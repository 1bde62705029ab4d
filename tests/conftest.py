import importlib.util

import pytest
import toys

import edge_sdk.model
from edge_sdk import target


@pytest.fixture
def toy_bundle(tmp_path):
    """A bundle of the toy on disk."""
    path = tmp_path / "toy.edge"
    toys.bundle().write(path)
    return path


@pytest.fixture
def toy_engine(monkeypatch):
    """An engine in numpy in the place of onnxruntime."""
    fake = toys.FakeTarget()
    monkeypatch.setattr(target, "find_target", lambda name: fake)
    monkeypatch.setattr(edge_sdk.model, "find_target", lambda name: fake)
    return fake


@pytest.fixture(scope="session")
def toy_onnx(tmp_path_factory):
    """The toy as an ONNX file."""
    pytest.importorskip("onnx", reason="host tool not installed")
    return toys.write_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture(scope="session")
def toy_tflite(toy_onnx):
    """The toy as a float TFLite file, beside the ONNX file."""
    if importlib.util.find_spec("litert_torch") is None:
        pytest.skip("the float TFLite is made through litert-torch, which is not installed")
    return toys.write_tflite(toy_onnx.with_suffix(".tflite"))
