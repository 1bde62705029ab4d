import dataclasses
import json

import numpy as np
import pytest

from edge_sdk.results import Detections, Face
from edge_sdk.timing import StageTimes


@pytest.fixture
def found():
    return Detections(
        boxes=np.array([[1, 2, 3, 4], [5, 6, 7, 8.06]], np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        class_ids=np.array([1, 0]),
        probs=np.array([[0.1, 0.9], [0.6, 0.4]], np.float32),
        names=("sad", "happy"),
    ).answered(StageTimes(1_000_000, 2_000_000, 3_000_000), "openvino-int8")


def test_length_iteration_and_labels(found):
    assert len(found) == 2
    assert [face.label for face in found] == list(found.labels) == ["happy", "sad"]
    assert isinstance(found[0], Face)
    assert found[-1].label == "sad"


@pytest.mark.parametrize("rows", [slice(0, 1), np.array([True, False]), [0], np.array([0])])
def test_a_selection_keeps_everything_else(found, rows):
    some = found[rows]
    assert isinstance(some, Detections)
    assert len(some) == 1
    assert some.labels == ("happy",)
    assert some.times is found.times
    assert some.target == "openvino-int8"


def test_results_are_frozen(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.scores = None


def test_an_index_beyond_the_end_is_an_error(found):
    with pytest.raises(IndexError):
        found[2]


def test_as_json(found):
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["faces"][1]["box"] == [5, 6, 7, 8.1]
    assert plain["faces"][0]["probs"] == {"sad": 0.1, "happy": 0.9}
    assert plain["times_ms"] == {"preprocess": 1, "infer": 2, "postprocess": 3}
    assert found.times.total_ms == 6


def test_empty():
    assert Detections.empty(("a", "b")).to_dict()["faces"] == []
