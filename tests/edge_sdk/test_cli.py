import json

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_sdk.cli import main
from edge_sdk.image import read_image, write_image


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


def test_debug_adds_the_traceback(capsys, tmp_path):
    assert main(["inspect", str(tmp_path / "missing.edge"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_inspect_shows_the_manifest(capsys, toy_bundle):
    assert main(["inspect", str(toy_bundle)]) == 0
    out = capsys.readouterr().out
    for word in ("toy (detection)", "red, green", "Apache-2.0", "gate passed on 3", "artifact/model.onnx"):
        assert word in out
    assert main(["inspect", str(toy_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["name"] == "toy"


def test_verify_passes_and_fails_with_one(capsys, toy_bundle, toy_engine):
    assert main(["verify", str(toy_bundle)]) == 0
    assert "pass on this device" in capsys.readouterr().out
    toy_engine.answer = lambda pixels: toys.engine(255 - pixels)
    fails(capsys, 1, "verify", toy_bundle)


def test_zoo_lists_what_is_shipped(capsys):
    assert main(["zoo"]) == 0
    assert "fer-yolo11n" in capsys.readouterr().out
    assert main(["zoo", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["target"] for r in rows} == {"onnxruntime", "openvino", "tflite"}
    assert all(0 < r["relative_latency"] < 2 and r["gate"]["map50"] > 0.5 for r in rows)


def test_wrong_use_is_argparses_code_two(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_bench_measures_and_saves(capsys, toy_bundle, toy_engine, tmp_path):
    out = tmp_path / "run.json"
    assert main(["bench", str(toy_bundle), "--duration", "0.2", "-o", str(out)]) == 0
    assert "toy" in capsys.readouterr().out
    assert json.loads(out.read_text())["schema"] == 1
