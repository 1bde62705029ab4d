"""What a network is (ModelSpec) and how it was made smaller (Recipe): pure data that travels in the manifest."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NoReturn

from edge_sdk.errors import ManifestInvalid
from edge_sdk.tensors import TensorSpec

Precision = Literal["fp32", "fp16", "int8", "int8-wonly", "int8-mixed"]
Granularity = Literal["channel", "tensor"]
Method = Literal["minmax", "mse", "percentile", "entropy", "trained"]

MAX_SIDE = 4096
"""Pixels of a picture's side: far above any detector's, and small enough that a hostile spec takes no memory."""
MAX_VALUES = 2**27
"""Values of all inputs and outputs together, for the same reason."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_DTYPES = ("uint8", "float32")


@dataclass(frozen=True, slots=True)
class Head:
    """What a network answers, and what a task must know to read it; every task has a subclass in its own file.

    Attributes:
        kind: name of the task.
        labels: what the answers are called, in the order of the network's outputs: classes, or values.
        error_rates: of the class: the task's metrics of which less is better; a manifest's gate is read by it.
    """

    error_rates: ClassVar[frozenset[str]] = frozenset()

    kind: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse labels that are missing or repeated (ManifestInvalid)."""
        if not self.labels or len(set(self.labels)) != len(self.labels):
            contradiction("labels are empty or not distinct")

    def check(self, spec: ModelSpec) -> None:
        """Raise ManifestInvalid unless the spec's tensors are what such a head needs."""
        raise NotImplementedError

    def tensors(self, height: int, width: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of a network with this head that sees pictures of this size in pixels.

        A task whose tensors do not follow from the size leaves this out; its networks are then described in full.
        """
        contradiction(f"the tensors of a {self.kind} network do not follow from its size")

    @classmethod
    def find_alternative(cls, kind: str) -> type[Head] | None:
        """The subclass that the task of this name brings; None if there is no such task."""
        # A look upwards by name, as for targets: the spec states what a head is, the file of the task fills it.
        tasks: Any = importlib.import_module("edge_sdk.tasks")
        found: type[Head] | None = tasks.head_of(kind)
        return found

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """Names of all tasks that are installed."""
        tasks: Any = importlib.import_module("edge_sdk.tasks")
        names: tuple[str, ...] = tasks.task_names()
        return names


@dataclass(frozen=True, slots=True)
class StatePair:
    """An output that is an input of the next step: what a recurrent network remembers.

    The caller keeps it, zeros at the start, one set per stream or track; an engine knows nothing of it.

    Attributes:
        input: name of a float32 input.
        output: name of the output that takes its place; same shape.
    """

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A network as its users see it.

    Attributes:
        name: zoo name or the user's own.
        inputs: pixels are uint8, RGB, (1, height, width, 3), or (1, frames, height, width, 3) for a clip; everything
            else, such as a vector, is float32.
        outputs: raw, float32; what they must be is the head's to say.
        head: what the outputs mean, by task.
        licence: SPDX expression of the weights.
        provenance: what the weights were trained from, one line per source.
        state: of a recurrent network, the inputs that are outputs of the step before.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    head: Head
    licence: str
    provenance: tuple[str, ...] = field(default_factory=tuple)
    state: tuple[StatePair, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a spec whose parts contradict each other (ManifestInvalid)."""
        names = [t.name for t in (*self.inputs, *self.outputs)]
        if not self.inputs or not self.outputs or len(set(names)) != len(names):
            contradiction(f"inputs and outputs {names} are missing or not distinct")
        for tensor in (*self.inputs, *self.outputs):
            _check_tensor(tensor)
        for tensor in self.outputs:
            if tensor.dtype != "float32":
                contradiction(f"output {tensor.name!r} is {tensor.dtype}, outputs are float32")
        if (values := sum(math.prod(t.shape) for t in (*self.inputs, *self.outputs))) > MAX_VALUES:
            contradiction(f"its tensors hold {values:,} values, at most {MAX_VALUES:,} are allowed")
        self._check_state()
        self.head.check(self)

    def _check_state(self) -> None:
        inputs, outputs = {t.name: t for t in self.inputs}, {t.name: t for t in self.outputs}
        used = [name for pair in self.state for name in (pair.input, pair.output)]
        if len(set(used)) != len(used):
            contradiction(f"state {used} names a tensor twice")
        for pair in self.state:
            before, after = inputs.get(pair.input), outputs.get(pair.output)
            if before is None or after is None:
                contradiction(
                    f"state {pair.input!r} <- {pair.output!r} is no input and output of the network"
                )
            if (before.shape, before.dtype) != (after.shape, "float32"):
                contradiction(
                    f"state {pair.input!r} is {before.dtype} {before.shape}, {pair.output!r} is {after.dtype} "
                    f"{after.shape}: expected float32 and the same shape"
                )

    @property
    def task(self) -> str:
        """Name of the task: the kind of its head."""
        return self.head.kind

    @property
    def labels(self) -> tuple[str, ...]:
        """What the answers are called, in the order of the network's outputs."""
        return self.head.labels

    @property
    def given(self) -> tuple[TensorSpec, ...]:
        """The inputs that are not state: what is new in every step."""
        remembered = {pair.input for pair in self.state}
        return tuple(t for t in self.inputs if t.name not in remembered)

    @property
    def answers(self) -> tuple[TensorSpec, ...]:
        """The outputs that are not state."""
        remembered = {pair.output for pair in self.state}
        return tuple(t for t in self.outputs if t.name not in remembered)

    @property
    def pixels(self) -> TensorSpec | None:
        """The first input that holds pixels; None for a network without one."""
        return next((t for t in self.inputs if t.dtype == "uint8"), None)


def only_picture(spec: ModelSpec) -> TensorSpec:
    """The picture input of a network that is given one picture and nothing else.

    Raises:
        ManifestInvalid: it is given something else.
    """
    given = spec.given
    if len(given) != 1 or given[0].dtype != "uint8" or len(given[0].shape) != 4:
        shown = ", ".join(f"{t.name} {t.dtype} {t.shape}" for t in given)
        contradiction(f"inputs {shown} are not one picture, uint8 (1, height, width, 3)")
    return given[0]


def expect_outputs(spec: ModelSpec, expected: tuple[TensorSpec, ...]) -> None:
    """Raise ManifestInvalid unless the outputs that are not state are these, in any order."""
    found = {t.name: (t.shape, t.dtype) for t in spec.answers}
    wanted = {t.name: (t.shape, t.dtype) for t in expected}
    if found != wanted:
        contradiction(f"outputs {found} are not what a {spec.task} network of this spec gives: {wanted}")


def _check_tensor(tensor: TensorSpec) -> None:
    if not _NAME.fullmatch(tensor.name):
        contradiction(f"tensor name {tensor.name!r} is not letters, digits and underscores, at most 40")
    shape = tensor.shape
    if tensor.dtype not in _DTYPES or not 1 <= len(shape) <= 6 or shape[0] != 1 or min(shape) < 1:
        contradiction(f"tensor {tensor.name!r} is {tensor.dtype} {shape}, expected uint8 or float32 (1, ...)")
    if len(tensor.layout) != len(shape):
        contradiction(f"layout {tensor.layout!r} of {tensor.name!r} does not name the axes of {shape}")
    if tensor.dtype == "uint8":
        if len(shape) not in (4, 5) or shape[-1] != 3:
            contradiction(
                f"input {tensor.name!r} is uint8 {shape}, pixels are (1, height, width, 3) or "
                "(1, frames, height, width, 3)"
            )
        for name, value in (("height", shape[-3]), ("width", shape[-2])):
            check_range(f"{name} of {tensor.name!r}", value, 1, MAX_SIDE)


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise ManifestInvalid unless ``low <= value <= high``."""
    if not low <= value <= high:
        contradiction(f"{name} is {value}, expected {low} to {high}")


def check_fraction(name: str, value: float, below: float = 1.0) -> None:
    """Raise ManifestInvalid unless ``0 < value < below``."""
    if not 0 < value < below:
        contradiction(f"{name} is {value}, expected between 0 and {below:g}")


def contradiction(problem: str) -> NoReturn:
    """Raise ManifestInvalid for a spec whose parts do not go together."""
    raise ManifestInvalid(f"model spec: {problem}", remedy="mend the spec that the bundle was built from")


@dataclass(frozen=True, slots=True)
class Gate:
    """How far the compiled network may fall behind the float one on the held-out set.

    Attributes:
        max_drop: metric name to the largest fall, as a fraction (0.005 is half a point).
        confidence: at which the fall must be shown to lie within ``max_drop``.
    """

    max_drop: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is quantized.

    Attributes:
        name: of the recipe: what its file or its variant is called.
        precision: ``fp32``; ``fp16`` weights; ``int8`` weights and activations; ``int8-wonly``: int8 weights, float
            activations; ``int8-mixed``: int8 but for ``keep_float``.
        calibration_items: how many pictures calibration looks at; 0 where no activation is quantized.
        gate: what must hold for a bundle to be written.
        granularity: one weight scale per output channel, or one per tensor.
        method: how activation ranges are found on the calibration pictures; ``trained``: they are not, the network was
            fine-tuned with them and brings a graph in which they stand.
        symmetric: whether activation ranges are symmetric around zero; None: as the target does by default.
        keep_float: blocks or operator kinds that stay in float.
    """

    name: str
    precision: Precision
    calibration_items: int
    gate: Gate
    granularity: Granularity = "channel"
    method: Method = "minmax"
    symmetric: bool | None = None
    keep_float: tuple[str, ...] = ()

    @property
    def calibrated(self) -> bool:
        """Whether activations get int8 ranges for which pictures are needed."""
        return self.precision in ("int8", "int8-mixed") and not self.trained

    @property
    def trained(self) -> bool:
        """Whether a quantized graph brings the ranges of weights and activations."""
        return self.method == "trained"
