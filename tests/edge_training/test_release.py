"""How bundles come into the zoo."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import toys  # noqa: E402

from edge_sdk import zoo  # noqa: E402
from edge_sdk.errors import GateFailed  # noqa: E402
from edge_training import release  # noqa: E402


@pytest.fixture
def timed(monkeypatch):
    """Every bundle takes as long as its name is; what was asked to be timed."""
    asked = []

    def latencies(paths, onnx):
        asked.extend(path.name for path in paths)
        return {path: float(len(path.name)) for path in paths}

    monkeypatch.setattr(release, "latencies", latencies)
    return asked


def test_a_bundle_takes_the_place_of_its_engines_and_leaves_the_others(toy_zoo, timed, tmp_path):
    new = toys.bundle(target="onnxruntime", recipe=toys.INT8)
    release.ship("toy", "onnxruntime", new, tmp_path / "toy.onnx")
    names = {"toy.onnxruntime-int8.edge", "toy.openvino-int8.edge"}
    assert {path.name for path in zoo.BUNDLES.iterdir()} == {*names, "index.json"}
    assert set(timed) == names
    shipped = {b.file: b for b in zoo.bundles("toy")}
    assert shipped.keys() == names
    assert shipped["toy.onnxruntime-int8.edge"].sha256 == new.sha256
    assert all(zoo.latency_here(b) == len(file) for file, b in shipped.items())


def test_what_cannot_be_timed_or_was_waived_replaces_nothing(toy_zoo, monkeypatch, tmp_path):
    def broken(paths, onnx):
        raise RuntimeError("no engine")

    monkeypatch.setattr(release, "latencies", broken)
    before = {path.name: path.read_bytes() for path in zoo.BUNDLES.iterdir()}
    new = toys.bundle(target="onnxruntime", recipe=toys.INT8)
    with pytest.raises(RuntimeError, match="no engine"):
        release.ship("toy", "onnxruntime", new, tmp_path / "toy.onnx")
    gate = dataclasses.replace(new.manifest.gate, waiver="for a demo")
    waived = dataclasses.replace(new, manifest=dataclasses.replace(new.manifest, gate=gate))
    with pytest.raises(GateFailed, match="for a demo"):
        release.ship("toy", "onnxruntime", waived, tmp_path / "toy.onnx")
    assert {path.name: path.read_bytes() for path in zoo.BUNDLES.iterdir()} == before


def test_engines_that_are_not_named_are_not_built(monkeypatch, tmp_path):
    built = []
    monkeypatch.setattr(release, "release", lambda model, data, work, engines: built.append((model, engines)))
    monkeypatch.setattr(zoo, "INDEX", tmp_path / "index.json")
    zoo.INDEX.write_text("{}")
    common = ["fer-gmenet", "--data", str(tmp_path), "--work", str(tmp_path)]
    assert release.main([*common, "--engine", "tflite"]) == 0
    assert release.main(common) == 0
    assert built == [("fer-gmenet", ["tflite"]), ("fer-gmenet", release.TARGETS)]


def test_a_model_that_the_zoo_does_not_have_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        release.main(["fer-yolo99", "--data", str(tmp_path), "--work", str(tmp_path)])
    assert "fer-yolo99" in capsys.readouterr().err
