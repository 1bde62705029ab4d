"""A classifier: what it cuts out of a frame, what it answers, and what it refuses."""

import dataclasses

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import InferFailed, InputError, ManifestInvalid
from edge_sdk.image import EXACT_SIDE, Cropper, FaceCrop, check_boxes
from edge_sdk.model import Model, ModelInfo
from edge_sdk.per_face import softmax
from edge_sdk.results import Classifications
from edge_sdk.tasks import task_of
from edge_sdk.tasks.classification import ClassificationTask
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.testing import FakeSession


@pytest.fixture
def model():
    spec = toys.CLASSIFIER
    info = ModelInfo(
        spec.name, spec.task, spec.labels, (16, 16), "toy", "fp32", None, "Apache-2.0", "0" * 64, "the test"
    )
    session = FakeSession(spec, answer=lambda inputs: toys.classify(inputs["pixels"]))
    return Model(session, ClassificationTask(spec), info)


def two_faces():
    """A grey frame with a red face on the left and a green one on the right."""
    frame = np.full((60, 100, 3), 90, np.uint8)
    frame[20:40, 10:30] = (200, 20, 20)
    frame[20:40, 60:90] = (20, 200, 20)
    return frame, np.array([[10, 20, 30, 40], [65, 20, 85, 40]], np.float32)


def test_each_box_gets_its_answer_in_order(model):
    frame, boxes = two_faces()
    found = model(frame, boxes=boxes)
    assert found.labels == ("red", "green")
    assert model(frame, boxes=boxes[::-1]).labels == ("green", "red")
    assert found.probs.shape == (2, 2)
    np.testing.assert_allclose(found.probs.sum(1), 1, atol=1e-6)
    assert found.target == "toy-fp32"
    assert min(found.times.preprocess_ns, found.times.infer_ns, found.times.postprocess_ns) > 0


def test_without_boxes_the_picture_is_the_crop(model):
    frame, _ = two_faces()
    assert model(np.ascontiguousarray(frame[20:40, 10:30])).labels == ("red",)


def test_no_box_is_an_empty_answer(model):
    frame, _ = two_faces()
    found = model(frame, boxes=[])
    assert len(found) == 0
    assert found.to_dict()["faces"] == []


def test_a_bgr_frame_is_turned(model):
    frame, boxes = two_faces()
    assert model(frame[:, :, ::-1], boxes=boxes, color="bgr").labels == ("red", "green")


def test_a_result_reads_as_rows_and_as_json(model):
    frame, boxes = two_faces()
    found = model(frame, boxes=boxes)
    assert [face.label for face in found] == ["red", "green"]
    assert found[1].score == pytest.approx(float(found.scores[1]))
    assert found.to_dict()["faces"][0]["label"] == "red"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.names = ()


@pytest.mark.parametrize(
    "boxes",
    [
        [[1, 2, 3]],
        [1, 2, 3, 4],
        [[10, 10, 10, 20]],
        [[20, 10, 10, 20]],
        [[0, 0, float("nan"), 5]],
        [[0, 0, float("inf"), 5]],
        [[200, 10, 220, 30]],
        [[-30, 10, -10, 30]],
        [[0, 0, 1e6, 1e6]],
        "a box",
        [["a", "b", "c", "d"]],
    ],
)
def test_boxes_that_mark_no_face_are_refused(model, boxes):
    with pytest.raises(InputError):
        model(two_faces()[0], boxes=boxes)


def test_boxes_are_kept_as_they_are():
    frame, boxes = two_faces()
    assert check_boxes(boxes, frame) is boxes
    assert check_boxes(boxes.tolist(), frame).dtype == np.float32


def test_a_detector_refuses_boxes_and_a_classifier_a_confidence(toy_bundle, toy_engine):
    import edge_sdk as edge

    with edge.load(toy_bundle) as detector, pytest.raises(InputError, match="itself"):
        detector(toys.frame(), boxes=[[0, 0, 5, 5]])
    with pytest.raises(InputError, match="confidence"):
        task_of(toys.CLASSIFIER, confidence=0.5)
    assert isinstance(task_of(toys.SPEC, confidence=0.5), DetectionTask)


places = st.integers(-40, 120)


