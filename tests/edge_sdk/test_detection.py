import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_sdk import zoo
from edge_sdk.boxes import iou
from edge_sdk.errors import InferFailed, InputError
from edge_sdk.image import check_boxes
from edge_sdk.tasks import detection
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.testing import head_maps

SPEC = zoo.spec("fer-yolo11n")
FRAME = np.zeros((320, 320, 3), np.uint8)  # as large as the canvas: both have the same coordinates


def answer(task, maps, frame=FRAME):
    _, transform = task.preprocess(frame)
    return task.postprocess(maps, transform)


def test_faces_put_into_head_maps_come_out_again():
    faces = np.array([[20, 30, 60, 70], [100, 120, 260, 300], [250, 10, 310, 60]], np.float32)
    found = answer(DetectionTask(SPEC), head_maps(SPEC, faces, [3, 0, 6]))
    order = [int(iou(faces[i : i + 1], found.boxes).argmax()) for i in range(3)]
    np.testing.assert_allclose(found.boxes[order], faces, atol=0.5)
    assert [found.labels[i] for i in order] == ["happy", "angry", "neutral"]
    np.testing.assert_allclose(found.probs.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-4)), rtol=1e-5)


def test_boxes_are_in_pixels_of_the_frame_not_of_the_canvas():
    frame = np.zeros((480, 640, 3), np.uint8)  # half size on the canvas, 40 rows of border above
    found = answer(
        DetectionTask(SPEC), head_maps(SPEC, np.array([[50, 90, 90, 130]], np.float32), [1]), frame
    )
    np.testing.assert_allclose(found.boxes, [[100, 100, 180, 180]], atol=1)


def test_no_face_is_an_empty_result():
    found = answer(DetectionTask(SPEC), head_maps(SPEC, np.zeros((0, 4), np.float32), []))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.probs.shape == (0, 7)
    assert found.labels == ()


def test_a_face_has_one_expression_though_two_cells_disagree():
    maps = head_maps(SPEC, np.array([[100, 100, 180, 180]], np.float32), [3])
    maps["box8"][0, 17, 18] = maps["box8"][0, 17, 17]
    maps["cls8"][0, 17, 18, 4] = 3.0
    found = answer(DetectionTask(SPEC), maps)
    assert found.labels == ("happy",)


def reference(maps, confidence):
    """Every cell decoded with float64, the way a textbook writes it."""
    boxes, scores = [], []
    for stride in SPEC.head.strides:
        sides, logits = maps[f"box{stride}"][0].astype(float), maps[f"cls{stride}"][0].astype(float)
        for row in range(sides.shape[0]):
            for column in range(sides.shape[1]):
                p = 1 / (1 + np.exp(-logits[row, column]))
                if p.max() < confidence:
                    continue
                bins = np.exp(sides[row, column].reshape(4, 16))
                left, top, right, bottom = (bins / bins.sum(1, keepdims=True)) @ np.arange(16) * stride
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                boxes.append((x - left, y - top, x + right, y + bottom))
                scores.append(p)
    order = np.argsort(-np.array(scores).max(1), kind="stable") if scores else []
    return np.array(boxes).reshape(-1, 4)[order], np.array(scores).reshape(-1, 7)[order]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.25, 0.5]))
def test_thresholding_first_finds_what_decoding_everything_finds(seed, confidence):
    rng = np.random.default_rng(seed)
    maps = {
        t.name: rng.normal(-4 if t.name.startswith("cls") else 0, 1.5, t.shape).astype(np.float32)
        for t in SPEC.outputs
    }
    boxes, logits, best = DetectionTask(SPEC).candidates(maps, confidence)
    assert (best == logits.max(1)).all() if len(best) else not len(logits)
    order = np.argsort(-best, kind="stable")
    boxes, logits = boxes[order], logits[order]
    expected_boxes, expected_scores = reference(maps, confidence)
    count = min(len(expected_boxes), detection.MAX_CANDIDATES)
    assert len(boxes) == count
    np.testing.assert_allclose(boxes, expected_boxes[:count], atol=1e-2)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected_scores[:count], atol=1e-5)


