"""What a model's card shows for each task: test sets, confusion, a curve, and tests without labels.

A new task adds a class here and its name to ``SECTIONS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge_quantize.data import LabelledPicture
from edge_quantize.metrics import classification, detection, liveness
from edge_quantize.report import Report
from edge_sdk.spec import ModelSpec
from edge_sdk.target import Session
from edge_sdk.tasks.classification import ClassificationTask
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.tasks.liveness import LivenessTask
from edge_training import robustness
from edge_training.data.augment import FACE_SIDES
from edge_training.data.unpack import unpack

Axes = Any
"""matplotlib's, which is imported where a picture is drawn."""


class Section(Protocol):
    """A task's part of a card.

    Attributes:
        test_sets: title to the name and settings of an unpacked set (``data.unpack``).
        drawn: title of the set that the picture beside the card shows.
    """

    test_sets: Mapping[str, tuple[str, dict[str, Any]]]
    drawn: str

    def confusion_names(self, spec: ModelSpec, report: Report) -> tuple[Sequence[str], Sequence[str]]:
        """Names of the confusion's rows (labels) and of its columns (answers)."""
        ...

    def plot(self, axes: Axes, spec: ModelSpec, session: Session, items: Sequence[LabelledPicture]) -> Report:
        """Evaluate a network and draw into ``axes`` what a table cannot show; returns the evaluation."""
        ...

    def robustness(self, model: str, data: Path, work: Path) -> Mapping[str, str]:
        """Title to the Markdown of a test on pictures beyond the test sets, by the model's fastest bundle.

        Args:
            model: zoo name.
            data: data folder.
            work: folder for unpacked pictures.
        """
        ...


class DetectionSection:
    """Precision against recall of each label; scenes, sizes of faces and photographs."""

    test_sets: Mapping[str, tuple[str, dict[str, Any]]] = {
        "all": ("private-test", {}),
        "without duplicates": ("private-test", {"without_duplicates": True}),
    }
    drawn = "all"

    def confusion_names(self, spec: ModelSpec, report: Report) -> tuple[Sequence[str], Sequence[str]]:
        return spec.labels, [*spec.labels, "not found"]

    def plot(self, axes: Axes, spec: ModelSpec, session: Session, items: Sequence[LabelledPicture]) -> Report:
        ranked, truths = detection.answers(session, DetectionTask(spec), items)
        classes = [item.classes for item in items]
        report = detection.evaluate(ranked, truths, classes, spec.labels)
        for index, label in enumerate(spec.labels):
            found = detection.matches_of(ranked, truths, classes, index)
            hits = np.cumsum(found.hit[0])
            axes.plot(hits / found.faces.sum(), hits / np.arange(1, len(hits) + 1), label=label)
        axes.set(xlabel="recall", ylabel="precision", title="at IoU 0.5", xlim=(0, 1), ylim=(0, 1))
        return report

    def robustness(self, model: str, data: Path, work: Path) -> Mapping[str, str]:
        scenes = work / "scenes"
        if not scenes.exists():
            unpack("scenes", data, scenes)
        return {
            "scenes": robustness.faces_in_scenes(model, data, scenes),
            "by size of face": robustness.recall_by_size(model, data),
            "real photographs": robustness.agreement_on_photographs(model, data),
        }


class ClassificationSection:
    """Recall of each label."""

    test_sets: Mapping[str, tuple[str, dict[str, Any]]] = {
        f"{side} px": ("private-test", {"face": side}) for side in FACE_SIDES
    }
    drawn = "48 px"

    def confusion_names(self, spec: ModelSpec, report: Report) -> tuple[Sequence[str], Sequence[str]]:
        return spec.labels, spec.labels

    def plot(self, axes: Axes, spec: ModelSpec, session: Session, items: Sequence[LabelledPicture]) -> Report:
        answers = classification.answers(session, ClassificationTask(spec), items)
        report = classification.evaluate(*answers, spec.labels)
        axes.bar(spec.labels, [report.score_of(label) for label in spec.labels])
        axes.set(ylabel="recall", ylim=(0, 1), title="by class")
        return report

    def robustness(self, model: str, data: Path, work: Path) -> Mapping[str, str]:
        return {}


class LivenessSection:
    """Error rates of each attack species against each other; boxes that are a little off."""

    test_sets: Mapping[str, tuple[str, dict[str, Any]]] = {"test": ("pad-test", {})}
    drawn = "test"

    def confusion_names(self, spec: ModelSpec, report: Report) -> tuple[Sequence[str], Sequence[str]]:
        return ["bona fide", *report.per_class], spec.labels

    def plot(self, axes: Axes, spec: ModelSpec, session: Session, items: Sequence[LabelledPicture]) -> Report:
        task = LivenessTask(spec)
        scores, groups = liveness.scores(session, task, items)
        report = liveness.evaluate(scores, groups, task.head.threshold)
        genuine, names = np.array(groups) == "bona_fide", np.array(groups)
        for name in report.per_class:
            apcer, bpcer = liveness.det(scores, genuine, names == name, np.ones(len(scores)))
            axes.plot(apcer.clip(1e-4), bpcer.clip(1e-4), label=name)
        axes.set(
            xlabel="APCER", ylabel="BPCER", title="detection error trade-off", xscale="log", yscale="log"
        )
        return report

    def robustness(self, model: str, data: Path, work: Path) -> Mapping[str, str]:
        return {"boxes off by up to a tenth": robustness.decision_flips(model, data)}


SECTIONS: Mapping[str, Section] = {
    "detection": DetectionSection(),
    "classification": ClassificationSection(),
    "liveness": LivenessSection(),
}
"""By the name of the task."""
