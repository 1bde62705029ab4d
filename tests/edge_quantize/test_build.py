"""Calibrate, compile, gate, bundle: on the toy, whose squares are easy to find."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("pycocotools", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import toys

import edge_sdk as edge
from edge_quantize import build as build_module
from edge_quantize.build import Workbench, build
from edge_quantize.calibration import calibration_pictures
from edge_quantize.data import digest, read_labelled
from edge_quantize.gate import check_alive
from edge_quantize.recipe import names, read_recipe
from edge_quantize.report import METRICS
from edge_sdk.errors import CalibrationFailed, CompileFailed, GateFailed, InputError
from edge_sdk.image import write_image
from edge_sdk.tasks import DetectionTask
from edge_sdk.testing import FakeSession

PRECISIONS = ("fp32", "int8")


@pytest.fixture(scope="module")
def reference(pictures, toy_onnx):
    """The float toy's figures, measured once."""
    return Workbench(toy_onnx, spec=toys.SPEC, calibration=None, evaluation=pictures / "evaluation").reference


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    toys.write_pictures(folder / "calibration", 20, 1, labelled=False)
    toys.write_pictures(folder / "evaluation", 40, 2)
    return folder


@pytest.fixture
def built(pictures, toy_onnx, tmp_path):
    """Build with the defaults of these tests, changed by keyword."""

    def run(**changes):
        settings = {
            "spec": toys.SPEC,
            "engine": "onnxruntime",
            "recipe": toys.write_recipe(pictures, "int8"),
            "calibration": pictures / "calibration",
            "evaluation": pictures / "evaluation",
            "output": tmp_path / "toy.edge",
        }
        if changes.get("recipe") in PRECISIONS:
            changes["recipe"] = toys.write_recipe(pictures, changes["recipe"])
        return build(changes.pop("onnx", toy_onnx), **{**settings, **changes})

    return run


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_classifiers_bundle_is_gated_on_its_own_metrics_and_answers(tmp_path, recipe, engine):
    pytest.importorskip(engine, reason="engine not installed")
    bundle = build(
        toys.write_classifier_onnx(tmp_path / "toy.onnx"),
        spec=toys.CLASSIFIER,
        engine=engine,
        recipe=toys.write_recipe(tmp_path, recipe),
        calibration=toys.write_crops(tmp_path / "calibration", 20, 1),
        evaluation=toys.write_crops(tmp_path / "evaluation", 40, 2),
        output=tmp_path / "toy.edge",
    )
    assert set(bundle.manifest.gate.metrics) == {"accuracy", "macro_f1", "uar"}
    assert bundle.manifest.gate.metrics["uar"].compiled > 0.9
    with edge.load(tmp_path / "toy.edge") as model:
        assert model.info.task == "classification"
        assert model(toys.frame(), boxes=[[16, 24, 32, 40]]).labels == ("red",)


def test_a_gate_that_limits_nothing_of_this_task_is_refused(tmp_path):
    (tmp_path / "own.toml").write_text(
        'name = "own"\nprecision = "fp32"\ncalibration_items = 0\n[gate.max_drop]\nmap50 = 0.01\n'
    )
    with pytest.raises(InputError, match="map50"):
        build(
            toys.write_classifier_onnx(tmp_path / "toy.onnx"),
            spec=toys.CLASSIFIER,
            engine="onnxruntime",
            recipe=tmp_path / "own.toml",
            calibration=None,
            evaluation=toys.write_crops(tmp_path / "evaluation", 8, 2),
            output=tmp_path / "toy.edge",
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
    """A compiler that spoils the network, in onnxruntime's place after the float reference was measured."""

    def compile(self, model, *, recipe, calibration):
        from edge_sdk.target import Artifact

        return Artifact({"model.onnx": b"spoilt"}, tuple(t.name for t in toys.SPEC.outputs))


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
def test_a_spoilt_network_fails_the_gate_and_nothing_is_written(
    built, reference, tmp_path, monkeypatch, spoil, match
):
    monkeypatch.setattr(build_module, "find_target", lambda name: Target(spoil))
    with pytest.raises(GateFailed, match=match) as caught:
        built(reference=reference)
    assert caught.value.report
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_gate_names_the_classes_that_lost_most(built, reference, monkeypatch):
    def blind_to_green(pixels):
        answer = toys.engine(pixels)
        for name in answer:
            if name.startswith("cls"):
                answer[name][..., 1] = -12
        return answer

    monkeypatch.setattr(build_module, "find_target", lambda name: Target(blind_to_green))
    with pytest.raises(GateFailed, match=r"most lost on green") as caught:
        built(reference=reference)
    assert set(caught.value.report) == {"metrics", "class_drop", "outputs_db", "blocks"}
    assert "most harmful in int8: m_" in caught.value.message
    assert caught.value.report["outputs_db"]["cls8"] < 20 < caught.value.report["outputs_db"]["box8"]


def test_outputs_that_are_not_numbers_are_named():
    broken = FakeSession(
        toys.SPEC, answer=lambda p: {**toys.engine(p), "box16": np.full((1, 4, 4, 16), np.nan)}
    )
    frames = [toys.picture(np.random.default_rng(s))[0][None] for s in range(2)]
    with pytest.raises(GateFailed, match="'box16' is not finite"):
        check_alive(broken, frames)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"onnx": "missing.onnx"}, InputError, r"missing\.onnx"),
        ({"recipe": "int9"}, InputError, "int9"),
        ({"calibration": None}, InputError, "needs calibration"),
        ({"calibration": "missing"}, CalibrationFailed, "no pictures"),
        ({"evaluation": "missing"}, InputError, "not a folder"),
        ({"engine": "tflite"}, CompileFailed, "tflite"),
        ({"tflite": "missing.tflite"}, InputError, r"missing\.tflite"),
        ({"output": "/nowhere/x.edge"}, InputError, "nowhere"),
    ],
)
def test_what_is_missing_is_named(built, tmp_path, changes, error, match, toy_onnx):
    if "engine" in changes and toy_onnx.with_suffix(".tflite").exists():
        pytest.skip("another test made the TFLite neighbour")
    with pytest.raises(error, match=match):
        built(**changes)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_not_the_specs_is_named_by_tensor(built):
    import dataclasses

    from edge_sdk.tensors import TensorSpec

    named = TensorSpec("picture", *[getattr(toys.SPEC.input, f) for f in ("shape", "dtype", "layout")])
    with pytest.raises(InputError, match="'picture'"):
        built(spec=dataclasses.replace(toys.SPEC, input=named))


