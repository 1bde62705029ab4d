"""The system under test: what a scenario drives, and which items it is given. (The term is MLPerf's.)

A scenario knows no model. A pipeline of several models implements :class:`SystemUnderTest`, and a camera is an iterator
of items; the stages of a pipeline have names of their own and appear in the report beside ``capture`` and
``end_to_end``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_benchmarks.frames import FrameSet, frame_set, shuffled
from edge_sdk.image import Image
from edge_sdk.model import Model
from edge_sdk.results import Detections
from edge_sdk.state import State
from edge_sdk.tasks import Task
from edge_sdk.tasks.base import Faces
from edge_sdk.tensors import Tensors
from edge_sdk.timing import StageTimes, now_ns

Boxes = npt.NDArray[np.float32]


class Item(NamedTuple):
    """The input of one decision.

    Attributes:
        number: index of the item in its set.
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels: faces to look at; None for networks that find faces themselves.
        drawn: number of faces on the picture; None where nobody counted.
    """

    number: int
    image: Image
    boxes: Boxes | None
    drawn: int | None


class SystemUnderTest(Protocol):
    """Makes one decision per call."""

    stages: tuple[str, ...]
    """Names of the stages that :meth:`read` gives, in their order within a frame."""

    def __call__(self, item: Item) -> Any:
        """Make a decision from an item; this is what is timed."""
        ...

    def read(self, decided: Any) -> tuple[int, tuple[int, ...]]:
        """Number of faces in a decision, and nanoseconds of each stage; called when the clock has stopped."""
        ...


ItemStream = Iterator[Item]
"""Items one after the other, from memory or from a camera; the wait for the next one is the stage ``capture``."""


class ModelUnderTest:
    """A model of any task.

    Args:
        model: called with an item's image, and its boxes if it has any.
    """

    stages: tuple[str, ...] = ("preprocess", "infer", "postprocess")

    def __init__(self, model: Model[Any]) -> None:
        self.model = model
        self._state = model.new_state()

    def __call__(self, item: Item) -> Any:
        """See :class:`SystemUnderTest`."""
        return self.model(item.image, boxes=item.boxes, state=self._state)

    def read(self, decided: Any) -> tuple[int, tuple[int, ...]]:
        """See :class:`SystemUnderTest`."""
        times = decided.times
        return len(decided), (times.preprocess_ns, times.infer_ns, times.postprocess_ns)


class NullModel:
    """Makes no decision, but touches memory as an engine does, so that what follows finds cold caches.

    Attributes:
        took_ns: nanoseconds of every call, by its own clock.
    """

    BYTES = 8_000_000

    def __init__(self) -> None:
        self.took_ns: list[int] = []
        self._memory = np.zeros(self.BYTES, np.uint8)
        self._nothing = Detections.empty().answered(StageTimes(), "null")

    def new_state(self) -> None:
        """Nothing is remembered."""

    def __call__(self, image: Image, *, boxes: Boxes | None = None, state: State | None = None) -> Detections:
        """Touch the memory."""
        before = now_ns()
        np.add(self._memory, 1, out=self._memory)
        answer = self._nothing
        self.took_ns.append(now_ns() - before)
        return answer


def items_of(pictures: FrameSet, faces: Faces) -> list[Item]:
    """The items of a set for a model, by how its task comes to faces.

    A task that finds faces decides about frames. One that is given them decides about faces: each drawn face is an item.
    Of the user's own pictures, whose faces nobody knows, it takes each as one crop, or, where it needs a box, the middle
    third, as if a face were there.
    """
    if faces == "found":
        return [
            Item(i, image, None, pictures.drawn[i] if pictures.boxes else None)
            for i, image in enumerate(pictures.images)
        ]
    if pictures.boxes:
        drawn = [
            (image, box[None])
            for image, boxes in zip(pictures.images, pictures.boxes, strict=True)
            for box in boxes
        ]
        return [Item(i, image, box, 1) for i, (image, box) in enumerate(drawn)]
    return [
        Item(i, image, _middle(image) if faces == "required" else None, None)
        for i, image in enumerate(pictures.images)
    ]


def network_inputs(task: Task, count: int) -> list[Tensors]:
    """Inputs of a network by name, made from the first drawn frames as a model makes them; a state is zeros.

    Args:
        task: whose preprocessing is applied.
        count: how many; at most ``frames.COUNT``.

    Returns:
        Each as the network's ``infer`` takes it, every array contiguous and of its own.
    """
    zeros = State(task.spec).tensors
    made = (task.preprocess(image)[0] for image in frame_set().images[:count])
    return [{name: array.copy() for name, array in {**zeros, **inputs}.items()} for inputs in made]


def item_stream(items: Sequence[Item]) -> ItemStream:
    """The items from memory, in the shuffled order that is the same everywhere, without end."""
    return cycle([items[i] for i in shuffled(len(items))])


def write_item(path: Path, item: Item) -> None:
    """An item's ``image``, and ``boxes`` if it has any, as an .npz file that a fresh process can read."""
    arrays: dict[str, Any] = {"image": item.image}
    if item.boxes is not None:
        arrays["boxes"] = item.boxes
    np.savez(path, **arrays)


def _middle(image: Image) -> Boxes:
    height, width = image.shape[:2]
    side = min(height, width) / 3
    x, y = (width - side) / 2, (height - side) / 2
    return np.array([[x, y, x + side, y + side]], np.float32)
