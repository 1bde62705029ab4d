"""The face logit: network, loss, decode and suppression against cases worked out by hand."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError  # noqa: E402
from edge_training import checkpoint  # noqa: E402
from edge_training.data.fer2013 import Faces  # noqa: E402
from edge_training.data.probe_scenes import Asked  # noqa: E402
from edge_training.data.shards import Stored  # noqa: E402
from edge_training.expression_stability import changed, uar  # noqa: E402
from edge_training.face_loss import FaceDetectionLoss, FaceTruth  # noqa: E402
from edge_training.face_recall import Answers, confidence_for, false_boxes, recall, reliability  # noqa: E402
from edge_training.face_training import half, load_network  # noqa: E402
from edge_training.networks.face_yolo import FACE_DETECTORS  # noqa: E402
from edge_training.networks.yolo import YOLO11n  # noqa: E402
from edge_training.stages.face_decode import decode, found_by, suppress  # noqa: E402
from edge_training.stages.face_detector import ConstantThenDown, _changed, _targets  # noqa: E402


@pytest.mark.parametrize("name", ["yolo11n", "yolo12n"])
def test_maps_have_one_face_logit_per_cell(name):
    boxes, classes, faces = FACE_DETECTORS[name](7).eval()(torch.zeros(1, 3, 64, 96))
    for stride, b, c, f in zip((8, 16, 32), boxes, classes, faces, strict=True):
        cells = (64 // stride, 96 // stride)
        assert b.shape == (1, 64, *cells)
        assert c.shape == (1, 7, *cells)
        assert f.shape == (1, 1, *cells)


def test_it_starts_as_the_detector_it_is_given():
    torch.manual_seed(0)
    detector = YOLO11n(7).eval()
    network = FACE_DETECTORS["yolo11n"](7).eval()
    network.start_from(detector.state_dict())
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        (boxes, classes), (boxes2, classes2, _) = detector(picture), network(picture)
    for a, b in zip((*boxes, *classes), (*boxes2, *classes2), strict=True):
        assert torch.equal(a, b)


def _truth(boxes, *, present=True, ignored=False, weight=1.0, side=7):
    count = len(boxes)
    return FaceTruth(
        torch.tensor([boxes], dtype=torch.float32).reshape(1, count, 4),
        torch.full((1, count), present),
        torch.full((1, count), ignored),
        torch.eye(side)[:count][None],
        torch.full((1, count), weight),
    )


def _maps(face=-9.0):
    sizes = ((8, 8), (4, 4), (2, 2))
    boxes = [torch.zeros(1, 64, *s, requires_grad=True) for s in sizes]
    classes = [torch.zeros(1, 7, *s, requires_grad=True) for s in sizes]
    faces = [torch.full((1, 1, *s), face, requires_grad=True) for s in sizes]
    return boxes, classes, faces


def test_a_face_without_a_label_teaches_no_expression():
    maps = _maps()
    loss, parts = FaceDetectionLoss()(maps, _truth([[8, 8, 56, 56]], weight=0.0))
    loss.backward()
    assert parts["exp"] == 0
    assert all(not m.grad.any() for m in maps[1])
    assert any(m.grad.any() for m in maps[2])


def test_every_labelled_face_counts_alike_whatever_its_size():
    large, small = ([[0, 0, 64, 64]], [[16, 16, 32, 32]])
    for boxes in (large, small, large + small):
        _, parts = FaceDetectionLoss()(_maps(), _truth(boxes))
        assert parts["exp"] == pytest.approx(np.log(7), abs=1e-4)


def test_the_best_anchor_of_every_face_is_taught_one():
    """A logit of nine costs nothing there, and much everywhere else."""
    maps = _maps()
    loss_of = FaceDetectionLoss(box_gain=0, dfl_gain=0, expression_gain=0)
    before = loss_of(maps, _truth([[16, 16, 32, 32]]))[0]
    before.backward()
    gradients = torch.cat([m.grad.flatten() for m in maps[2]])
    total = 1.0  # of the best anchor; others of the face add less each
    assert gradients.min() <= -0.99 * total / max(1.0, float((gradients < 0).sum()))


def test_nothing_is_asked_where_a_face_is_ignored():
    boxes = [[0, 0, 64, 64]]
    asked, parts = FaceDetectionLoss()(_maps(face=3.0), _truth(boxes, present=False, ignored=True))
    denied, _ = FaceDetectionLoss()(_maps(face=3.0), _truth(boxes, present=False))
    assert parts["face"] == 0
    assert denied > asked


def test_a_batch_without_faces_still_reaches_every_parameter():
    maps = _maps()
    loss, _ = FaceDetectionLoss()(maps, _truth([[0, 0, 8, 8]], present=False))
    loss.backward()
    assert all(m.grad is not None for kind in maps for m in kind)


def _one_cell(face, cls, sides, *, stride=1, place=(1, 2)):
    """Maps of a 64-pixel canvas whose only face is at one cell."""
    sizes = ((8, 8), (4, 4), (2, 2))
    boxes = [np.zeros((64, *s), np.float32) for s in sizes]
    classes = [np.zeros((7, *s), np.float32) for s in sizes]
    faces = [np.full((1, *s), -9, np.float32) for s in sizes]
    y, x = place
    faces[stride][0, y, x] = face
    classes[stride][cls, y, x] = 3
    bins = np.full((4, 16), -60, np.float32)
    bins[np.arange(4), sides] = 0
    boxes[stride][:, y, x] = bins.reshape(-1)
    return boxes, classes, faces


def test_decoding_by_hand():
    found = decode(*_one_cell(2.0, 4, [1, 1, 1, 1]), confidence=0.5)
    # Stride 16, cell (2, 1): its centre is 40, 24; one stride to each side.
    assert found.boxes.tolist() == [[24, 8, 56, 40]]
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert found.probs[0].argmax() == 4
    assert found.probs[0].sum() == pytest.approx(1)


def test_nothing_below_the_confidence_is_decoded():
    found = decode(*_one_cell(-0.1, 4, [1, 1, 1, 1]), confidence=0.5)
    assert found.boxes.shape == (0, 4)
    assert found.probs.shape == (0, 7)


def test_suppression_knows_overlap_and_containment():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [-10, -10, 20, 25], [40, 40, 50, 50]], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert suppress(boxes, scores).tolist() == [0, 3]  # the head-and-shoulders box goes with the face's
    assert suppress(boxes, scores, inside=1.0).tolist() == [0, 2, 3]
    assert suppress(boxes, scores, limit=1).tolist() == [0]


def test_found_by_answers_every_picture():
    network = FACE_DETECTORS["yolo11n"](7)
    found = found_by(network, [np.zeros((64, 64, 3), np.uint8)] * 3, 0.9)
    assert [len(f.boxes) for f in found] == [0, 0, 0]


def test_weights_in_half_precision_come_back(tmp_path):
    torch.manual_seed(0)
    network = FACE_DETECTORS["yolo11n"](7).eval()
    path = tmp_path / "weights.safetensors"
    checkpoint.save(path, half(network.state_dict()), {})
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        a, b = network(picture)[2][0], load_network(path)(picture)[2][0]
    assert torch.allclose(a, b, atol=0.05)


def test_weights_without_a_face_logit_are_told(tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoint.save(path, YOLO11n(7).state_dict(), {})
    with pytest.raises(InputError, match="no face logit"):
        load_network(path)


def test_the_rate_is_constant_until_it_falls():
    schedule = ConstantThenDown(10, 1.0, warmup_epochs=1.0, decay_epochs=2)
    rates = [schedule.lr_at(step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)


def test_targets_mix_labels_and_votes_where_there_are_any():
    votes = np.zeros((2, 7), np.float32)
    votes[0, 3] = 1
    faces = Faces(np.zeros((2, 48, 48), np.uint8), np.array([0, 0]), votes, np.zeros(2, bool))
    mixed = _targets(faces, teacher=None, distil=0.0, votes=0.5)
    assert mixed.sum(1) == pytest.approx([1, 1])
    assert mixed[0, 3] == pytest.approx(0.5, abs=0.01)
    assert mixed[1].argmax() == 0


def test_a_window_of_a_scene_keeps_boxes_on_faces():
    image = np.zeros((128, 128, 3), np.uint8)
    image[40:60, 40:60] = 255
    scene = Stored(
        image,
        np.array([[40, 40, 60, 60]], np.float32),
        np.array([0]),
        np.array([-1]),
        np.ones(1, np.float32),
        np.zeros(1, bool),
    )
    seen = 0
    for seed in range(30):
        part = _changed(scene, 64, np.random.default_rng(seed))
        assert part.image.shape == (64, 64, 3)
        for (x1, y1, x2, y2), ignored in zip(part.boxes.astype(int).tolist(), part.ignored, strict=True):
            if not ignored:
                seen += 1
                assert part.image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].mean() > 100
    assert seen > 5


def _asked(*boxes, others=()):
    return Asked(
        np.zeros((64, 64, 3), np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(others, np.float32).reshape(-1, 4),
    )


def test_recall_and_false_boxes_by_hand():
    asked = [_asked([0, 0, 10, 10], [20, 20, 30, 30], others=[[40, 40, 50, 50]])]
    boxes = [np.array([[0, 0, 10, 9], [40, 40, 50, 52], [50, 0, 60, 10]], np.float32)]
    assert recall(asked, boxes) == 0.5
    assert false_boxes(asked, boxes) == 1  # the third is on nobody


def test_the_confidence_is_the_lowest_with_few_enough_false_boxes():
    asked = [_asked([0, 0, 10, 10])] * 10
    wrong, right = np.array([[30, 30, 40, 40]], np.float32), np.array([[0, 0, 10, 10]], np.float32)
    answers = Answers([np.concatenate((wrong, right))] * 10, [np.array([0.4, 0.9], np.float32)] * 10)
    empty = Answers([wrong] * 10, [np.array([0.6], np.float32)] * 10)
    nobody = Answers([wrong[:0]] * 10, [np.zeros(0, np.float32)] * 10)
    assert confidence_for(asked, answers, nobody) == pytest.approx(0.41, abs=0.011)
    assert confidence_for(asked, answers, empty) == pytest.approx(0.61, abs=0.011)


def test_reliability_compares_scores_with_faces():
    asked = [_asked([0, 0, 10, 10])] * 4
    on, off = np.array([[0, 0, 10, 10]], np.float32), np.array([[30, 30, 40, 40]], np.float32)
    answers = Answers([on, on, on, off], [np.array([0.75], np.float32)] * 4)
    assert reliability(asked, answers) == [{"score": 0.75, "faces": 0.75, "boxes": 4.0}]


def test_uar_and_changes_by_hand():
    labels = np.array([0, 0, 0, 1])
    assert uar(np.array([0, 0, 1, -1]), labels) == pytest.approx((2 / 3 + 0) / 2)
    by_size = {32: np.array([5, 5, 5, 5]), 64: np.array([0, 1, 2, -1]), 200: np.array([0, 1, 3, 4])}
    assert changed(by_size) == pytest.approx(1 / 3)  # 32 px is not judged, and -1 is not found