@given(places, places, st.integers(1, 80), st.sampled_from([1.0, 1.5, 2.7]))
def test_a_crop_is_what_an_endless_edge_would_show(left, top, side, margin):
    rng = np.random.default_rng(7)
    frame = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    box = np.array([left, top, left + side, top + side], np.float32)
    if left + side <= 0 or top + side <= 0 or left >= 90 or top >= 60:
        return
    crop = Cropper(side_x=16, side_y=16, crop=FaceCrop(margin, "repeat"))(frame, box)
    reach = 400
    endless = np.pad(frame, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    whole = max(1, round(side * margin))
    x, y = round(left + (side - whole) / 2) + reach, round(top + (side - whole) / 2) + reach
    patch = endless[y : y + whole, x : x + whole]
    method = cv2.INTER_AREA if whole > 16 else cv2.INTER_LINEAR
    assert (crop[0] == cv2.resize(patch, (16, 16), interpolation=method)).all()


def endless(frame, box, margin, side):
    """A crop of a frame whose edge goes on for ever, pixel by pixel."""
    x1, y1, x2, y2 = box
    whole = max(1, round(max(x2 - x1, y2 - y1) * margin))
    rows = (round((y1 + y2 - whole) / 2) + np.arange(whole)).clip(0, frame.shape[0] - 1)
    columns = (round((x1 + x2 - whole) / 2) + np.arange(whole)).clip(0, frame.shape[1] - 1)
    method = cv2.INTER_AREA if whole > side else cv2.INTER_LINEAR
    return cv2.resize(frame[rows][:, columns], (side, side), interpolation=method)


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(*[st.floats(-160, 160)] * 2),
    st.tuples(*[st.floats(0.01, 160)] * 2),
    st.sampled_from([0.5, 1.0, 2.7]),
)
def test_a_crop_is_exact_wherever_its_box_lies(size, corner, sides, margin):
    frame = np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8)
    box = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]], np.float32)
    crop = Cropper(side_x=16, side_y=16, crop=FaceCrop(margin, "repeat"))(frame, box)
    assert (crop[0] == endless(frame, box.tolist(), margin, 16)).all()


@settings(max_examples=8, deadline=None)
@given(
    st.tuples(st.integers(800, 2000), st.integers(800, 2000)),
    st.tuples(*[st.floats(-0.5, 0.5)] * 2),
    st.integers(EXACT_SIDE + 1, 2 * EXACT_SIDE),
)
def test_a_very_large_crop_over_the_edge_is_right_to_half_a_hundredth(size, shift, side):
    """A smooth picture differs by 1.28 levels of 255 in the mean at most: edges are rounded to a thousandth."""
    noise = np.random.default_rng(7).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    frame = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
    middle = np.array(size[::-1]) * (0.5 + np.array(shift))
    box = np.array([*(middle - side / 2), *(middle + side / 2)], np.float32)
    crop = Cropper(side_x=16, side_y=16, crop=FaceCrop(1.0, "repeat"))(frame, box)[0]
    assert np.abs(crop.astype(float) - endless(frame, box.tolist(), 1.0, 16)).mean() <= 1.28


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((4000, 4000), (-6e3, -6e3, 1e4, 1e4)),
        ((2, 70_000), (-1e5, -1.4e5, 1.8e5, 1.4e5)),
        ((1, 1), (0, 0, 1e30, 1e30)),
    ],
)
def test_no_box_takes_more_memory_than_a_small_frame(size, box, monkeypatch):
    frame, made, real = np.full((*size, 3), 7, np.uint8), [], cv2.copyMakeBorder

    def border(*arguments):
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr(cv2, "copyMakeBorder", border)
    cropper = Cropper(side_x=112, side_y=112, crop=FaceCrop(1.2, "repeat"))
    assert (cropper(frame, np.array(box))[0] == 7).all()
    assert [patch.size <= 3 * (EXACT_SIDE + 2) ** 2 for patch in made] == [True]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("outside", ["repeat", "shift"])
def test_what_is_not_a_number_reaches_no_crop(wrong, outside):
    cropper = Cropper(side_x=16, side_y=16, crop=FaceCrop(1.0, outside))
    for place in range(4):
        box = np.array([1, 1, 5, 5], np.float32)
        box[place] = wrong
        with pytest.raises(InputError, match="not of numbers"):
            cropper(toys.frame(), box)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_no_label(wrong):
    task = task_of(toys.CLASSIFIER)
    with pytest.raises(InferFailed, match="no number"):
        task.postprocess([np.array([[1, 0]], np.float32), np.array([[wrong, 0]], np.float32)])


def test_a_number_beyond_all_floats_is_no_box():
    for huge in (10**400, 1e300):
        with pytest.raises(InputError):
            check_boxes([[0, 0, huge, 5]], toys.frame())


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_softmax_is_a_share_whatever_it_is_given(logits):
    shares = softmax(logits)
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert (np.take_along_axis(shares, logits.argmax(1)[:, None], 1)[:, 0] == shares.max(1)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"head": toys.SPEC.head},
        {"head": {"crop": FaceCrop(0.0, "repeat")}},
        {"head": {"crop": FaceCrop(1e9, "repeat")}},
        {"head": {"labels": ()}},
        {"head": {"labels": ("red", "green", "blue")}},
        {
            "inputs": (
                dataclasses.replace(toys.CLASSIFIER.inputs[0], shape=(1, 4, 16, 16, 3), layout="NTHWC"),
            )
        },
        {"outputs": toys.SPEC.outputs},
    ],
)
def test_a_classifiers_spec_that_contradicts_itself_is_refused(change):
    def spec():
        if isinstance(head := change.get("head"), dict):
            return dataclasses.replace(
                toys.CLASSIFIER, head=dataclasses.replace(toys.CLASSIFIER.head, **head)
            )
        return dataclasses.replace(toys.CLASSIFIER, **change)

    with pytest.raises(ManifestInvalid):
        spec()


def test_empty_results_have_no_labels():
    assert Classifications(np.zeros((0, 2), np.float32), ("red", "green")).labels == ()
