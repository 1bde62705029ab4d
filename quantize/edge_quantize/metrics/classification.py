"""Classification metrics with bootstrap intervals.

accuracy   share of right answers.
macro_f1   mean of the classes' F1: a rare class counts as much as a common one.
uar        unweighted average recall, the mean of the classes' recalls (also: balanced accuracy).

Means are over the classes that the set holds; the same as scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_quantize.data import LabelledPicture, read_pictures
from edge_quantize.report import GATED, METRICS, Floats, Progress, Report, Sample, with_intervals
from edge_sdk.errors import InputError, MissingDependency
from edge_sdk.image import Image
from edge_sdk.target import Session
from edge_sdk.tasks import ClassificationTask


def answers(
    session: Session,
    task: ClassificationTask,
    items: Sequence[LabelledPicture],
    progress: Progress = lambda done, total: None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Run a session over labelled faces.

    Returns:
        (N,) answered and (N,) true class of each face; a face that is a whole picture is one crop, as it is.
    """
    answered, truth = [], []
    for done, (item, image) in enumerate(read_pictures(items)):
        if len(item.classes) != 1:
            raise InputError(
                f"{item.path} shows {len(item.classes)} faces, a classifier is measured on one a picture",
                remedy="give DIR/LABEL/*.png crops",
            )
        pixels, _ = task.preprocess(image, "rgb", box_of(item, image))
        answered.append(int(task.logits(session.infer(pixels)).argmax()))
        truth.append(int(item.classes[0]))
        progress(done + 1, len(items))
    return np.array(answered, np.int64), np.array(truth, np.int64)


def box_of(item: LabelledPicture, image: Image) -> npt.NDArray[np.float32] | None:
    """(4,) of the one face in frame pixels; None for a picture that is the crop itself."""
    height, width = image.shape[:2]
    (fractions,) = item.boxes
    if (fractions == (0, 0, 1, 1)).all():
        return None
    box: npt.NDArray[np.float32] = (fractions * (width, height, width, height)).astype(np.float32)
    return box


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

    def figures(weights: Floats, names: Collection[str] = METRICS["classification"]) -> dict[str, float]:
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
        sample=Sample(figures, dict.fromkeys(GATED["classification"], len(truth)), ("",) * len(truth)),
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