def test_huge_side_logits_do_not_overflow():
    maps = head_maps(SPEC, np.array([[100, 100, 180, 180]], np.float32), [3])
    for name in maps:
        if name.startswith("box"):
            maps[name] += 500
    assert np.isfinite(answer(DetectionTask(SPEC), maps).boxes).all()


def test_candidates_and_faces_are_limited(monkeypatch):
    monkeypatch.setattr(detection, "MAX_CANDIDATES", 20)
    maps = {t.name: np.zeros(t.shape, np.float32) for t in SPEC.outputs}
    boxes, _, _ = DetectionTask(SPEC).candidates(maps, 0.25)
    assert len(boxes) == 20


def test_the_callers_confidence_counts():
    maps = head_maps(SPEC, np.array([[100, 100, 180, 180]], np.float32), [3], logit=0.0)
    assert len(answer(DetectionTask(SPEC), maps)) == 1
    assert len(answer(DetectionTask(SPEC, confidence=0.51), maps)) == 0


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan")])
def test_a_threshold_outside_its_range_is_refused(value):
    with pytest.raises(InputError, match="confidence"):
        DetectionTask(SPEC, confidence=value)


def test_the_tensors_given_are_not_changed():
    maps = head_maps(SPEC, np.array([[100, 100, 180, 180]], np.float32), [3])
    before = {name: value.copy() for name, value in maps.items()}
    answer(DetectionTask(SPEC), maps)
    assert all((maps[name] == before[name]).all() for name in maps)


def test_the_toy_sees_its_squares():
    rng = np.random.default_rng(0)
    task = DetectionTask(toys.SPEC)
    for _ in range(10):
        image, _, classes = toys.picture(rng)
        inputs, transform = task.preprocess(image)
        assert task.postprocess(toys.engine(inputs["pixels"]), transform).class_ids[0] == classes[0]


@settings(max_examples=60, deadline=None)
@example((1, 1), np.full((12, 4), 320, np.float32), [])  # in the canvas's last corner
@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
    hnp.arrays(np.float32, (12, 4), elements=st.floats(0, 320, width=32)),
    st.lists(
        st.tuples(
            st.sampled_from([t.name for t in SPEC.outputs]),
            st.floats(0, 1, exclude_max=True),
            st.floats(width=32),  # NaN, infinities and the largest numbers among them
        ),
        max_size=8,
    ),
)
def test_whatever_the_maps_hold_a_box_is_finite_ordered_and_inside_the_frame_or_the_answer_fails(
    size, corners, planted
):
    """Fail closed: "no face" and a face somewhere are answers, and a map with NaN holds none."""
    faces = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    maps = head_maps(SPEC, faces, [0] * len(faces))
    for name, place, value in planted:
        flat = maps[name].reshape(-1)
        flat[int(place * len(flat))] = value
    frame = np.zeros((*size, 3), np.uint8)
    broken = any(not np.max(values) < np.inf for name, values in maps.items() if name.startswith("cls"))
    try:
        with np.errstate(all="ignore"):
            found = answer(DetectionTask(SPEC), maps, frame)
    except InferFailed:
        assert not all(np.isfinite(values).all() for values in maps.values())
        return
    assert not broken
    boxes = found.boxes
    assert np.isfinite(boxes).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= (size[1], size[0])).all()
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.probs).all()
    check_boxes(boxes, frame)  # what the next model asks of them


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["cls", "box"])
def test_a_map_that_is_not_of_numbers_is_no_answer(which, wrong):
    maps = head_maps(SPEC, np.array([[100, 100, 180, 180]], np.float32), [3])
    for name in maps:
        if name.startswith(which):
            maps[name][...] = wrong
    with np.errstate(all="ignore"), pytest.raises(InferFailed, match="no number"):
        answer(DetectionTask(SPEC), maps)


def test_a_face_in_the_border_beside_the_picture_is_none():
    maps = head_maps(SPEC, np.array([[100, 4, 180, 60], [100, 120, 180, 200]], np.float32), [3, 3])
    found = answer(DetectionTask(SPEC), maps, np.zeros((80, 320, 3), np.uint8))
    assert len(found) == 1
    assert found.boxes[0].tolist() == pytest.approx([100, 0, 180, 80], abs=0.5)
