"""Figures of a classifier, against hand-worked cases."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="host tool not installed")

import toys

from edge_quantize.data import LabelledPicture, read_labelled
from edge_quantize.metrics.classification import METRICS, answers, evaluate
from edge_sdk.errors import InputError
from edge_sdk.tasks import task_of

LABELS = ("a", "b", "c")


class Session:
    def infer(self, inputs):
        return toys.classify(inputs["pixels"])


def test_a_hand_worked_case():
    truth = np.array([0, 0, 0, 0, 1, 1])
    answered = np.array([0, 0, 0, 1, 1, 2])
    report = evaluate(answered, truth, LABELS)
    assert set(report.metrics) == set(METRICS)
    assert report.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert report.metrics["uar"].value == pytest.approx((3 / 4 + 1 / 2) / 2)  # "c" never occurs
    assert report.metrics["macro_f1"].value == pytest.approx((6 / 7 + 1 / 2) / 2)
    assert report.confusion == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert report.per_class["a"] == {"recall": 0.75, "faces": 4}
    assert np.isnan(report.score_of("c"))


def test_intervals_hold_the_figure_and_shrink_with_the_set():
    rng = np.random.default_rng(0)

    def width(count):
        truth = rng.integers(0, 3, count)
        answered = np.where(rng.random(count) < 0.7, truth, rng.integers(0, 3, count))
        metric = evaluate(answered, truth, LABELS).metrics["accuracy"]
        assert metric.low <= metric.value <= metric.high
        return metric.high - metric.low

    assert width(2000) < width(50) / 3


def test_perfect_answers_score_one():
    truth = np.array([0, 1, 2, 1])
    assert {m.value for m in evaluate(truth, truth, LABELS).metrics.values()} == {1.0}


def test_answers_come_from_crops_and_from_boxes(tmp_path):
    task = task_of(toys.CLASSIFIER)
    items = read_labelled(toys.write_crops(tmp_path / "crops", 12, 3), toys.LABELS)
    answered, truth = answers(Session(), task, items)
    assert (answered == truth).all()
    scenes = read_labelled(toys.write_pictures(tmp_path / "scenes", 6, 3), toys.LABELS)
    answered, truth = answers(Session(), task, scenes)
    assert (answered == truth).all()


def test_a_picture_of_several_faces_is_refused(tmp_path):
    toys.write_crops(tmp_path / "crops", 2, 3)
    (path,) = (tmp_path / "crops" / "red").iterdir()
    two = LabelledPicture(path, np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), np.array([0, 1]))
    with pytest.raises(InputError, match="2 faces"):
        answers(Session(), task_of(toys.CLASSIFIER), [two])
