"""Calibrate, compile, gate, bundle: on the toy, whose squares are easy to find."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("pycocotools", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import toys

import edge_sdk as edge
from edge_quantize import build as build_module
from edge_quantize.build import build
from edge_quantize.calibration import calibration_pictures
from edge_quantize.data import digest, read_labelled
from edge_quantize.metrics import evaluator_of
from edge_quantize.recipe import read_recipe
from edge_sdk import zoo
from edge_sdk.errors import CalibrationFailed, CompileFailed, GateFailed, InputError
from edge_sdk.host import BuildRequest
from edge_sdk.image import write_image
from edge_sdk.tasks.detection import DetectionTask

PRECISIONS = ("fp32", "int8")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    toys.write_pictures(folder / "calibration", 20, 1, labelled=False)
    toys.write_pictures(folder / "evaluation", 40, 2)
    return folder


@pytest.fixture
def network(monkeypatch):
    """Make a spec the one that the zoo has for "toy"."""

    def become(spec):
        monkeypatch.setattr(zoo, "spec", lambda name: spec)

    become(toys.SPEC)
    return become


@pytest.fixture
def built(pictures, toy_onnx, tmp_path, network):
    """Build the toy with the defaults of these tests, changed by keyword."""

    def run(**changes):
        settings = {
            "onnx": toy_onnx,
            "model": "toy",
            "target": "onnxruntime",
            "recipe": toys.write_recipe(pictures, "int8"),
            "calibration": pictures / "calibration",
            "evaluation": pictures / "evaluation",
            "output": tmp_path / "toy.edge",
        }
        if changes.get("recipe") in PRECISIONS:
            changes["recipe"] = toys.write_recipe(pictures, changes["recipe"])
        settings = {**settings, **changes, "recipe": str(changes.get("recipe", settings["recipe"]))}
        paths = ("onnx", "evaluation", "output", "calibration", "tflite")
        for name in paths:
            settings[name] = Path(settings[name]) if settings.get(name) is not None else None
        return build(BuildRequest(**settings))

    return run


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_classifiers_bundle_is_gated_on_its_own_metrics_and_answers(
    built, network, tmp_path, recipe, engine
):
    pytest.importorskip(engine, reason="engine not installed")
    network(toys.CLASSIFIER)
    bundle = built(
        onnx=toys.write_classifier_onnx(tmp_path / "toy.onnx"),
        target=engine,
        recipe=toys.write_recipe(tmp_path, recipe),
        calibration=toys.write_crops(tmp_path / "calibration", 20, 1),
        evaluation=toys.write_crops(tmp_path / "evaluation", 40, 2),
    )
    assert set(bundle.manifest.gate.metrics) == {"accuracy", "macro_f1", "uar"}
    assert bundle.manifest.gate.metrics["uar"].compiled > 0.9
    with edge.load(tmp_path / "toy.edge") as model:
        assert model.info.task == "classification"
        assert model(toys.frame(), boxes=[[16, 24, 32, 40]]).labels == ("red",)


def test_a_gate_that_limits_nothing_of_this_task_is_refused(built, network, tmp_path):
    network(toys.CLASSIFIER)
    (tmp_path / "own.toml").write_text(
        'name = "own"\nprecision = "fp32"\ncalibration_items = 0\n[gate.max_drop]\nmap50 = 0.01\n'
    )
    with pytest.raises(InputError, match="map50"):
        built(
            onnx=toys.write_classifier_onnx(tmp_path / "toy.onnx"),
            recipe=tmp_path / "own.toml",
            calibration=None,
            evaluation=toys.write_crops(tmp_path / "evaluation", 8, 2),
        )
    assert not (tmp_path / "toy.edge").exists()


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_a_built_bundle_loads_and_finds_the_square(built, tmp_path, recipe):
    stages = []
    bundle = built(recipe=recipe, stage=lambda name, done, total: stages.append(name))
    assert list(dict.fromkeys(stages)) == ["read", "compile", "gate: float", "gate: compiled", "write"]
    assert bundle.manifest.gate.evaluation.items == 40
    assert (bundle.manifest.calibration is None) == (recipe == "fp32")
    with edge.load(tmp_path / "toy.edge") as model:
        assert model.info.precision == recipe
        assert model(toys.frame()).labels == ("red",)


def test_the_same_inputs_build_the_same_bytes(built, tmp_path):
    built(output=tmp_path / "a.edge")
    built(output=tmp_path / "b.edge")
    assert (tmp_path / "a.edge").read_bytes() == (tmp_path / "b.edge").read_bytes()


class Target(toys.FakeTarget):
    """A compiler that spoils the network, in onnxruntime's place but for the float reference."""


def swapped_labels(pixels):
    answer = toys.engine(pixels)
    return {n: v[..., ::-1] if n.startswith("cls") else v for n, v in answer.items()}


def shared_scale(pixels):
    """Scores rounded to steps that suit boxes: the field's best-known failure."""
    answer = toys.engine(pixels)
    return {n: np.round(v / 40) * 40 if n.startswith("cls") else v for n, v in answer.items()}


