"""What the host relies on in an evaluator, and what most evaluators share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_quantize.data import LabelledPicture
from edge_quantize.report import Progress, Report
from edge_sdk.image import Image
from edge_sdk.spec import ModelSpec
from edge_sdk.state import State
from edge_sdk.target import Session, infer
from edge_sdk.tasks import Task
from edge_sdk.tensors import Array, Tensors


class Evaluator(Protocol):
    """Knows the labelled data of one task, and what its networks' answers are worth.

    A metric's name means the same in every task: a recipe's gate names metrics and no tasks. Of which of them less is
    better, the task's head says (:attr:`edge_sdk.spec.Head.error_rates`).
    """

    metrics: tuple[str, ...]
    """What is measured, in the order in which it is shown."""
    gated: tuple[str, ...]
    """Those that a gate can limit: figures whose thresholds are frozen. Others are taken where they are best for a
    network, and so compare two networks at two places."""
    class_means: frozenset[str]
    """Those that are means over classes: without pictures of one class, they are means of something else."""

    def is_labelled(self, folder: Path, labels: Sequence[str]) -> bool:
        """Whether a folder that exists is in a layout that :meth:`read_labelled` reads.

        Args:
            folder: to look at.
            labels: of the network.
        """
        ...

    def read_labelled(self, folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
        """All pictures of a labelled folder, in name order.

        Args:
            folder: in one of the task's layouts.
            labels: of the network.

        Raises:
            InputError: the folder is missing, empty or in no known layout, or a label is wrong; names the file.
        """
        ...

    def examine(
        self,
        session: Session,
        task: Task,
        items: Sequence[LabelledPicture],
        progress: Progress = lambda done, total: None,
    ) -> Report:
        """Run a network over labelled pictures and measure it.

        Args:
            session: the loaded network.
            task: makes its inputs and reads its outputs.
            items: as :meth:`read_labelled` gave them.
            progress: called after each picture.

        Raises:
            InputError: the pictures are not what this task is measured on.
            MissingDependency: a host tool is not installed.
        """
        ...

    def calibration_inputs(
        self, task: Task, item: LabelledPicture, image: Image, reference: Session
    ) -> tuple[Tensors, list[float]]:
        """The inputs of one picture as calibration shall see them, without state.

        Args:
            task: whose preprocess makes them, the same that runs on the device.
            item: the picture; of an unlabelled folder, with one box over all of it and no class.
            image: the same picture, (H, W, 3) uint8 RGB.
            reference: session of the float network, for a task that finds faces.

        Returns:
            The inputs by name, which the next call may overwrite, and the side of each face in pixels: as the network
            sees it, or of the picture that its crop is made from.
        """
        ...

    def answered(self, task: Task, outputs: Tensors) -> dict[str, Array]:
        """What the raw outputs of N pictures mean, so that noise in them is weighed by whom it reaches.

        Args:
            task: that surrounds the network.
            outputs: each output by name, (N, ...): one row per picture in the place of the batch axis.

        Returns:
            Parts of the answers by name, (N, ...) each, such as ``scores``.
        """
        ...


def first_answer(session: Session, spec: ModelSpec, inputs: Tensors) -> Tensors:
    """What a network answers to inputs without a past: a recurrent one at its first step."""
    return infer(session, inputs, State(spec) if spec.state else None)


def box_of(item: LabelledPicture, image: Image) -> npt.NDArray[np.float32] | None:
    """(4,) x1, y1, x2, y2 of a picture's one face in its pixels; None for a picture that is the crop itself."""
    height, width = image.shape[:2]
    (fractions,) = item.boxes
    if (fractions == (0, 0, 1, 1)).all():
        return None
    box: npt.NDArray[np.float32] = (fractions * (width, height, width, height)).astype(np.float32)
    return box


def face_inputs(task: Task, item: LabelledPicture, image: Image) -> tuple[Tensors, list[float]]:
    """The calibration inputs of a task that looks at one face at a time; see :class:`Evaluator`."""
    box = box_of(item, image) if len(item.boxes) == 1 else None
    sides: Any = image.shape[:2] if box is None else (box[2] - box[0], box[3] - box[1])
    return task.preprocess(image, "rgb", box)[0], [float(min(sides))]
