"""Detection metrics as the field computes them, with bootstrap intervals.

Matching and average precision follow COCO (pycocotools); precision, recall and F1 are means over classes at the one
confidence where mean F1 is greatest. Intervals resample pictures.

face_recall   share of faces that a box of the device's confidence overlaps by half, whatever it calls them: a pipeline
              loses the others. Its threshold is the spec's and does not move from one network to the other.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edge_quantize.data import LabelledPicture, is_labelled, read_labelled, read_pictures
from edge_quantize.metrics.base import Evaluator, first_answer
from edge_quantize.report import Floats, Progress, Report, Sample, with_intervals
from edge_sdk.boxes import iou, nms
from edge_sdk.errors import MissingDependency
from edge_sdk.image import Image, LetterboxTransform
from edge_sdk.target import Session
from edge_sdk.tasks import Task
from edge_sdk.tasks.detection import DetectionTask, side_distances, sigmoid
from edge_sdk.tensors import Array, Tensors

METRICS: tuple[str, ...] = ("map50", "map50_95", "precision", "recall", "f1", "accuracy", "face_recall")
GATED: tuple[str, ...] = ("map50", "map50_95", "accuracy", "face_recall")
"""Not those at the confidence where mean F1 is greatest, which moves from one network to the other."""

LOWEST_CONFIDENCE = 0.001
SUPPRESSION_IOU = 0.7
MAX_DETECTIONS = 100
THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_CONFIDENCES = np.linspace(0, 1, 1001)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Every box of one picture that could count, whatever its confidence.

    Attributes:
        boxes: (N, 4) x1, y1, x2, y2 in frame pixels.
        scores: (N,) 0..1.
        classes: (N,) indices into the labels.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


def rank(task: DetectionTask, tensors: Tensors, transform: LetterboxTransform) -> Ranked:
    """Candidates for mean average precision: multi-label, suppressed within each class.

    The device reports one class per face instead; its ``postprocess`` suppresses across classes.
    """
    boxes, logits, _ = task.candidates(tensors, LOWEST_CONFIDENCE)
    scores = sigmoid(logits)
    kept: list[tuple[Any, Any, int]] = []
    for label in range(scores.shape[1]):
        rows = np.flatnonzero(scores[:, label] >= LOWEST_CONFIDENCE)
        chosen = rows[
            nms(boxes[rows], scores[rows, label], iou_threshold=SUPPRESSION_IOU, limit=MAX_DETECTIONS)
        ]
        kept.append((boxes[chosen], scores[chosen, label], label))
    return Ranked(
        boxes=transform.to_frame(np.concatenate([b for b, _, _ in kept])),
        scores=np.concatenate([s for _, s, _ in kept]),
        classes=np.concatenate([np.full(len(s), label, np.int64) for _, s, label in kept]),
    )


def answers(
    session: Session,
    task: DetectionTask,
    items: Sequence[LabelledPicture],
    progress: Progress = lambda done, total: None,
) -> tuple[list[Ranked], list[npt.NDArray[np.float64]]]:
    """Run a session over labelled pictures.

    Args:
        session: the loaded network.
        task: makes its inputs and reads its outputs.
        items: pictures with any number of faces.
        progress: called after each picture.

    Returns:
        For each picture, the ranked boxes and the true ones, (N, 4) x1, y1, x2, y2 in frame pixels.
    """
    ranked, truths = [], []
    for done, (item, image) in enumerate(read_pictures(items)):
        inputs, transform = task.preprocess(image)
        ranked.append(rank(task, first_answer(session, task.spec, inputs), transform))
        height, width = image.shape[:2]
        truths.append(item.boxes * (width, height, width, height))
        progress(done + 1, len(items))
    return ranked, truths


def evaluate(
    ranked: Sequence[Ranked],
    truths: Sequence[npt.NDArray[np.float64]],
    classes: Sequence[npt.NDArray[np.int64]],
    labels: Sequence[str],
    *,
    confidence: float | None = None,
    seed: int = 0,
) -> Report:
    """Compare answers with the truth.

    Args:
        ranked: one per picture.
        truths: per picture, (N, 4) x1, y1, x2, y2 in frame pixels.
        classes: per picture, (N,) indices into the labels.
        labels: class names.
        confidence: from which on the device reports a face; None takes where mean F1 is greatest.
        seed: of the bootstrap.
    """
    matches = [matches_of(ranked, truths, classes, label) for label in range(len(labels))]
    everything = np.ones(len(ranked))
    point = _figures(matches, everything)
    reported = point["confidence"] if confidence is None else confidence
    confusion, right, found = _confusion(ranked, truths, classes, len(labels), reported)
    faces = np.array([len(c) for c in classes], float)

    def shares(weights: Floats) -> dict[str, float]:
        every = max(1.0, (faces * weights).sum())
        return {"accuracy": (right * weights).sum() / every, "face_recall": (found * weights).sum() / every}

    def figures(weights: Floats) -> dict[str, float]:
        return {**_figures(matches, weights, point["confidence"]), **shares(weights)}

    def gated(weights: Floats, names: Collection[str]) -> dict[str, float]:
        some = shares(weights)
        present = [m for m in matches if (m.faces * weights).sum() > 0]
        for name, thresholds in (("map50", 1), ("map50_95", len(THRESHOLDS))):
            if name in names:
                every = [_average_precision(m, weights, t) for m in present for t in range(thresholds)]
                some[name] = float(np.mean(every))
        return {name: some[name] for name in names}

    point |= shares(everything)

    metrics = with_intervals(point, figures, len(ranked), seed)
    del metrics["confidence"]
    per_class = {
        label: {"ap50": _average_precision(m, everything, 0), "faces": float(m.faces.sum())}
        for label, m in zip(labels, matches, strict=True)
    }
    counts = dict.fromkeys(GATED, len(ranked))
    return Report(
        metrics,
        per_class,
        confusion.tolist(),
        best_confidence=float(point["confidence"]),
        sample=Sample(gated, counts, ("",) * len(ranked)),
    )


@dataclass(frozen=True, slots=True)
class Matches:
    """One class over all pictures, detections best first."""

    picture: npt.NDArray[np.int64]
    score: Floats
    hit: npt.NDArray[np.bool_]
    """(len(THRESHOLDS), detections)."""
    faces: Floats
    """(pictures,) true faces of the class."""


def matches_of(
    ranked: Sequence[Ranked],
    truths: Sequence[npt.NDArray[np.float64]],
    classes: Sequence[npt.NDArray[np.int64]],
    label: int,
) -> Matches:
    """Match by COCO's rules, through pycocotools."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingDependency(
            "pycocotools is not installed", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    annotations: list[dict[str, Any]] = []
    rows: list[npt.NDArray[np.float64]] = []
    for picture, (found, boxes, which) in enumerate(zip(ranked, truths, classes, strict=True)):
        for x1, y1, x2, y2 in boxes[which == label].tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture,
                    "category_id": 0,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
        mine = found.classes == label
        corner, size = found.boxes[mine, :2], found.boxes[mine, 2:] - found.boxes[mine, :2]
        ids, zero = np.full((mine.sum(), 1), picture), np.zeros((mine.sum(), 1))
        rows.append(np.hstack((ids, corner, size, found.scores[mine, None], zero)))
    faces = np.array([(c == label).sum() for c in classes], float)
    table = np.concatenate(rows).astype(np.float64)
    if not len(table) or not annotations:
        order = np.argsort(-table[:, 5], kind="stable")
        return Matches(
            table[order, 0].astype(np.int64),
            table[order, 5],
            np.zeros((len(THRESHOLDS), len(table)), bool),
            faces,
        )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(ranked))],
            "annotations": annotations,
            "categories": [{"id": 0}],
        }
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(table), "bbox")
        run.params.iouThrs = THRESHOLDS
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.params.maxDets = [MAX_DETECTIONS]
        run.evaluate()
    entries = [e for e in run.evalImgs if e is not None]
    score = np.concatenate([e["dtScores"] for e in entries])
    order = np.argsort(-score, kind="stable")
    return Matches(
        picture=np.concatenate([np.full(len(e["dtScores"]), e["image_id"]) for e in entries])[order],
        score=score[order],
        hit=np.concatenate([e["dtMatches"] > 0 for e in entries], axis=1)[:, order],
        faces=faces,
    )


