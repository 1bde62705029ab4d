import contextlib
import io

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="host tool not installed")
pytest.importorskip("cv2", reason="OpenCV is not installed")

from edge_quantize.metrics import detection
from edge_quantize.metrics.detection import Ranked, evaluate

LABELS = ("a", "b", "c")


def ranked(*rows):
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Ranked(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def random_case(seed, pictures=60):
    """Some faces found well, some badly, some as another class, and false alarms."""
    rng = np.random.default_rng(seed)
    found, truths, classes = [], [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 4))
        corner = rng.uniform(0, 200, (count, 2))
        boxes = np.hstack((corner, corner + rng.uniform(20, 80, (count, 2))))
        which = rng.integers(0, 3, count)
        rows = []
        for box, label in zip(boxes, which, strict=True):
            for _ in range(int(rng.integers(0, 3))):
                answer = label if rng.random() < 0.7 else rng.integers(0, 3)
                rows.append((*(box + rng.normal(0, 4, 4)), rng.uniform(0.1, 1), answer))
        for _ in range(int(rng.integers(0, 3))):
            x, y = rng.uniform(0, 200, 2)
            rows.append((x, y, x + 40, y + 40, rng.uniform(0, 0.6), rng.integers(0, 3)))
        found.append(ranked(*rows))
        truths.append(boxes)
        classes.append(which)
    return found, truths, classes


def by_pycocotools(found, truths, classes):
    """mAP50 and mAP50-95 as COCO's own accumulate computes them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, rows = [], []
    for i, (boxes, which, f) in enumerate(zip(truths, classes, found, strict=True)):
        for (x1, y1, x2, y2), label in zip(boxes, which, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
        for (x1, y1, x2, y2), score, label in zip(f.boxes.astype(float), f.scores, f.classes, strict=True):
            rows.append((i, x1, y1, x2 - x1, y2 - y1, float(score), int(label)))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(found))],
            "annotations": annotations,
            "categories": [{"id": i} for i in range(3)],
        }
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(np.array(rows)), "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, 2]
    return precision[0].mean(), precision.mean()


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_cocos_own(seed):
    case = random_case(seed)
    report = evaluate(*case, LABELS)
    map50, map50_95 = by_pycocotools(*case)
    assert report.metrics["map50"].value == pytest.approx(map50, abs=1e-9)
    assert report.metrics["map50_95"].value == pytest.approx(map50_95, abs=1e-9)
    assert 0.05 < map50 < 0.95


BOX = (10.0, 10.0, 50.0, 50.0)
FAR = (100.0, 100.0, 140.0, 140.0)


def test_a_small_case_by_hand():
    found = [
        ranked((*BOX, 0.9, 0)),  # right
        ranked((*BOX, 0.8, 1)),  # right
        ranked((*BOX, 0.7, 0)),  # is b, called a
        ranked((*FAR, 0.6, 2)),  # is c, found elsewhere
    ]
    truths = [np.array([BOX])] * 4
    report = evaluate(found, truths, [np.array([c]) for c in (0, 1, 1, 2)], LABELS)
    # a: hit at 0.9, miss at 0.7: AP 1. b: one of two found: 51 of 101 recall points at precision 1. c: 0.
    assert report.per_class["a"]["ap50"] == pytest.approx(1)
    assert report.per_class["b"]["ap50"] == pytest.approx(51 / 101)
    assert report.per_class["c"]["ap50"] == 0
    assert report.metrics["map50"].value == pytest.approx((1 + 51 / 101) / 3)
    assert report.metrics["accuracy"].value == pytest.approx(2 / 4)
    assert report.confusion == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]
    # Best mean F1 is between 0.7 and 0.8: precision (1, 1, 0), recall (1, 0.5, 0).
    assert 0.7 < report.best_confidence <= 0.8
    assert report.metrics["precision"].value == pytest.approx(2 / 3)
    assert report.metrics["recall"].value == pytest.approx(1.5 / 3)
    assert report.metrics["f1"].value == pytest.approx((1 + 2 / 3) / 3)


def test_nothing_found_is_zero_and_no_error():
    report = evaluate([ranked()] * 2, [np.array([BOX])] * 2, [np.array([0]), np.array([1])], LABELS)
    assert {m.value for m in report.metrics.values()} == {0}
    assert report.confusion == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_swapped_labels_cost_everything():
    _, truths, classes = random_case(1)
    right = [
        ranked(*[(*b, 0.9, c) for b, c in zip(t, k, strict=True)])
        for t, k in zip(truths, classes, strict=True)
    ]
    turned = [Ranked(r.boxes, r.scores, (r.classes + 1) % 3) for r in right]
    assert evaluate(right, truths, classes, LABELS).metrics["map50"].value == pytest.approx(1)
    assert evaluate(turned, truths, classes, LABELS).metrics["map50"].value < 0.05


def test_intervals_contain_the_value_shrink_with_data_and_repeat():
    few, many = evaluate(*random_case(3, 30), LABELS), evaluate(*random_case(3, 300), LABELS)
    for report in (few, many):
        for name in ("map50", "accuracy"):
            metric = report.metrics[name]
            assert metric.low <= metric.value <= metric.high
    width = [r.metrics["accuracy"].high - r.metrics["accuracy"].low for r in (few, many)]
    assert width[1] < width[0]
    assert evaluate(*random_case(3, 30), LABELS) == few


def test_ranking_is_multi_label_and_suppresses_within_a_class_only():
    import toys

    from edge_sdk.tasks.detection import DetectionTask

    task = DetectionTask(toys.SPEC)
    image = np.full((64, 64, 3), 10, np.uint8)
    image[24:40, 16:32] = (200, 200, 0)  # red and green
    inputs, transform = task.preprocess(image)
    found = detection.rank(task, toys.engine(inputs["pixels"]), transform)
    best = [found.scores[found.classes == c].max() for c in (0, 1)]
    assert best[0] == pytest.approx(best[1], rel=1e-4)
    assert (found.scores >= detection.LOWEST_CONFIDENCE).all()


def test_what_no_face_is_near_is_no_harm():
    import toys

    from edge_sdk.tasks import task_of

    rng = np.random.default_rng(0)
    shape = {t.name: (4, *t.shape[1:]) for t in toys.SPEC.outputs}
    truth = {
        n: rng.normal(-9 if n.startswith("cls") else 0, 1, s).astype(np.float32) for n, s in shape.items()
    }
    truth["cls8"][:, 0, 0] = 2.0

    def harm(name, where):
        noisy = {n: v.copy() for n, v in truth.items()}
        noisy[name][where] += 1.0
        task = task_of(toys.SPEC)
        wanted, found = (detection.EVALUATOR.answered(task, maps) for maps in (truth, noisy))
        return sum(float(np.square(wanted[k] - found[k]).sum()) for k in wanted)

    face, nothing = np.s_[:, 0, 0, 0], np.s_[:, 1, 1, 0]
    assert harm("cls8", face) > 100 * harm("cls8", nothing)
    assert harm("box8", face) > 100 * harm("box8", nothing)