@pytest.mark.parametrize(
    ("spoil", "match"), [(swapped_labels, "map50"), (shared_scale, "cls.* same for every")]
)
def test_a_spoilt_network_fails_the_gate_and_nothing_is_written(built, tmp_path, monkeypatch, spoil, match):
    monkeypatch.setattr(build_module, "find_target", lambda name: Target(spoil))
    with pytest.raises(GateFailed, match=match) as caught:
        built()
    assert caught.value.report
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_gate_names_the_classes_that_lost_most(built, monkeypatch):
    def blind_to_green(pixels):
        answer = toys.engine(pixels)
        for name in answer:
            if name.startswith("cls"):
                answer[name][..., 1] = -12
        return answer

    monkeypatch.setattr(build_module, "find_target", lambda name: Target(blind_to_green))
    with pytest.raises(GateFailed, match=r"most lost on green") as caught:
        built()
    assert set(caught.value.report) == {"metrics", "class_drop", "outputs_db", "blocks"}
    assert "most harmful in int8: m_" in caught.value.message
    assert caught.value.report["outputs_db"]["cls8"] < 20 < caught.value.report["outputs_db"]["box8"]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"onnx": "missing.onnx"}, InputError, r"missing\.onnx"),
        ({"recipe": "int9"}, InputError, "int9"),
        ({"calibration": None}, InputError, "needs calibration"),
        ({"calibration": "missing"}, CalibrationFailed, "no pictures"),
        ({"evaluation": "missing"}, InputError, "not a folder"),
        ({"target": "tflite"}, CompileFailed, "tflite"),
        ({"tflite": "missing.tflite"}, InputError, r"missing\.tflite"),
        ({"output": "/nowhere/x.edge"}, InputError, "nowhere"),
    ],
)
def test_what_is_missing_is_named(built, tmp_path, changes, error, match, toy_onnx):
    if "target" in changes and toy_onnx.with_suffix(".tflite").exists():
        pytest.skip("another test made the TFLite neighbour")
    with pytest.raises(error, match=match):
        built(**changes)
    assert list(tmp_path.iterdir()) == []


def test_calibrating_on_what_the_gate_holds_out_is_refused(built, pictures, tmp_path):
    with pytest.raises(CalibrationFailed, match=r"16 of 16 .*evaluation"):
        built(calibration=pictures / "evaluation", recipe=toys.write_recipe(tmp_path, "int8"))
    assert not (tmp_path / "toy.edge").exists()


