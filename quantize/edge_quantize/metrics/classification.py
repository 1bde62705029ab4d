"""Classification metrics with bootstrap intervals.

accuracy   share of right answers.
macro_f1   mean of the classes' F1: a rare class counts as much as a common one.
uar        unweighted average recall, the mean of the classes' recalls (also: balanced accuracy).

Means are over the classes that the set holds; the same as scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_quantize.data import LabelledPicture, is_labelled, read_labelled, read_pictures
from edge_quantize.metrics.base import Evaluator, box_of, face_inputs, first_answer
from edge_quantize.report import Floats, Progress, Report, Sample, with_intervals
from edge_sdk.errors import InputError, MissingDependency
from edge_sdk.image import Image
from edge_sdk.per_face import LOGITS, softmax
from edge_sdk.target import Session
from edge_sdk.tasks import Task
from edge_sdk.tensors import Array, Tensors

METRICS: tuple[str, ...] = ("accuracy", "macro_f1", "uar")
"""What is measured, all of which a gate can limit."""


def answers(
    session: Session,
    task: Task,
    items: Sequence[LabelledPicture],
    progress: Progress = lambda done, total: None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Run a session over labelled faces.

    Args:
        session: the loaded network.
        task: makes its inputs and reads its outputs.
        items: pictures of one face each.
        progress: called after each picture.

    Returns:
        (N,) answered and (N,) true class of each face; a face that is a whole picture is one crop, as it is.

    Raises:
        InputError: a picture shows several faces, or none.
    """
    answered, truth = [], []
    for done, (item, image) in enumerate(read_pictures(items)):
        if len(item.classes) != 1:
            raise InputError(
                f"{item.path} shows {len(item.classes)} faces, a classifier is measured on one per picture",
                remedy="give DIR/LABEL/*.png crops",
            )
        inputs, _ = task.preprocess(image, "rgb", box_of(item, image))
        answered.append(int(first_answer(session, task.spec, inputs)[LOGITS].argmax()))
        truth.append(int(item.classes[0]))
        progress(done + 1, len(items))
    return np.array(answered, np.int64), np.array(truth, np.int64)


def evaluate(
    answered: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], labels: Sequence[str], *, seed: int = 0
) -> Report:
    """Compare answers with the truth.

    Args:
        answered: (N,) class indices.
        truth: (N,) class indices.
        labels: class names.
        seed: of the bootstrap.
    """
    sklearn = sklearn_metrics()
    classes = np.arange(len(labels))
    present = np.unique(truth)

    def figures(weights: Floats, names: Collection[str] = METRICS) -> dict[str, float]:
        # scikit-learn takes a hundred times as long: too long for a thousand resamples.
        cells = np.bincount(truth * len(labels) + answered, weights, len(labels) ** 2)
        confusion = cells.reshape(len(labels), len(labels))[present]
        right, true, said = confusion[np.arange(len(present)), present], confusion.sum(1), confusion.sum(0)
        drawn = true > 0  # a resample without a class says nothing of it
        found = {
            "accuracy": right.sum() / true.sum(),
            "macro_f1": (2 * right[drawn] / (true + said[present])[drawn]).mean(),
            "uar": (right[drawn] / true[drawn]).mean(),
        }
        return {name: float(found[name]) for name in names}

    recalls = sklearn.recall_score(truth, answered, labels=classes, average=None, zero_division=np.nan)
    faces = np.bincount(truth, minlength=len(labels))
    return Report(
        metrics=with_intervals(figures(np.ones(len(truth))), figures, len(truth), seed),
        per_class={
            label: {"recall": float(recall), "faces": float(count)}
            for label, recall, count in zip(labels, recalls, faces, strict=True)
        },
        confusion=sklearn.confusion_matrix(truth, answered, labels=classes).tolist(),
        sample=Sample(figures, dict.fromkeys(METRICS, len(truth)), ("",) * len(truth)),
    )


def sklearn_metrics() -> Any:
    """The module ``sklearn.metrics``.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn import metrics
    except ImportError as error:
        raise MissingDependency(
            "scikit-learn is not installed", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    return metrics


class ClassificationEvaluator:
    """See :class:`edge_quantize.metrics.base.Evaluator`."""

    metrics = METRICS
    gated = METRICS
    class_means = frozenset(("macro_f1", "uar"))

    def is_labelled(self, folder: Path, labels: Sequence[str]) -> bool:
        """Class folders or YOLO layout."""
        return is_labelled(folder, labels)

    def read_labelled(self, folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
        """Class folders or YOLO layout."""
        return read_labelled(folder, labels)

    def examine(
        self,
        session: Session,
        task: Task,
        items: Sequence[LabelledPicture],
        progress: Progress = lambda done, total: None,
    ) -> Report:
        """Measure how often each class is named rightly."""
        return evaluate(*answers(session, task, items, progress), task.spec.labels)

    def calibration_inputs(
        self, task: Task, item: LabelledPicture, image: Image, reference: Session
    ) -> tuple[Tensors, list[float]]:
        """The face's crop, and the shorter side of its box."""
        return face_inputs(task, item, image)

    def answered(self, task: Task, outputs: Tensors) -> dict[str, Array]:
        """``scores``: probabilities, (N, classes)."""
        return {"scores": softmax(outputs[LOGITS].reshape(-1, len(task.spec.labels)).astype(np.float32))}


EVALUATOR: Evaluator = ClassificationEvaluator()
