import json
import platform
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

import edge_sdk as edge
from edge_sdk import selection, zoo
from edge_sdk.cli import main
from edge_sdk.errors import ChecksumMismatch, InputError, ManifestInvalid, MissingDependency


@pytest.fixture
def installed(monkeypatch):
    """Say which engines are here."""

    def say(*names):
        monkeypatch.setattr(selection, "available_targets", lambda: names)

    say("onnxruntime", "openvino")
    return say


@pytest.fixture
def on(monkeypatch):
    """Say which processor this is."""

    def say(machine):
        monkeypatch.setattr(platform, "machine", lambda: machine)

    say("x86_64")
    return say


def test_bundles_come_fastest_first_for_this_processor(toy_zoo, on):
    assert [b.relative_latency["x86_64"] for b in zoo.bundles("toy")] == [0.3, 0.5, 1.0]
    on("aarch64")  # nobody measured OpenVINO there: its figure of x86_64 stands in
    assert zoo.bundles("toy")[0].file == "toy.openvino-int8.edge"
    on("riscv64")
    assert [zoo.latency_here(b) for b in zoo.bundles("toy")] == [0.3, 0.5, 1.0]


def test_a_name_takes_the_fastest_bundle_whose_engine_is_here(toy_zoo, toy_engine, on, installed):
    with edge.load("toy") as model:
        assert (model.info.target, model.info.precision) == ("openvino", "int8")
        assert "fastest of 3" in model.info.chosen
    installed("onnxruntime")
    with edge.load("toy") as model:
        assert (model.info.target, model.info.precision) == ("onnxruntime", "int8")
        assert "engine not installed for openvino-int8" in model.info.chosen


def test_what_is_asked_for_is_taken_though_it_is_slower(toy_zoo, toy_engine, on, installed):
    with edge.load("toy", precision="fp32") as model:
        assert (model.info.target, model.info.precision) == ("onnxruntime", "fp32")
    with edge.load("toy", target="onnxruntime") as model:
        assert model.info.precision == "int8"


def test_what_is_not_shipped_is_named_with_what_is(toy_zoo, installed):
    with pytest.raises(InputError, match="openvino, precision fp32") as caught:
        edge.load("toy", target="openvino", precision="fp32")
    assert "onnxruntime int8" in caught.value.remedy
    assert "edge-sdk build toy" in caught.value.remedy


def test_no_engine_at_all_is_named_with_the_commands(toy_zoo, installed):
    installed()
    with pytest.raises(MissingDependency) as caught:
        edge.load("toy")
    assert "pip install 'face-edge-sdk[onnxruntime]'" in caught.value.remedy
    assert "pip install 'face-edge-sdk[openvino]'" in caught.value.remedy


def test_a_missing_engine_is_not_replaced_by_another(toy_zoo, installed):
    installed("onnxruntime")
    with pytest.raises(MissingDependency) as caught:
        edge.load("toy", target="openvino")
    assert "onnxruntime" not in caught.value.remedy


def test_a_bundle_that_is_not_the_indexed_one_is_refused(toy_zoo, toy_engine, installed):
    folder = toy_zoo(("onnxruntime", "fp32", {"x86_64": 1.0}))
    toys.bundle(producer="somebody else").write(folder / "toy.onnxruntime-fp32.edge")
    with pytest.raises(ChecksumMismatch, match="index"):
        edge.load("toy")
    assert toy_engine.loads == 0


def test_a_file_that_bears_a_models_name_does_not_take_its_place(
    toy_zoo, toy_engine, installed, tmp_path, monkeypatch, capsys
):
    """It would escape the index's hash: a path has the suffix or a separator, or is a Path."""
    monkeypatch.chdir(tmp_path)
    toys.bundle(producer="somebody else").write(tmp_path / "toy")
    with edge.load("toy") as model:
        assert "shipped" in model.info.chosen
    for verb in ("inspect", "verify"):
        here = ["--no-isolation"] if verb == "verify" else []  # a child knows nothing of this zoo
        assert main([verb, "toy", "--json", *here]) == 0
        assert "somebody else" not in capsys.readouterr().out
    for path in (Path("toy"), "./toy", str(tmp_path / "toy")):
        with edge.load(path) as model:
            assert "the file" in model.info.chosen


