"""What a card shows is found by the model's task."""

import pytest

pytest.importorskip("torch", reason="training needs torch")
onnxruntime = pytest.importorskip("onnxruntime", reason="engine not installed")
pytest.importorskip("matplotlib", reason="draws the picture")

import toys  # noqa: E402

from edge_quantize.metrics import evaluator_of  # noqa: E402
from edge_quantize.recipe import read_recipe  # noqa: E402
from edge_quantize.workbench import REFERENCE_RECIPE, REFERENCE_TARGET  # noqa: E402
from edge_sdk import zoo  # noqa: E402
from edge_sdk.target import LoadOptions, SourceModel, find_target  # noqa: E402
from edge_training import card  # noqa: E402
from edge_training.card_sections import SECTIONS  # noqa: E402
from edge_training.data.unpack import SETS  # noqa: E402


def test_every_task_has_a_section_whose_sets_can_be_unpacked():
    assert set(SECTIONS) == {zoo.spec(name).task for name in zoo.NAMES}
    for section in SECTIONS.values():
        assert section.drawn in section.test_sets
        assert {name for name, _ in section.test_sets.values()} <= set(SETS)


def test_the_picture_and_the_confusion_have_the_names_of_the_models_labels(tmp_path):
    spec = toys.CLASSIFIER
    items = evaluator_of(spec.task).read_labelled(toys.write_crops(tmp_path / "crops", 12, 1), spec.labels)
    target = find_target(REFERENCE_TARGET)
    model = SourceModel(spec, toys.write_classifier_onnx(tmp_path / "toy.onnx"))
    artifact = target.compile(model, recipe=read_recipe(REFERENCE_RECIPE))
    with target.load(artifact, spec, options=LoadOptions()) as session:
        card.draw(spec, session, items, tmp_path / "card.png")
        report = card.examine(session, card.task_of(spec), items)
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")
    lines = card.confusion(report, *SECTIONS[spec.task].confusion_names(spec, report)).splitlines()
    assert len(lines) == len(spec.labels) + 2
    assert all(label in lines[0] for label in spec.labels)
