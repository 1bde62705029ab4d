"""What a model says about a frame: frozen struct-of-arrays, one row per face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, overload

import numpy as np
import numpy.typing as npt

from edge_sdk.timing import StageTimes

NO_TIMES = StageTimes()
Decision = Literal["bona fide", "attack", "undecided"]
Boxes = npt.NDArray[np.float32]
Rows = slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp] | list[int]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is drawn over one face of a picture.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels of the frame.
        text: a few words.
        alarm: whether it is something to be warned of.
    """

    box: npt.NDArray[np.float32]
    text: str
    alarm: bool = False


class Result(Protocol):
    """What every result has, whatever the task."""

    @property
    def times(self) -> StageTimes:
        """How long each stage took, all faces together."""
        ...

    @property
    def target(self) -> str:
        """Engine and precision that answered, such as ``"openvino-int8"``."""
        ...

    @property
    def device(self) -> str:
        """That ran the engine, such as ``"CPU"``."""
        ...

    def __len__(self) -> int:
        """Number of faces, or of other answers."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ...

    def describe(self) -> str:
        """One line of text, without times, as ``edge-sdk predict`` prints it."""
        ...

    def marks(self, boxes: Sequence[Boxes] | Boxes | None, size: tuple[int, int]) -> list[Mark]:
        """What to draw.

        Args:
            boxes: (N, 4) the faces that the model was asked about; None where it found them, or took the whole picture.
            size: width and height of the picture in pixels.
        """
        ...


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face.

    Attributes:
        box: (4,) float32 x1, y1, x2, y2 in pixels of the frame.
        label: name of the likeliest class.
        score: 0..1, confidence that this is a face of that class.
        probs: (classes,) float32, how the classes share this face; sums to 1.
    """

    box: npt.NDArray[np.float32]
    label: str
    score: float
    probs: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces of one frame, best first. No face is an empty result, not an error.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the frame.
        scores: (N,) float32, 0..1.
        class_ids: (N,) index into ``names``.
        probs: (N, classes) float32; each row sums to 1.
        names: class names in the order of ``probs``.
        times: how long each stage took.
        target: engine and precision that answered, such as ``"openvino-int8"``.
        device: that ran the engine, such as ``"CPU"``.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.intp]
    probs: npt.NDArray[np.float32]
    names: tuple[str, ...]
    times: StageTimes = NO_TIMES
    target: str = ""
    device: str = ""

    @classmethod
    def empty(cls, names: tuple[str, ...] = ()) -> Detections:
        """No faces, of a model with these classes."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            class_ids=np.zeros(0, np.intp),
            probs=np.zeros((0, len(names)), np.float32),
            names=names,
        )

    def answered(self, times: StageTimes, target: str, device: str = "") -> Detections:
        """The same faces with how long they took and who found them."""
        return Detections(
            self.boxes, self.scores, self.class_ids, self.probs, self.names, times, target, device
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """(N,) class name of each face."""
        return tuple(self.names[i] for i in self.class_ids.tolist())

    def __len__(self) -> int:
        """Number of faces."""
        return len(self.boxes)

    def __iter__(self) -> Iterator[Face]:
        """Faces one by one, best first."""
        for i in range(len(self)):
            yield self[i]

    @overload
    def __getitem__(self, rows: int) -> Face: ...
    @overload
    def __getitem__(self, rows: Rows) -> Detections: ...
    def __getitem__(self, rows: int | Rows) -> Face | Detections:
        """One face, or the faces that a slice, mask or list of indices selects."""
        if isinstance(rows, (int, np.integer)):
            return Face(
                box=self.boxes[rows],
                label=self.names[int(self.class_ids[rows])],
                score=float(self.scores[rows]),
                probs=self.probs[rows],
            )
        return Detections(
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            class_ids=self.class_ids[rows],
            probs=self.probs[rows],
            names=self.names,
            times=self.times,
            target=self.target,
            device=self.device,
        )

    def describe(self) -> str:
        """How many faces, and what each shows where."""
        if not len(self):
            return "no face"
        faces = "; ".join(
            f"{face.label} {face.score:.2f} at " + ",".join(f"{v:.0f}" for v in face.box) for face in self
        )
        return f"{len(self)} face{'s' if len(self) > 1 else ''}: {faces}"

    def marks(self, boxes: Sequence[Boxes] | Boxes | None, size: tuple[int, int]) -> list[Mark]:
        """Each face with its class and score; see :class:`Result`."""
        return [Mark(face.box, f"{face.label} {face.score:.2f}") for face in self]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: boxes to a tenth of a pixel, scores to four digits, times in milliseconds."""
        return {
            "faces": [
                {
                    "box": [round(float(v), 1) for v in face.box],
                    "label": face.label,
                    "score": round(face.score, 4),
                    "probs": {
                        name: round(float(p), 4) for name, p in zip(self.names, face.probs, strict=True)
                    },
                }
                for face in self
            ],
            "times_ms": _times(self.times),
            "target": self.target,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True)