def _average_precision(m: Matches, weights: Floats, threshold: int) -> float:
    """COCO's 101-point average precision with each picture counted ``weights`` times; NaN without faces."""
    faces = (m.faces * weights).sum()
    if faces == 0:
        return float("nan")
    each = weights[m.picture]
    hits = np.cumsum(m.hit[threshold] * each)
    total = np.cumsum(each)
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / faces, _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[at.clip(max=len(envelope))].mean())


def _figures(
    matches: Sequence[Matches], weights: Floats, confidence: float | None = None
) -> dict[str, float]:
    """All curve-based figures; at ``confidence``, or where mean F1 is greatest."""
    present = [m for m in matches if (m.faces * weights).sum() > 0]
    curves = np.array([_precision_recall(m, weights) for m in present]).reshape(-1, 2, len(_CONFIDENCES))
    precision, recall = curves.mean(0) if len(curves) else np.zeros((2, len(_CONFIDENCES)))
    total = curves.sum(1)
    f1 = np.divide(2 * curves[:, 0] * curves[:, 1], total, out=np.zeros_like(total), where=total > 0)
    mean_f1 = f1.mean(0) if len(curves) else np.zeros(len(_CONFIDENCES))
    at = int(mean_f1.argmax()) if confidence is None else round(confidence * 1000)
    ap = np.array(
        [[_average_precision(m, weights, t) for t in range(len(THRESHOLDS))] for m in present]
    ).reshape(-1, len(THRESHOLDS))
    return {
        "map50": float(ap[:, 0].mean()) if len(ap) else 0.0,
        "map50_95": float(ap.mean()) if len(ap) else 0.0,
        "precision": float(precision[at]),
        "recall": float(recall[at]),
        "f1": float(mean_f1[at]),
        "confidence": float(_CONFIDENCES[at]),
    }


