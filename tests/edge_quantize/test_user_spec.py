"""A user's own network: what a spec file says, and what is wrong with it."""

import pytest

onnx = pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxslim", reason="host tool not installed")
ort = pytest.importorskip("onnxruntime", reason="engine not installed")

import toys  # noqa: E402
from own_specs import CLASSIFIER, spec_file, write_exported_classifier  # noqa: E402

import edge_sdk as edge  # noqa: E402
from edge_quantize.user_spec import SpecFile, read_spec  # noqa: E402
from edge_sdk.errors import InputError  # noqa: E402


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("size", "sise"), r"mine\.toml has an unknown key 'sise'"),
        (("[64, 64]", "[64]"), r"mine\.toml.*size"),
        (("[64, 64]", "[0, 64]"), r"mine\.toml.*size"),
        (("bins = 16", "bins = 1"), r"mine\.toml.*bins is 1"),
        (('kind = "detection"', 'kind = "stretch"'), r"mine\.toml.*'stretch'"),
        (("[head]", "[pixels]\nstd = [0, 1, 1]\n[head]"), r"mine\.toml.*std"),
        (("[head]", 'exported_labels = ["a", "b"]\n[head]'), r"mine\.toml.*exported_labels"),
        (("licence =", "licence"), r"mine\.toml"),
    ],
)
def test_a_broken_spec_is_named_by_its_file(tmp_path, change, match):
    path = spec_file(tmp_path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(InputError, match=match):
        read_spec(path)


def test_the_command_builds_a_users_own_network_and_it_answers(tmp_path, capsys):
    pytest.importorskip("pycocotools", reason="host tool not installed")
    from edge_sdk.cli import main

    source = write_exported_classifier(tmp_path / "x.onnx", softmax=True)
    file = spec_file(tmp_path, CLASSIFIER, '[pixels]\norder = "rgb"\n', labels='["red", "green"]')
    toys.write_crops(tmp_path / "evaluation", 40, 1)
    common = ["--spec", str(file), "--target", "onnxruntime"]
    common += ["--recipe", str(toys.write_recipe(tmp_path, "fp32"))]
    common += ["--evaluation", str(tmp_path / "evaluation"), "-o", str(tmp_path / "mine.edge")]
    assert main(["build", *common]) == 2
    assert "--onnx" in capsys.readouterr().err
    assert main(["build", "fer-yolo11n", "--onnx", str(source), *common]) == 2
    assert main(["build", "--onnx", str(source), *common]) == 0
    with edge.load(tmp_path / "mine.edge") as model:
        assert model(toys.frame(), boxes=[[16, 24, 32, 40]]).labels == ("red",)


OLD_FORM = """
name = "mine"
task = "detection"
labels = ["a", "b", "c"]
size = [64, 64]
licence = "Apache-2.0"

[preprocessing]
kind = "letterbox"
pad = 114
max_scale = 2.0

[decode]
strides = [8, 16, 32]
bins = 16
confidence = 0.25
iou = 0.5
max_faces = 100
"""


def test_a_spec_of_the_form_before_heads_is_refused_and_shown_the_new_one(tmp_path):
    (tmp_path / "old.toml").write_text(OLD_FORM)
    with pytest.raises(InputError, match=r"old\.toml has the key 'task' of an older form") as caught:
        read_spec(tmp_path / "old.toml")
    for part in ("[head]", "kind", "labels", "[head.letterbox]", "[head.crop]"):
        assert part in caught.value.remedy


def test_the_example_is_a_spec():
    from pathlib import Path

    own = read_spec(Path(__file__).parents[2] / "examples/own_detector.toml")
    assert own.spec.task == "detection"


def test_the_form_of_a_spec_is_all_in_the_text_for_users():
    import dataclasses
    from pathlib import Path

    from edge_quantize.graph.import_onnx import PixelForm

    text = (Path(__file__).parents[2] / "docs/bring-your-own.md").read_text()
    for kind in (SpecFile, PixelForm):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in text or f"{field.name} =" in text, field.name
