import json
import sys
import types
from pathlib import Path

import pytest
import toys
from hypothesis import settings

import edge_sdk.model
from edge_sdk import target, trust, zoo
from edge_sdk.engine_cache import FOLDER_VARIABLE

# Tests report to nobody: with this module OpenVINO and NNCF fork processes that do, whoever imports them first.
sys.modules.setdefault("openvino_telemetry", None)

# No test fails for its time: machines are noisy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def no_engine_cache(monkeypatch):
    """Tests neither read nor leave engines in the user's cache folder; those of the cache make their own."""
    monkeypatch.setenv(FOLDER_VARIABLE, "off")


@pytest.fixture(autouse=True)
def no_policy(monkeypatch, tmp_path_factory):
    """What this machine trusts is no part of a test."""
    monkeypatch.delenv(trust.POLICY_VARIABLE, raising=False)
    monkeypatch.setattr(trust, "DEVICE_POLICY", tmp_path_factory.getbasetemp() / "no-such-policy.toml")


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


@pytest.fixture
def toy_zoo(tmp_path, monkeypatch):
    """A zoo that ships the toy three times; the returned function changes who is how fast."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    monkeypatch.setattr(zoo, "NAMES", ("toy",))
    monkeypatch.setattr(zoo, "BUNDLES", folder)
    monkeypatch.setattr(zoo, "INDEX", folder / "index.json")
    monkeypatch.setitem(sys.modules, "edge_sdk.zoo.toy", types.SimpleNamespace(SPEC=toys.SPEC))

    def ship(*rows):
        bundles = []
        for engine, precision, latency in rows:
            recipe = toys.FP32 if precision == "fp32" else toys.INT8
            bundle = toys.bundle(target=engine, recipe=recipe)
            file = f"toy.{engine}-{precision}.edge"
            bundle.write(folder / file)
            entry = {"file": file, "model": "toy", "target": engine, "precision": precision}
            bundles.append({**entry, "sha256": bundle.sha256, "relative_latency": latency})
        zoo.INDEX.write_text(json.dumps({"bundles": bundles}))
        return folder

    ship(
        ("onnxruntime", "fp32", {"x86_64": 1.0, "aarch64": 1.0}),
        ("onnxruntime", "int8", {"x86_64": 0.5, "aarch64": 0.7}),
        ("openvino", "int8", {"x86_64": 0.3}),
    )
    return ship


@pytest.fixture(scope="session")
def toy_onnx(tmp_path_factory):
    """The toy as an ONNX file."""
    pytest.importorskip("onnx", reason="host tool not installed")
    return toys.write_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture(scope="session")
def toy_tflite(toy_onnx):
    """The toy as a float TFLite file, beside the ONNX file."""
    pytest.importorskip("ai_edge_litert", reason="the package whose schema writes TFLite is not installed")
    return toys.write_tflite(toy_onnx.with_suffix(".tflite"))


@pytest.fixture(scope="session")
def shared_data():
    """The data folder beside the checkout, which is not part of the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}")
    return folder
