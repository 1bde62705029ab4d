"""The assigner and the loss against cases worked out by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_training.losses import (  # noqa: E402
    DetectionLoss,
    anchor_points,
    assign,
    ciou,
    decode_boxes,
    distribution_focal,
)
from edge_training.networks.yolo import REG_MAX  # noqa: E402


def test_anchor_points_are_cell_centres_in_canvas_pixels():
    points, strides = anchor_points([(1, 2), (1, 1), (1, 1)], torch.device("cpu"))
    assert points.tolist() == [[4, 4], [12, 4], [8, 8], [16, 16]]
    assert strides.tolist() == [8, 8, 16, 32]


def test_decoding_takes_the_expectation_of_each_side():
    sides = torch.full((1, 1, 4, REG_MAX), -50.0)
    for side, (low, high) in enumerate(((1, 2), (2, 2), (3, 4), (0, 0))):
        sides[0, 0, side, low] = sides[0, 0, side, high] = 0.0
    boxes = decode_boxes(sides.flatten(2), torch.tensor([[20.0, 40.0]]), torch.tensor([8.0]))
    # left 1.5, top 2, right 3.5, bottom 0 strides of 8 pixels from (20, 40)
    assert boxes[0, 0].tolist() == pytest.approx([8, 24, 48, 40], abs=1e-4)


def test_ciou_of_equal_boxes_is_one():
    box = torch.tensor([3.0, 4.0, 13.0, 24.0])
    assert ciou(box, box).item() == pytest.approx(1, abs=1e-5)


def test_ciou_of_shifted_squares_by_hand():
    a, b = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 3.0, 2.0])
    # IoU 2/6; centres 1 apart, enclosing box 3x2: diagonal 13; same aspect: no third term.
    assert ciou(a, b).item() == pytest.approx(1 / 3 - 1 / 13, abs=1e-5)


def test_ciou_of_different_aspects_by_hand():
    a, b = torch.tensor([0.0, 0.0, 4.0, 2.0]), torch.tensor([0.0, 0.0, 2.0, 4.0])
    iou = 4 / 12
    v = 4 / math.pi**2 * (math.atan(1 / 2) - math.atan(2)) ** 2
    expected = iou - 2 / 32 - v * v / (v - iou + 1)  # centres (2,1) and (1,2); enclosing box 4x4
    assert ciou(a, b).item() == pytest.approx(expected, abs=1e-5)


def _grid_case(scores, boxes, faces, classes, present=None, **options):
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [4.0, 12.0], [12.0, 12.0]])
    faces = torch.tensor([faces])
    present = torch.ones(faces.shape[:2], dtype=torch.bool) if present is None else torch.tensor([present])
    return assign(
        torch.tensor([scores]),
        torch.tensor([boxes]),
        points,
        faces,
        torch.tensor([classes]),
        present,
        **options,
    )


FACE = [0.0, 0.0, 16.0, 16.0]
HALF = [0.0, 0.0, 16.0, 8.0]


def test_assigner_takes_the_best_aligned_anchors():
    scores = [[0.9], [0.9], [0.1], [0.9]]
    boxes = [FACE, HALF, FACE, [0.0, 0.0, 4.0, 4.0]]
    found = _grid_case(scores, boxes, [FACE], [[1.0]], top=2)
    # Alignment score**0.5 * overlap**6: anchor 0 has 0.95, anchor 2 has 0.32, the others' overlap is far below 1.
    assert found.positive[0].tolist() == [True, False, True, False]


def test_assigner_scales_targets_to_the_best_overlap():
    scores = [[0.64], [0.04], [0.01], [0.01]]
    boxes = [FACE, FACE, HALF, HALF]
    found = _grid_case(scores, boxes, [FACE], [[1.0]], top=2)
    # Alignments 0.8 and 0.2 with overlap 1: the best gets 1, the other 0.2 / 0.8.
    assert found.scores[0, :, 0].tolist() == pytest.approx([1, 0.25, 0, 0], abs=1e-4)


def test_assigner_ignores_anchors_outside_the_face():
    small = [0.0, 0.0, 8.0, 8.0]
    found = _grid_case([[0.9]] * 4, [small] * 4, [small], [[1.0]])
    assert found.positive[0].tolist() == [True, False, False, False]


def test_an_anchor_wanted_twice_goes_to_the_face_it_overlaps_most():
    other = [0.0, 0.0, 16.0, 15.0]
    found = _grid_case([[0.5]] * 4, [FACE, other, FACE, other], [FACE, other], [[1.0], [1.0]])
    assert found.positive[0].all()
    assert found.boxes[0].tolist() == [FACE, other, FACE, other]


def test_padding_faces_get_no_anchor():
    found = _grid_case([[0.5]] * 4, [FACE] * 4, [FACE, FACE], [[1.0], [1.0]], present=[False, False])
    assert not found.positive.any()
    assert found.scores.sum() == 0


def test_soft_classes_are_spread_and_their_mode_selects_the_score():
    found = _grid_case(
        [[0.1, 0.9], [0.9, 0.1], [0.1, 0.1], [0.1, 0.1]], [FACE] * 4, [FACE], [[0.25, 0.75]], top=1
    )
    assert found.positive[0].tolist() == [True, False, False, False]
    assert found.scores[0, 0].tolist() == pytest.approx([0.25, 0.75], abs=1e-4)


def test_distribution_focal_loss_by_hand():
    logits = torch.zeros(1, 4 * REG_MAX)
    # Uniform over 16 bins: cross entropy is log 16 whatever the target.
    assert distribution_focal(logits, torch.tensor([[2.3, 0.0, 7.5, 14.0]])).item() == pytest.approx(
        math.log(16)
    )
    sharp = torch.full((1, 4, REG_MAX), -50.0)
    sharp[0, :, 2], sharp[0, :, 3] = math.log(0.7), math.log(0.3)
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    assert distribution_focal(sharp.flatten(1), torch.full((1, 4), 2.3)).item() == pytest.approx(
        entropy, abs=1e-4
    )


def _maps(classes=2):
    boxes = [torch.zeros(1, 4 * REG_MAX, s, s, requires_grad=True) for s in (4, 2, 1)]
    scores = [torch.zeros(1, classes, s, s, requires_grad=True) for s in (4, 2, 1)]
    return boxes, scores


def test_class_loss_without_faces_is_the_entropy_of_all_cells():
    maps = _maps()
    nothing = torch.zeros(1, 1, 4), torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.bool)
    loss, parts = DetectionLoss()(maps, *nothing)
    # 21 cells x 2 classes at probability 0.5 against target 0, gain 0.5.
    assert parts["cls"] == pytest.approx(42 * math.log(2), rel=1e-5)
    assert loss.item() == pytest.approx(0.5 * 42 * math.log(2), rel=1e-5)
    loss.backward()


def test_gains_weigh_the_parts():
    face = (
        torch.tensor([[[4.0, 4.0, 28.0, 28.0]]]),
        torch.tensor([[[1.0, 0.0]]]),
        torch.ones(1, 1, dtype=torch.bool),
    )
    loss, parts = DetectionLoss()(_maps(), *face)
    assert loss.item() == pytest.approx(
        7.5 * parts["box"] + 0.5 * parts["cls"] + 1.5 * parts["dfl"], rel=1e-5
    )
    assert min(parts.values()) > 0
    more, _ = DetectionLoss(expression_gain=2.0)(_maps(), *face)
    assert more.item() == pytest.approx(loss.item() + 2 * parts["exp"], rel=1e-5)


def test_the_expression_loss_of_equal_logits_is_the_entropy_of_a_guess():
    # With one face whose best overlap is near 1 the targets sum to more than 1, so the mean is exact.
    boxes, scores = _maps()
    with torch.no_grad():
        for b in boxes:
            b.view(1, 4, REG_MAX, *b.shape[2:])[:, :, 1] = 9.0  # every anchor reaches one stride to each side
    face = (
        torch.tensor([[[0.0, 0.0, 32.0, 32.0]]]),
        torch.tensor([[[1.0, 0.0]]]),
        torch.ones(1, 1, dtype=torch.bool),
    )
    _, parts = DetectionLoss()((boxes, scores), *face)
    assert 0 < parts["exp"] <= math.log(2) + 1e-5


def test_a_few_steps_learn_one_face():
    torch.manual_seed(0)
    boxes, scores = _maps()
    optimizer = torch.optim.Adam([*boxes, *scores], lr=0.3)
    true = torch.tensor([[[4.0, 6.0, 28.0, 26.0]]])
    face = true, torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, dtype=torch.bool)
    for _ in range(150):
        loss, _ = DetectionLoss()((boxes, scores), *face)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    points, strides = anchor_points([(4, 4), (2, 2), (1, 1)], torch.device("cpu"))
    flat = torch.cat([m.flatten(2) for m in boxes], 2).transpose(1, 2)
    logits = torch.cat([m.flatten(2) for m in scores], 2)[0]
    best = logits[0].argmax()
    found = decode_boxes(flat, points, strides)[0, best]
    assert found.tolist() == pytest.approx(true[0, 0].tolist(), abs=1.0)
    assert logits[0, best] > 0 > logits[1, best]