def _precision_recall(m: Matches, weights: Floats) -> Floats:
    """(2, len(_CONFIDENCES)) precision and recall at IoU 0.5 of the detections above each confidence."""
    each = weights[m.picture]
    hits = np.append(0.0, np.cumsum(m.hit[0] * each))
    total = np.append(0.0, np.cumsum(each))
    above = np.searchsorted(-m.score, -_CONFIDENCES, side="right")
    precision = np.divide(hits[above], total[above], out=np.zeros(len(above)), where=total[above] > 0)
    return np.array((precision, hits[above] / (m.faces * weights).sum()))


def _confusion(
    ranked: Sequence[Ranked],
    truths: Sequence[npt.NDArray[np.float64]],
    classes: Sequence[npt.NDArray[np.int64]],
    count: int,
    confidence: float,
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Class of the best-scored box that overlaps each face by half; (pictures,) right answers, and faces reported."""
    confusion = np.zeros((count, count + 1), np.int64)
    right, reported = np.zeros(len(ranked)), np.zeros(len(ranked))
    for picture, (found, boxes, which) in enumerate(zip(ranked, truths, classes, strict=True)):
        overlaps = iou(boxes.astype(np.float32), found.boxes) >= 0.5
        for face, label in enumerate(which.tolist()):
            scores = np.where(overlaps[face], found.scores, 0)
            answer = int(found.classes[scores.argmax()]) if scores.any() else count
            confusion[label, answer] += 1
            right[picture] += answer == label
            reported[picture] += scores.any() and scores.max() >= confidence
    return confusion, right, reported


class DetectionEvaluator:
    """See :class:`edge_quantize.metrics.base.Evaluator`."""

    metrics = METRICS
    gated = GATED
    class_means = frozenset(("map50", "map50_95"))

    def is_labelled(self, folder: Path, labels: Sequence[str]) -> bool:
        """YOLO layout, or class folders of pictures that are one face each."""
        return is_labelled(folder, labels)

    def read_labelled(self, folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
        """YOLO layout, or class folders of pictures that are one face each."""
        return read_labelled(folder, labels)

    def examine(
        self,
        session: Session,
        task: Task,
        items: Sequence[LabelledPicture],
        progress: Progress = lambda done, total: None,
    ) -> Report:
        """Measure which faces are found, how exactly, and named rightly."""
        detector = _detector(task)
        ranked, truths = answers(session, detector, items, progress)
        classes = [item.classes for item in items]
        confidence = detector.head.confidence
        return evaluate(ranked, truths, classes, task.spec.labels, confidence=confidence)

    def calibration_inputs(
        self, task: Task, item: LabelledPicture, image: Image, reference: Session
    ) -> tuple[Tensors, list[float]]:
        """The letterboxed picture, and the sides of the faces that the float network finds, in canvas pixels."""
        detector = _detector(task)
        inputs, transform = detector.preprocess(image)
        found = detector.postprocess(first_answer(reference, task.spec, inputs), transform)
        boxes = transform.to_canvas(found.boxes)
        return inputs, np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).tolist()

    def answered(self, task: Task, outputs: Tensors) -> dict[str, Array]:
        """What the maps say of every cell.

        Returns:
            ``scores``: probabilities, (N, cells, classes). ``boxes``: the distances of the boxes' sides from the cells'
            centres in canvas pixels, (N, cells, 4), times the cell's greatest score: what a map says where no face is
            reaches nobody.
        """
        head = _detector(task).head
        scores, boxes = [], []
        for stride in head.strides:
            logits, sides = outputs[f"cls{stride}"], outputs[f"box{stride}"]
            score = sigmoid(logits.reshape(len(logits), -1, len(head.labels)).astype(np.float32))
            # A copy: the distances are computed in place.
            bins = sides.reshape(*score.shape[:2], 4, head.bins).astype(np.float32, copy=True)
            scores.append(score)
            boxes.append(side_distances(bins) * stride * score.max(2, keepdims=True))
        return {"scores": np.concatenate(scores, 1), "boxes": np.concatenate(boxes, 1)}


def _detector(task: Task) -> DetectionTask:
    return cast(DetectionTask, task)  # which a head of this kind comes with


EVALUATOR: Evaluator = DetectionEvaluator()