def test_a_file_that_is_no_graph_is_named(built, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no graph at all")
    with pytest.raises(InputError, match=r"x\.onnx"):
        built(onnx=tmp_path / "x.onnx")


def test_calibrating_on_what_the_gate_holds_out_is_refused(built, pictures, tmp_path):
    with pytest.raises(CalibrationFailed, match=r"16 of 16 .*evaluation"):
        built(calibration=pictures / "evaluation", recipe=toys.write_recipe(tmp_path, "int8"))
    assert not (tmp_path / "toy.edge").exists()


def test_class_folders_are_full_frame_boxes(tmp_path):
    for label in ("green", "red"):
        (tmp_path / label).mkdir()
        write_image(tmp_path / label / "x.png", toys.frame())
    items = read_labelled(tmp_path, toys.LABELS)
    assert [(i.path.parent.name, i.classes.tolist(), i.boxes.tolist()) for i in items] == [
        ("green", [1], [[0, 0, 1, 1]]),
        ("red", [0], [[0, 0, 1, 1]]),
    ]
    assert digest([i.path for i in items]) == digest([i.path for i in items])


def test_a_folder_that_names_no_class_is_named(tmp_path):
    (tmp_path / "blue").mkdir()
    with pytest.raises(InputError, match="blue"):
        read_labelled(tmp_path, toys.LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.2",
        "2 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 0.2 0.2",
        "0.5 0.5 0.5 0.2 0.2",
        "a b c d e",
        "0 nan 0 0 0",
    ],
)
def test_a_wrong_label_line_is_named_by_its_file(tmp_path, text):
    toys.write_pictures(tmp_path, 2, 0)
    (tmp_path / "labels" / "001.txt").write_text(text)
    with pytest.raises(InputError, match=r"001\.txt"):
        read_labelled(tmp_path, toys.LABELS)


def test_a_picture_without_a_label_file_is_named(tmp_path):
    toys.write_pictures(tmp_path, 2, 0)
    (tmp_path / "labels" / "000.txt").unlink()
    with pytest.raises(InputError, match=r"000\.txt"):
        read_labelled(tmp_path, toys.LABELS)


def test_pictures_without_any_face_measure_nothing(tmp_path):
    toys.write_pictures(tmp_path, 2, 0)
    for file in (tmp_path / "labels").iterdir():
        file.write_text("")
    with pytest.raises(InputError, match="no labelled face"):
        read_labelled(tmp_path, toys.LABELS)


@pytest.mark.parametrize("name", names())
def test_shipped_recipes_are_named_as_their_files(name):
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.gate.max_drop


