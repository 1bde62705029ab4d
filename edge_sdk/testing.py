"""Stand-ins for engines and sources, for users' tests and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.adapter import SessionBase
from edge_sdk.image import Image
from edge_sdk.sources.files import Frame
from edge_sdk.spec import ModelSpec
from edge_sdk.tasks.detection import DetectionHead
from edge_sdk.tensors import Array, Tensors, check_tensors


class FakeSession(SessionBase):
    """A session that answers with head maps made for given faces, or by a function.

    Args:
        spec: of the network it stands for; of a detector, unless ``answer`` is given.
        faces: (N, 4) x1, y1, x2, y2 in canvas pixels; each is put into the cell of its centre.
        class_ids: (N,) class of each face.
        answer: called with the inputs by name, instead of the faces.
    """

    def __init__(
        self,
        spec: ModelSpec,
        faces: Sequence[Sequence[float]] = (),
        class_ids: Sequence[int] = (),
        answer: Callable[[Tensors], Tensors] | None = None,
    ) -> None:
        self.inputs, self.outputs = spec.inputs, spec.outputs
        self.calls = 0
        self.closed = False
        if answer is None:
            maps = head_maps(spec, np.asarray(faces, np.float32).reshape(-1, 4), class_ids)
            self._answer: Callable[[Tensors], Tensors] = lambda inputs: maps
        else:
            self._answer = answer

    def infer(self, inputs: Tensors) -> Tensors:
        """Check the inputs, as real engines do, and answer."""
        check_tensors(self.inputs, inputs)
        self.calls += 1
        return self._answer(inputs)

    def vendor_call(self, inputs: Tensors) -> Callable[[], object]:
        """The answer without the check."""
        return lambda: self._answer(inputs)

    def close(self) -> None:
        """Remember that it was called."""
        self.closed = True


def head_maps(
    spec: ModelSpec, faces: npt.NDArray[np.float32], class_ids: Sequence[int], *, logit: float = 4.0
) -> dict[str, Array]:
    """Raw head maps that decode to ``faces``: the inverse of the detector's postprocess.

    Each face goes to the finest stride whose bins reach its sides. Every side's distribution has its mass on the two
    bins around the true distance, so decoding gives the box back to about 0.01 of the stride.
    """
    maps: dict[str, Array] = {
        t.name: np.full(t.shape, -12.0 if t.name.startswith("cls") else 0.0, np.float32) for t in spec.outputs
    }
    head = spec.head
    assert isinstance(head, DetectionHead), "a detector's spec"
    bins = head.bins
    for (x1, y1, x2, y2), class_id in zip(faces.tolist(), class_ids, strict=True):
        for stride in head.strides:
            rows, columns = maps[f"box{stride}"].shape[1:3]
            # A middle on the canvas's far edge has no cell of its own.
            column = min(int((x1 + x2) / 2 // stride), columns - 1)
            row = min(int((y1 + y2) / 2 // stride), rows - 1)
            centre_x, centre_y = (column + 0.5) * stride, (row + 0.5) * stride
            sides = np.array((centre_x - x1, centre_y - y1, x2 - centre_x, y2 - centre_y)) / stride
            if sides.min() >= 0 and sides.max() <= bins - 1:
                break
        low = np.floor(sides).astype(int).clip(0, bins - 2)
        share = (sides - low).clip(1e-6, 1 - 1e-6)
        logits = np.full((4, bins), -30.0, np.float32)
        logits[np.arange(4), low] = np.log(1 - share)
        logits[np.arange(4), low + 1] = np.log(share)
        maps[f"box{stride}"][0, row, column] = logits.ravel()
        maps[f"cls{stride}"][0, row, column, class_id] = logit
    return maps


class FakeClock:
    """Nanoseconds that pass only when told to; callable like ``time.perf_counter_ns``."""

    def __init__(self, step_ns: int = 0) -> None:
        self.now, self.step_ns = 0, step_ns

    def __call__(self) -> int:
        """The time; each call advances it by ``step_ns``."""
        self.now += self.step_ns
        return self.now

    def advance(self, nanoseconds: int) -> None:
        """Let time pass."""
        self.now += nanoseconds


class FakeSource:
    """A source of given pictures, one per second."""

    def __init__(self, images: Sequence[Image]) -> None:
        self.images = images
        self.closed = False

    def __enter__(self) -> FakeSource:
        """Return the source."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remember that it was closed."""
        self.closed = True

    def __iter__(self) -> Iterator[Frame]:
        """The pictures as frames."""
        for index, image in enumerate(self.images):
            yield Frame(image, float(index), index, f"fake#{index}")