@pytest.mark.parametrize("verb", ["inspect", "verify", "zoo", "bench"])
def test_no_verb_takes_a_bundle_that_is_not_the_indexed_one(
    toy_zoo, toy_engine, installed, capsys, monkeypatch, verb
):
    monkeypatch.setattr("edge_sdk.cli.available_targets", lambda: ("onnxruntime",))
    folder = toy_zoo(("onnxruntime", "fp32", {"x86_64": 1.0}))
    toys.bundle(producer="somebody else").write(folder / "toy.onnxruntime-fp32.edge")
    assert main([verb] if verb == "zoo" else [verb, "toy"]) == 4
    assert "index" in capsys.readouterr().err
    assert toy_engine.loads == 0


def test_a_zoo_without_bundles_says_how_to_make_one(toy_zoo):
    zoo.INDEX.unlink()
    assert zoo.bundles("toy") == ()
    with pytest.raises(InputError) as caught:
        edge.load("toy")
    assert "edge-sdk build toy" in caught.value.remedy


def test_an_index_with_an_unknown_key_is_refused(toy_zoo):
    zoo.INDEX.write_text(json.dumps({"bundles": [], "extra": 1}))
    with pytest.raises(ManifestInvalid, match="extra"):
        zoo.bundles("toy")


def test_the_command_lists_what_is_shipped(toy_zoo, on, capsys, monkeypatch):
    monkeypatch.setattr("edge_sdk.cli.available_targets", lambda: ("onnxruntime",))
    assert main(["zoo"]) == 0
    assert capsys.readouterr().out.count("toy ") == 3
    assert main(["zoo", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["target"], r["precision"], r["engine_installed"]) for r in rows] == [
        ("openvino", "int8", False),
        ("onnxruntime", "int8", True),
        ("onnxruntime", "fp32", True),
    ]
    assert all(r["gate"] == {"map50": 0.9} for r in rows)


def test_the_verbs_take_a_name_of_the_zoo(toy_zoo, toy_engine, on, capsys, monkeypatch):
    monkeypatch.setattr("edge_sdk.selection.available_targets", lambda: ("onnxruntime",))
    assert main(["inspect", "toy"]) == 0
    assert "onnxruntime int8" in capsys.readouterr().out
    assert main(["verify", "toy", "--no-isolation"]) == 0
    assert "toy.onnxruntime-int8.edge" in capsys.readouterr().out


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_name_has_a_spec_of_that_name(name):
    assert zoo.spec(name).name == name
    assert isinstance(zoo.spec(name).labels, tuple)


def test_a_name_never_becomes_an_import_of_something_else():
    for name in ("os", "../x", "fer_yolo11n", "", "fer-yolo11n.x"):
        with pytest.raises(InputError, match="in the zoo"):
            zoo.spec(name)


SHIPPED = ("fer-yolo11n", "fer-yolo12n", "fer-gmenet", "pad-minifasnet")


def test_what_is_shipped_is_named_here():
    assert (
        {b["model"] for b in json.loads(zoo.INDEX.read_text())["bundles"]} == set(SHIPPED) <= set(zoo.NAMES)
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_bundles_are_the_indexed_ones_and_passed_their_gate(name):
    shipped = zoo.bundles(name)
    assert {b.target for b in shipped} == {"onnxruntime", "openvino", "tflite"}
    for entry in shipped:
        bundle = edge.Bundle.open(entry.path)
        manifest = bundle.manifest
        assert bundle.sha256 == entry.sha256
        assert (manifest.target, manifest.recipe.precision) == (entry.target, entry.precision)
        assert manifest.spec == zoo.spec(name)
        assert manifest.golden.cases >= 1
        assert entry.relative_latency
        for metric_name, metric in manifest.gate.metrics.items():
            error = metric_name in ("apcer_worst", "bpcer")  # of which less is better
            gained = metric.reference - metric.compiled if error else metric.compiled - metric.reference
            assert gained >= -metric.max_drop
            assert metric.compiled < 0.5 if error else metric.compiled > 0.5