@pytest.mark.parametrize(
    "text", ["name = ", 'name = "x"', 'name = "x"\nprecision = "int3"\ncalibration_items = 1']
)
def test_a_broken_recipe_is_named(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.toml"):
        read_recipe(path)


def test_the_command_builds_evaluates_and_reports(pictures, toy_onnx, tmp_path, capsys, monkeypatch):
    import json

    from edge_sdk import zoo
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
    assert set(METRICS["detection"]) == set(report["metrics"])
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


def test_the_golden_frame_shows_swapped_channels_a_mirror_and_a_shift():
    frame = build_module.golden_frame()
    assert frame.dtype == np.uint8
    assert frame.shape == (180, 240, 3)
    assert (frame == build_module.golden_frame()).all()
    for other in (frame[..., ::-1], frame[:, ::-1], frame[::-1], np.roll(frame, 8, 1)):
        assert (frame != other).any(axis=2).mean() > 0.5


def test_a_graph_with_another_shape_is_named_by_tensor(built, tmp_path, toy_onnx):
    import onnx

    model = onnx.load(str(toy_onnx))
    (cls8,) = [v for v in model.graph.output if v.name == "cls8"]
    cls8.type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(model, str(tmp_path / "dynamic.onnx"))
    with pytest.raises(InputError, match="'cls8'"):
        built(onnx=tmp_path / "dynamic.onnx")


def test_a_failed_gate_leaves_an_older_bundle_alone(built, reference, tmp_path, monkeypatch):
    old = built(recipe="fp32")
    monkeypatch.setattr(build_module, "find_target", lambda name: Target(swapped_labels))
    with pytest.raises(GateFailed):
        built(reference=reference)
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


def waived(built, reference, monkeypatch):
    monkeypatch.setattr(build_module, "find_target", lambda name: Target(swapped_labels))
    return built(reference=reference, waive="a prototype for the fair")


def test_a_waiver_is_stored_and_shown_at_every_load(built, reference, tmp_path, monkeypatch, caplog, capsys):
    from edge_sdk.cli import main

    bundle = waived(built, reference, monkeypatch)
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
    from edge_sdk import zoo

    for name in zoo.NAMES:
        for shipped in zoo.bundles(name):
            assert edge.Bundle.open(shipped.path).manifest.gate.waiver is None


def spoil_graph(path, change):
    import onnx

    model = onnx.load(str(path))
    change(model, onnx)
    onnx.save(model, str(path))


def not_finite(model, onnx):
    (weight,) = [w for w in model.graph.initializer if w.name == "w_cls8"]
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def unknown_operator(model, onnx):
    node = model.graph.node[-1]
    node.op_type, node.name = "Magic", "the-magic-node"


def from_the_future(model, onnx):
    model.opset_import[0].version = 999


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (not_finite, r"weight 'w_cls8' .* not finite"),
        (unknown_operator, r"node 'the-magic-node' is a ai\.onnx\.Magic"),
        (from_the_future, "opset 999"),
    ],
)
def test_a_graph_that_nobody_could_compile_is_named_by_tensor_or_node(
    built, toy_onnx, tmp_path, change, match
):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(toy_onnx.read_bytes())
    spoil_graph(broken, change)
    with pytest.raises(InputError, match=match) as caught:
        built(onnx=broken)
    assert caught.value.exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["broken.onnx"]


KILLED = """
import os, signal, sys
import toys
from edge_quantize.build import build
onnx, pictures, recipe, output, at = sys.argv[1:]
def stage(name, done, total):
    if f"{name} {done}" == at:
        os.kill(os.getpid(), signal.SIGKILL)
build(onnx, spec=toys.SPEC, engine="onnxruntime", recipe=recipe, calibration=pictures + "/calibration",
      evaluation=pictures + "/evaluation", output=output, stage=stage)
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


def test_auto_keeps_the_fastest_that_passes_and_says_what_the_others_scored(
    pictures, toy_onnx, tmp_path, monkeypatch
):
    from edge_quantize import auto

    recipes = {
        n: read_recipe(toys.write_recipe(pictures, n, name=n))
        for n in ("int8", "int8-wonly", "int8-mixed", "fp32", "fp16")
    }
    monkeypatch.setattr(auto.mixed, "quicker", lambda bench, target, recipe: None)
    monkeypatch.setattr(auto, "read_recipe", lambda name: recipes[name])
    monkeypatch.setattr(
        auto,
        "relative_latency",
        lambda bench, target, found: dict.fromkeys(found, 1.0) | {"int8": 1.5, "fp32": 0.9},
    )
    rows = []
    bundle = auto.build(
        toy_onnx,
        spec=toys.SPEC,
        engine="onnxruntime",
        calibration=pictures / "calibration",
        evaluation=pictures / "evaluation",
        output=tmp_path / "toy.edge",
        scored=rows.extend,
    )
    assert bundle.manifest.recipe.precision == "fp32"
    assert {row.recipe: row.outcome for row in rows} == {
        "int8": "slower",
        "int8-wonly": "unfit",
        "fp16": "slower",
        "fp32": "chosen",
    }
    assert edge.Bundle.open(tmp_path / "toy.edge") == bundle


@pytest.mark.parametrize(
    ("ratios", "winner"),
    [({"a": 0.5, "b": 0.4, "c": 1.0}, "b"), ({"a": 0.41, "b": 0.4, "c": 1.0}, "a"), ({}, "a")],
)
def test_within_a_tie_the_smaller_file_wins_and_without_times_the_first(ratios, winner):
    from edge_quantize.auto import choose

    assert choose(ratios, {"a": 1, "b": 2, "c": 3}) == winner
