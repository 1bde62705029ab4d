import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_sdk.boxes import area, iou, nms

coordinate = st.floats(0, 500, width=32)
size = st.floats(1, 200, width=32)


@st.composite
def boxes(draw, most=12):
    rows = draw(st.lists(st.tuples(coordinate, coordinate, size, size), min_size=1, max_size=most))
    return np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32)


def test_iou_by_hand():
    a = np.array([[0, 0, 2, 2]], np.float32)
    b = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 1, 1]], np.float32)
    assert iou(a, b).tolist() == [pytest.approx([1 / 3, 1, 0, 0])]


def test_empty_and_turned_boxes_have_no_area():
    assert area(np.array([[3, 3, 3, 9], [5, 5, 1, 1]], np.float32)).tolist() == [0, 0]


@given(boxes(), boxes())
def test_iou_is_symmetric_and_a_share(a, b):
    ab, ba = iou(a, b), iou(b, a)
    assert (ab == ba.T).all()
    assert ((ab >= 0) & (ab <= 1 + 1e-6)).all()


@given(boxes())
def test_every_box_is_its_own_best_match(a):
    np.testing.assert_allclose(np.diag(iou(a, a)), 1, rtol=1e-4)


@given(boxes(), st.floats(0.1, 0.9), st.integers(1, 5), st.randoms(use_true_random=False))
def test_what_nms_keeps_does_not_overlap_and_what_it_drops_did(found, threshold, limit, draw):
    scores = np.array([draw.random() for _ in found], np.float32)
    kept = nms(found, scores, iou_threshold=threshold, limit=limit)
    assert 1 <= len(kept) <= limit
    assert kept[0] == scores.argmax()
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = iou(found, found)
    for i, a in enumerate(kept):
        assert all(overlaps[a, b] <= threshold + 1e-4 for b in kept[i + 1 :])
    if len(kept) < limit:
        for other in set(range(len(found))) - set(kept.tolist()):
            assert any(overlaps[other, k] >= threshold - 1e-4 and scores[k] >= scores[other] for k in kept)


@given(hnp.arrays(np.float32, st.tuples(st.integers(2, 8), st.just(4)), elements=coordinate))
def test_equal_scores_keep_their_order(found):
    kept = nms(found, np.ones(len(found), np.float32), iou_threshold=0.5, limit=100)
    assert kept.tolist() == sorted(kept.tolist())


@given(boxes(), st.floats(0.1, 0.9), st.randoms(use_true_random=False))
def test_suppressing_what_is_left_changes_nothing(found, threshold, draw):
    scores = np.array([draw.random() for _ in found], np.float32)
    kept = nms(found, scores, iou_threshold=threshold, limit=100)
    again = nms(found[kept], scores[kept], iou_threshold=threshold, limit=100)
    assert again.tolist() == list(range(len(kept)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_limit_holds_for_any_number_of_boxes(count):
    apart = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(count)], np.float32)
    for limit in range(1, 7):
        kept = nms(apart, np.ones(count, np.float32), iou_threshold=0.5, limit=limit)
        assert kept.tolist() == list(range(min(limit, count)))


def test_nothing_in_nothing_out():
    assert len(nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), iou_threshold=0.5, limit=5)) == 0
