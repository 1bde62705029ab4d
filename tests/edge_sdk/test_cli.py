import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_sdk.bundle import Bundle, GoldenCase
from edge_sdk.cli import main
from edge_sdk.draw import annotate
from edge_sdk.errors import BundleError, LoadFailed, MissingDependency
from edge_sdk.image import read_image, write_image
from edge_sdk.results import Detections, Liveness
from edge_sdk.tasks.classification import ClassificationTask
from edge_sdk.testing import FakeSession


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    write_image(path, toys.frame())
    return str(path)


def fails(capsys, code, *arguments):
    """Run a verb that must fail: the exit code, two last lines on stderr, nothing on stdout."""
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    *before, what, remedy = err.rstrip().splitlines()
    assert what.startswith("error: ")
    assert remedy.startswith("  ")
    assert "Traceback" not in "".join(before)
    return err


def test_predict_prints_a_line_a_frame(capsys, toy_bundle, toy_engine, picture):
    assert main(["predict", str(toy_bundle), "--source", picture]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("red.png: 1 face: red 1.00 at ")
    assert "toy on onnxruntime fp32" in err


@pytest.mark.parametrize("verb", ["verify", "predict"])
def test_the_bundle_that_is_looked_at_is_the_one_that_is_loaded(
    capsys, toy_bundle, toy_engine, picture, monkeypatch, verb
):
    """A pipe gives other bytes at every opening, and a file can be swapped: it is opened once."""
    opened, load, read, seen = [], toy_engine.load, Bundle.open, []

    def once(path):
        opened.append(path)
        bundle = read(path)
        toys.bundle(producer="somebody else").write(path)
        return bundle

    def loading(artifact, spec, *, options):
        seen.append(artifact)
        return load(artifact, spec, options=options)

    first = read(toy_bundle)
    monkeypatch.setattr(Bundle, "open", once)
    monkeypatch.setattr(toy_engine, "load", loading)
    arguments = {"verify": ["--json", "--no-isolation"], "predict": ["--source", picture]}[verb]
    assert main([verb, str(toy_bundle), *arguments]) == 0
    assert opened in ([toy_bundle], [str(toy_bundle)])
    assert seen == [first.artifact]
    if verb == "verify":
        assert json.loads(capsys.readouterr().out)["sha256"] == first.sha256


def test_predict_prints_ndjson(capsys, toy_bundle, toy_engine, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_image(folder / "a.png", toys.frame())
    write_image(folder / "b.png", np.zeros((20, 20, 3), np.uint8))
    assert main(["predict", str(toy_bundle), "--source", str(folder), "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [f["label"] for f in first["faces"]] == ["red"]
    assert (second["frame"], second["faces"]) == ("b.png", [])


def test_predict_saves_annotated_pictures_and_stops_at_the_limit(toy_bundle, toy_engine, tmp_path):
    folder, saved = tmp_path / "pictures", tmp_path / "deep" / "saved"
    folder.mkdir()
    for name in "abc":
        write_image(folder / f"{name}.png", toys.frame())
    assert (
        main(["predict", str(toy_bundle), "--source", str(folder), "--save", str(saved), "--limit", "2"]) == 0
    )
    assert sorted(p.name for p in saved.iterdir()) == ["a.png", "b.png"]
    drawn = read_image(saved / "a.png")
    assert drawn.shape == toys.frame().shape
    assert (drawn != toys.frame()).any()


def test_predict_names_the_frames_of_a_video(capsys, toy_bundle, toy_engine, tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(3):
        writer.write(np.ascontiguousarray(toys.frame()[..., ::-1]))
    writer.release()
    saved = tmp_path / "saved"
    assert main(["predict", str(toy_bundle), "--source", str(tmp_path / "v.avi"), "--save", str(saved)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["v.avi#0", "v.avi#1", "v.avi#2"]
    assert all("red" in line for line in lines)
    assert sorted(p.name for p in saved.iterdir()) == ["v-000000.png", "v-000001.png", "v-000002.png"]


def test_saving_never_overwrites_a_picture_of_the_user(toy_bundle, toy_engine, picture, tmp_path):
    before = Path(picture).read_bytes()
    main(["predict", str(toy_bundle), "--source", picture, "--save", str(tmp_path)])
    assert Path(picture).read_bytes() == before


def test_pictures_that_differ_in_their_suffix_are_saved_both(toy_bundle, toy_engine, tmp_path):
    folder, saved = tmp_path / "pictures", tmp_path / "saved"
    folder.mkdir()
    for name in ("a.bmp", "a.png", "a.jpg"):
        write_image(folder / name, toys.frame())
    assert main(["predict", str(toy_bundle), "--source", str(folder), "--save", str(saved)]) == 0
    assert len(list(saved.iterdir())) == 3


def test_an_annotation_at_the_edge_stays_in_the_picture():
    frame = toys.frame()
    found = Detections(
        boxes=np.array([[-3, -3, 70, 70], [60, 0, 64, 4]], np.float32),
        scores=np.ones(2, np.float32),
        class_ids=np.zeros(2, np.intp),
        probs=np.ones((2, 1), np.float32),
        names=("a very long label that is wider than the picture",),
    )
    before = frame.copy()
    assert annotate(frame, found).shape == frame.shape
    assert (frame == before).all()


def test_predict_takes_a_confidence(capsys, toy_bundle, toy_engine, picture):
    assert main(["predict", str(toy_bundle), "--source", picture, "--conf", "0.9999"]) == 0
    assert "no face" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (3, ["predict", "BUNDLE", "--source", "missing.png"]),
        (2, ["predict", "BUNDLE", "--source", "PICTURE", "--conf", "7"]),
        (2, ["predict", "BUNDLE", "--source", "PICTURE", "--limit", "0"]),
        (2, ["predict", "BUNDLE", "--source", "PICTURE", "--threads", "0"]),
        (2, ["predict", "BUNDLE", "--source", "PICTURE", "--target", "openvino"]),
        (2, ["predict", "fer-yolo99x", "--source", "PICTURE"]),
        (2, ["predict", "BUNDLE", "--source", "BUNDLE"]),
        (2, ["inspect", "missing.edge"]),
        (2, ["verify", "no-model"]),
        (4, ["inspect", "PICTURE"]),
        (4, ["verify", "PICTURE"]),
        (2, ["bench", "BUNDLE", "--duration", "0"]),
        (2, ["bench", "BUNDLE", "--scenario", "race"]),
        (2, ["bench", "BUNDLE", "-o", "/nowhere/run.json"]),
        (2, ["predict", "x" * 300, "--source", "PICTURE"]),
        (3, ["predict", "BUNDLE", "--source", "x" * 300]),
        (2, ["predict", "BUNDLE", "--source", "PICTURE", "--save", "PICTURE"]),
        (
            2,
            ["build", "no-model", "--onnx", "x.onnx", "--target", "openvino", "--evaluation", "x", "-o", "y"],
        ),
        (2, ["build", "fer-yolo11n", "--onnx", "x", "--target", "toaster", "--evaluation", "x", "-o", "y"]),
        (2, ["build", "fer-yolo11n", "--onnx", "x", "--target", "tflite", "--evaluation", "x", "-o", "x"]),
    ],
)
def test_bad_input_ends_in_two_lines_and_the_documented_code(
    capsys, toy_bundle, toy_engine, picture, code, arguments
):
    words = {"BUNDLE": toy_bundle, "PICTURE": picture}
    fails(capsys, code, *[words.get(a, a) for a in arguments])


def test_an_installed_wheel_says_where_the_float_network_is(capsys, monkeypatch, tmp_path):
    from edge_sdk import zoo

    monkeypatch.setattr(zoo, "SOURCES", tmp_path)
    arguments = [
        "build",
        "fer-yolo11n",
        "--target",
        "onnxruntime",
        "--evaluation",
        tmp_path,
        "-o",
        tmp_path / "x.edge",
    ]
    assert "--onnx" in fails(capsys, 2, *arguments)


@pytest.mark.parametrize(
    "error",
    [MissingDependency("no engine", remedy="pip install it"), LoadFailed("refused", remedy="build again")],
)
def test_what_the_environment_lacks_is_code_three(
    capsys, toy_bundle, toy_engine, monkeypatch, picture, error
):
    def load(artifact, spec, options):
        raise error

    monkeypatch.setattr(toy_engine, "load", load)
    assert error.message in fails(capsys, 3, "predict", toy_bundle, "--source", picture)


def test_errors_are_for_people_and_json_for_programs(capsys, toy_bundle, toy_engine, picture):
    assert main(["predict", str(toy_bundle), "--source", picture, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["target"] == "onnxruntime-fp32"
    fails(capsys, 2, "predict", toy_bundle, "--source", picture, "--conf", "7", "--json")


def test_an_interrupt_is_no_traceback(capsys, toy_bundle, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_sdk.cli.Bundle.open", interrupt)
    assert main(["inspect", str(toy_bundle)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "--json"]])
def test_a_reader_that_leaves_early_is_no_error(toy_bundle, arguments):
    verb, *options = arguments
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "edge_sdk", verb, str(toy_bundle), *options]
    done = subprocess.run(
        command,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_debug_adds_the_traceback(capsys, tmp_path):
    assert main(["inspect", str(tmp_path / "missing.edge"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_text_of_a_bundle_cannot_steer_the_terminal(capsys, tmp_path):
    path = tmp_path / "x.edge"
    try:
        toys.bundle(producer="\x1b[2J\x1b]0;title\x07\r\ud800").write(path)
    except BundleError:
        return  # refused where it is written: as good
    code = main(["inspect", str(path)])
    out, err = capsys.readouterr()
    assert code in (0, 4)
    assert "\x1b" not in out + err


def test_inspect_shows_the_manifest(capsys, toy_bundle):
    assert main(["inspect", str(toy_bundle)]) == 0
    out = capsys.readouterr().out
    for word in ("toy (detection)", "red, green", "Apache-2.0", "gate passed on 3", "artifact/model.onnx"):
        assert word in out
    assert main(["inspect", str(toy_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["name"] == "toy"


def test_verify_passes_and_fails_with_one(capsys, toy_bundle, toy_engine):
    assert main(["verify", str(toy_bundle), "--no-isolation"]) == 0
    assert "pass on this device" in capsys.readouterr().out
    assert main(["verify", str(toy_bundle), "--no-isolation", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["golden"] == "pass"
    toy_engine.answer = lambda pixels: toys.engine(255 - pixels)
    fails(capsys, 1, "verify", toy_bundle, "--no-isolation")
    assert main(["verify", str(toy_bundle), "--no-isolation", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["golden"] == "fail"


def test_wrong_use_is_argparses_code_two(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_bench_measures_and_saves(capsys, toy_bundle, toy_engine, tmp_path):
    out = tmp_path / "run.json"
    assert main(["bench", str(toy_bundle), "--duration", "0.2", "-o", str(out)]) == 0
    assert "toy" in capsys.readouterr().out
    assert json.loads(out.read_text())["schema"] == 2


@pytest.fixture
def toy_classifier(tmp_path):
    """A classifier's bundle beside the detector's; both run on the fake engine, which tells them by their input."""
    path = tmp_path / "classifier.edge"
    inputs = ClassificationTask(toys.CLASSIFIER).preprocess(toys.frame())[0]
    outputs = {n: v.astype(np.float16) for n, v in toys.classify(inputs["pixels"]).items()}
    toys.bundle(
        spec=toys.CLASSIFIER,
        artifact=toys.artifact(toys.CLASSIFIER),
        golden=(GoldenCase(outputs, toys.frame()),),
    ).write(path)
    return path


@pytest.fixture
def two_engines(toy_engine, monkeypatch):
    def load(artifact, spec, *, options):
        answer = toys.classify if spec.task == "classification" else toys.engine
        return FakeSession(spec, answer=lambda inputs: answer(inputs["pixels"]))

    monkeypatch.setattr(toy_engine, "load", load)


def test_predict_takes_a_picture_as_a_classifiers_crop(capsys, toy_classifier, two_engines, picture):
    assert main(["predict", str(toy_classifier), "--source", picture, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["faces"][0]["label"] == "red"
    assert "boxes" not in record


def test_predict_asks_a_classifier_about_a_detectors_faces(
    capsys, toy_classifier, toy_bundle, two_engines, picture, tmp_path
):
    saved = tmp_path / "saved"
    asked = ["predict", str(toy_classifier), "--source", picture, "--faces", str(toy_bundle)]
    assert main([*asked, "--json", "--save", str(saved)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["boxes"]) == len(record["faces"]) == 1
    assert record["faces"][0]["label"] == "red"
    assert read_image(next(saved.iterdir())).shape == toys.frame().shape
    assert main([*asked, "--conf", "0.9999"]) == 0
    assert "no face" in capsys.readouterr().out


def test_predict_refuses_faces_for_a_detector(capsys, toy_bundle, two_engines, picture):
    assert main(["predict", str(toy_bundle), "--source", picture, "--faces", str(toy_bundle)]) == 2
    assert "finds faces itself" in capsys.readouterr().err


def test_a_face_that_is_not_bona_fide_is_drawn_in_red():
    frame = np.full((80, 120, 3), 90, np.uint8)
    found = Liveness(
        np.array([0.9, 0.1, 0.0], np.float32), ("bona fide", "attack", "undecided"), ("", "", "small")
    )
    boxes = [[2, 30, 30, 60], [40, 30, 70, 60], [80, 30, 110, 60]]
    drawn = annotate(frame, found, boxes)
    assert [drawn[60, x].argmax() for x in (15, 55, 95)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["zoo", "--json"], {"edge_quantize", "edge_benchmarks", "edge_targets.cli"}),
        (["doctor", "--json"], {"edge_quantize", "edge_benchmarks"}),
        (["bench", "missing.edge"], {"edge_quantize"}),
    ],
)
def test_a_verb_of_the_device_imports_no_floor_that_it_does_not_run(words, modules):
    code = (
        f"import sys; from edge_sdk.cli import main; main({words}); "
        "print('after', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    *_, imported = done.stderr.splitlines()
    assert imported.startswith("after ")
    assert not modules & set(imported.split())