def test_the_command_builds_evaluates_and_reports(pictures, toy_onnx, tmp_path, capsys, monkeypatch):
    import json

    from edge_sdk.cli import main

    monkeypatch.setattr(zoo, "spec", lambda name: toys.SPEC)
    out, data = str(tmp_path / "toy.edge"), str(pictures / "evaluation")
    recipe = str(toys.write_recipe(tmp_path, "int8"))
    common = ["--onnx", str(toy_onnx), "--target", "onnxruntime", "--evaluation", data, "-o", out]
    common += ["--recipe", recipe]
    assert main(["build", "toy", *common, "--calibration", str(pictures / "calibration"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gate"]["evaluation"]["items"] == 40
    assert main(["evaluate", out, "--data", data, "--json", "--limit", "10"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["items"] == 10
    assert set(evaluator_of("detection").metrics) == set(report["metrics"])
    assert "sample" not in report
    assert np.array(report["confusion"]).shape == (2, 3)
    assert main(["evaluate", out, "--data", data, "--json", "--limit", "30"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["items"] == 30
    assert main(["build", "toy", *common, "--recipe", "nothing"]) == 2


def test_a_class_without_pictures_leaves_the_json_valid(pictures, built, tmp_path, capsys):
    import json

    from edge_sdk.cli import main

    built(recipe="fp32")
    reds = tmp_path / "reds" / "red"
    reds.mkdir(parents=True)
    for index in range(2):
        write_image(reds / f"{index}.png", toys.frame())
    assert main(["evaluate", str(tmp_path / "toy.edge"), "--data", str(reds.parent), "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_gate_on_few_pictures_says_which_pictures(built, pictures, tmp_path):
    bundle = built()
    items = read_labelled(pictures / "evaluation", toys.LABELS)
    assert bundle.manifest.gate.evaluation == digest([item.path for item in items])
    calibration = digest(calibration_pictures(pictures / "calibration", 16))
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.calibration.sha256 == calibration.sha256
    assert bundle.manifest.recipe == read_recipe(pictures / "toy-int8.toml")
    assert bundle.manifest.spec == toys.SPEC


def test_a_failed_gate_leaves_an_older_bundle_alone(built, tmp_path, monkeypatch):
    old = built(recipe="fp32")
    monkeypatch.setattr(build_module, "find_target", lambda name: Target(swapped_labels))
    with pytest.raises(GateFailed):
        built()
    assert edge.Bundle.open(tmp_path / "toy.edge") == old
    assert [p.name for p in tmp_path.iterdir()] == ["toy.edge"]


def write_shared_scale(path, onnx_file):
    """The toy, whose boxes, in large units, and scores pass through one tensor, as a concatenated head's do."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(onnx_file))
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(2000, np.float32), "up"),
            numpy_helper.from_array(np.array(1 / 2000, np.float32), "down"),
        ]
    )
    for stride in toys.STRIDES:
        box, cls = f"box{stride}", f"cls{stride}"
        for node in graph.node:
            if node.output[0] in (box, cls):
                node.output[0] = f"{node.output[0]}_alone"
        graph.initializer.append(
            numpy_helper.from_array(np.array([4 * toys.BINS, len(toys.LABELS)]), f"sizes{stride}")
        )
        graph.node.extend(
            [
                helper.make_node("Mul", [f"{box}_alone", "up"], [f"{box}_large"]),
                helper.make_node("Concat", [f"{box}_large", f"{cls}_alone"], [f"head{stride}"], axis=3),
                helper.make_node("Split", [f"head{stride}", f"sizes{stride}"], [f"{box}_again", cls], axis=3),
                helper.make_node("Mul", [f"{box}_again", "down"], [box]),
            ]
        )
    onnx.save(model, str(path))
    return path


def test_a_concatenated_head_in_int8_is_caught(built, toy_onnx, tmp_path):
    """The field's best-known failure: one scale for boxes and scores rounds every score to the same number."""
    shared = write_shared_scale(tmp_path / "shared.onnx", toy_onnx)
    with pytest.raises(GateFailed, match=r"output 'cls\d+' is the same for every picture"):
        built(onnx=shared)
    assert not (tmp_path / "toy.edge").exists()
    built(onnx=shared, recipe="fp32")


def test_swapped_colours_are_caught_by_the_golden_vectors(built, tmp_path, monkeypatch):
    from edge_sdk.errors import ChecksumMismatch

    built()
    edge.load(tmp_path / "toy.edge").close()
    plain = DetectionTask.preprocess
    monkeypatch.setattr(
        DetectionTask, "preprocess", lambda self, image, color="rgb": plain(self, image[..., ::-1], color)
    )
    with pytest.raises(ChecksumMismatch, match="golden vectors fail here"):
        edge.load(tmp_path / "toy.edge")


def waived(built, monkeypatch):
    monkeypatch.setattr(build_module, "find_target", lambda name: Target(swapped_labels))
    return built(waive="a prototype for the fair")


def test_a_waiver_is_stored_and_shown_at_every_load(built, tmp_path, monkeypatch, caplog, capsys):
    from edge_sdk.cli import main

    bundle = waived(built, monkeypatch)
    assert bundle.manifest.gate.waiver == "a prototype for the fair"
    assert main(["inspect", str(tmp_path / "toy.edge")]) == 0
    assert "WAIVED (a prototype for the fair)" in capsys.readouterr().out
    fake = toys.FakeTarget(swapped_labels)
    monkeypatch.setattr("edge_sdk.model.find_target", lambda name: fake)
    for _ in range(2):
        caplog.clear()
        with edge.load(tmp_path / "toy.edge") as model:
            assert model.info.gate.waiver == "a prototype for the fair"
        assert "a prototype for the fair" in caplog.text


def test_a_waiver_that_is_not_needed_is_not_stored(built):
    assert built(waive="just in case").manifest.gate.waiver is None


def test_no_shipped_bundle_is_waived():
    for name in zoo.NAMES:
        for shipped in zoo.bundles(name):
            assert edge.Bundle.open(shipped.path).manifest.gate.waiver is None


KILLED = """
import os, signal, sys
from pathlib import Path
import toys
from edge_quantize.build import build
from edge_sdk import zoo
from edge_sdk.host import BuildRequest
onnx, pictures, recipe, output, at = sys.argv[1:]
zoo.spec = lambda name: toys.SPEC
def stage(name, done, total):
    if f"{name} {done}" == at:
        os.kill(os.getpid(), signal.SIGKILL)
build(BuildRequest(Path(onnx), model="toy", target="onnxruntime", recipe=recipe, output=Path(output), stage=stage,
      calibration=Path(pictures, "calibration"), evaluation=Path(pictures, "evaluation")))
"""


@pytest.mark.parametrize("at", ["compile 1", "gate: compiled 20", "write 0"])
def test_a_build_that_is_killed_leaves_the_old_bundle_alone(pictures, toy_onnx, built, tmp_path, at):
    import os
    import signal
    import subprocess
    import sys

    old = built(recipe="fp32")
    recipe = toys.write_recipe(pictures, "int8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "EDGE_SDK_ENGINE_CACHE": "off"}
    arguments = [str(toy_onnx), str(pictures), str(recipe), str(tmp_path / "toy.edge"), at]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [p.name for p in tmp_path.iterdir()] == ["toy.edge"]
    assert edge.Bundle.open(tmp_path / "toy.edge") == old