class Classification:
    """What one face shows.

    Attributes:
        label: name of the likeliest class.
        score: 0..1, its share.
        probs: (classes,) float32; sums to 1.
    """

    label: str
    score: float
    probs: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classifications:
    """What the faces of one frame show, in the order in which they were given.

    Attributes:
        probs: (N, classes) float32; each row sums to 1.
        names: class names in the order of ``probs``.
        times: how long each stage took, all faces together.
        target: engine and precision that answered, such as ``"openvino-int8"``.
        device: that ran the engine, such as ``"CPU"``.
    """

    probs: npt.NDArray[np.float32]
    names: tuple[str, ...]
    times: StageTimes = NO_TIMES
    target: str = ""
    device: str = ""

    @property
    def class_ids(self) -> npt.NDArray[np.intp]:
        """(N,) index of the likeliest class."""
        best: npt.NDArray[np.intp] = self.probs.argmax(axis=1)
        return best

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(N,) share of the likeliest class."""
        best: npt.NDArray[np.float32] = self.probs.max(axis=1)
        return best

    @property
    def labels(self) -> tuple[str, ...]:
        """(N,) name of the likeliest class."""
        return tuple(self.names[i] for i in self.class_ids.tolist())

    def __len__(self) -> int:
        """Number of faces."""
        return len(self.probs)

    def __iter__(self) -> Iterator[Classification]:
        """Faces one by one."""
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, row: int) -> Classification:
        """One face."""
        probs = self.probs[row]
        best = int(probs.argmax())
        return Classification(self.names[best], float(probs[best]), probs)

    def answered(self, times: StageTimes, target: str, device: str = "") -> Classifications:
        """The same answers with how long they took and who gave them."""
        return Classifications(self.probs, self.names, times, target, device)

    def describe(self) -> str:
        """What each face shows."""
        return "; ".join(f"{face.label} {face.score:.2f}" for face in self) or "no face"

    def marks(self, boxes: Sequence[Boxes] | Boxes | None, size: tuple[int, int]) -> list[Mark]:
        """Each face with its class and score; see :class:`Result`."""
        places = _places(boxes, size)
        return [Mark(box, f"{face.label} {face.score:.2f}") for face, box in zip(self, places, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: shares to four digits, times in milliseconds."""
        return {
            "faces": [
                {
                    "label": face.label,
                    "score": round(face.score, 4),
                    "probs": {n: round(float(p), 4) for n, p in zip(self.names, face.probs, strict=True)},
                }
                for face in self
            ],
            "times_ms": _times(self.times),
            "target": self.target,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True)
class LiveFace:
    """Whether one face is bona fide.

    Attributes:
        decision: ``bona fide``, ``attack`` or ``undecided``.
        score: 0..1, how sure the network is that the face is bona fide.
        reason: why it is undecided, else empty.
    """

    decision: Decision
    score: float
    reason: str

    @property
    def bona_fide(self) -> bool:
        """True only for a face that was found bona fide: undecided is no."""
        return self.decision == "bona fide"


@dataclass(frozen=True, slots=True)
class Liveness:
    """Which faces of one frame are bona fide, in the order in which they were given.

    Attributes:
        scores: (N,) float32, 0..1; towards 1 is bona fide.
        decisions: (N,) ``bona fide``, ``attack`` or ``undecided``.
        reasons: (N,) why a face is undecided, else empty.
        times: how long each stage took, all faces together.
        target: engine and precision that answered.
        device: that ran the engine.
    """

    scores: npt.NDArray[np.float32]
    decisions: tuple[Decision, ...]
    reasons: tuple[str, ...]
    times: StageTimes = NO_TIMES
    target: str = ""
    device: str = ""

    def __len__(self) -> int:
        """Number of faces."""
        return len(self.decisions)

    def __iter__(self) -> Iterator[LiveFace]:
        """Faces one by one."""
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, row: int) -> LiveFace:
        """One face."""
        return LiveFace(self.decisions[row], float(self.scores[row]), self.reasons[row])

    def answered(self, times: StageTimes, target: str, device: str = "") -> Liveness:
        """The same decisions with how long they took and who made them."""
        return Liveness(self.scores, self.decisions, self.reasons, times, target, device)

    def describe(self) -> str:
        """The decision about each face."""
        shown = (f"{face.decision} {face.score:.2f} {face.reason}".rstrip() for face in self)
        return "; ".join(shown) or "no face"

    def marks(self, boxes: Sequence[Boxes] | Boxes | None, size: tuple[int, int]) -> list[Mark]:
        """Each face with its decision; what is not bona fide is an alarm; see :class:`Result`."""
        return [
            Mark(box, f"{face.decision} {face.score:.2f}", not face.bona_fide)
            for face, box in zip(self, _places(boxes, size), strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: scores to four digits, times in milliseconds."""
        return {
            "faces": [
                {"decision": face.decision, "score": round(face.score, 4), "reason": face.reason}
                for face in self
            ],
            "times_ms": _times(self.times),
            "target": self.target,
            "device": self.device,
        }


def _places(boxes: Sequence[Boxes] | Boxes | None, size: tuple[int, int]) -> Sequence[Boxes] | Boxes:
    """The boxes, or the whole picture as the only one."""
    if boxes is not None:
        return boxes
    return [np.array((0, 0, size[0] - 1, size[1] - 1), np.float32)]


def _times(times: StageTimes) -> dict[str, float]:
    return {
        "preprocess": round(times.preprocess_ms, 3),
        "infer": round(times.infer_ms, 3),
        "postprocess": round(times.postprocess_ms, 3),
    }
