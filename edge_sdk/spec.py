"""What a network is (ModelSpec) and how it was made smaller (Recipe): pure data that travels in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from edge_sdk.errors import ManifestInvalid
from edge_sdk.tensors import TensorSpec

Precision = Literal["fp32", "fp16", "int8", "int8-wonly", "int8-mixed"]
Granularity = Literal["channel", "tensor"]
Method = Literal["minmax", "mse", "percentile", "entropy", "trained"]
Task = Literal["detection", "classification", "liveness"]

MAX_SIDE = 4096
"""Pixels of a canvas's side: far above any detector's, and small enough that a hostile spec takes no memory."""
MAX_BINS = 64
LIVENESS_LABELS = ("bona fide", "attack")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a frame becomes a detector's input tensor.

    Normalisation, casting and axis order are inside the graph; the host only resizes.

    Attributes:
        kind: ``letterbox``: aspect kept, centred, the rest padded.
        pad: value of the border, 0..255.
        max_scale: frames are enlarged by at most this factor.
    """

    kind: Literal["letterbox"]
    pad: int
    max_scale: float


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """How a face of a frame becomes a classifier's input tensor.

    Attributes:
        kind: ``crop``: a square around the middle of the face's box.
        margin: side of the square divided by the longer side of the box: 1 shows the box, 2.7 its surroundings too.
        outside: where the square reaches over the frame: ``repeat`` the frame's edge, or ``shift`` the square into the
            frame and make it smaller if it must be, so that no pixel is made up.
    """

    kind: Literal["crop"]
    margin: float
    outside: Literal["repeat", "shift"]


@dataclass(frozen=True, slots=True)
class DetectionDecode:
    """How raw head maps become boxes.

    Attributes:
        strides: canvas pixels a cell of each level stands for.
        bins: of the distribution that a box side is predicted as (Distribution Focal Loss, arXiv 2006.04388).
        confidence: a face below this score is not reported.
        iou: of two boxes that overlap by more than this, the better one stays.
        max_faces: report at most this many.
    """

    strides: tuple[int, ...]
    bins: int
    confidence: float
    iou: float
    max_faces: int


@dataclass(frozen=True, slots=True)
class LivenessDecision:
    """When a face counts as bona fide; everything else does not (ISO/IEC 30107-3's terms).

    Attributes:
        threshold: bona fide from this score on. Found on a development set and kept through quantization.
        min_face: pixels of the box's shorter side; a smaller face is undecided.
        max_outside: share of the box's area that may lie outside the frame; a face cut off further is undecided.
    """

    threshold: float
    min_face: int
    max_outside: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A network as its users see it.

    Attributes:
        name: zoo name or the user's own.
        task: which pre- and postprocessing belongs to it.
        labels: class names in the order of the network's outputs.
        input: uint8 pixels, NHWC, RGB.
        outputs: for detection, per stride the side logits ``boxN`` (1, h, w, 4 * bins) and the class logits ``clsN``
            (1, h, w, classes); for classification and liveness, ``logits`` (1, classes).
        preprocessing: what the task's kind of input needs.
        decode: for detection.
        decision: for liveness.
        licence: SPDX expression of the weights.
        provenance: what the weights were trained from, one line a source.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | FaceCrop
    decode: DetectionDecode | None
    licence: str
    provenance: tuple[str, ...] = field(default_factory=tuple)
    decision: LivenessDecision | None = None

    def __post_init__(self) -> None:
        """Refuse a spec whose parts contradict each other (ManifestInvalid)."""
        shape = self.input.shape
        if self.input.dtype != "uint8" or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            _contradiction(f"input {self.input.dtype} {shape} is not uint8 (1, height, width, 3)")
        for name, value in (("input height", shape[1]), ("input width", shape[2])):
            _within(name, value, 1, MAX_SIDE)
        if not self.labels or len(set(self.labels)) != len(self.labels):
            _contradiction("labels are empty or not distinct")
        sizes = self._check_detector() if self.task == "detection" else self._check_classifier()
        if (self.decision is not None) != (self.task == "liveness"):
            _contradiction("a liveness network needs a decision, and no other may have one")
        if self.decision is not None:
            self._check_decision(self.decision)
        found = {spec.name: (spec.shape, spec.dtype) for spec in self.outputs}
        if found != sizes or len(self.outputs) != len(sizes):
            _contradiction(f"outputs {found} are not what a {self.task} network of this spec gives: {sizes}")

    def _check_detector(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type that each output must have."""
        decode, preprocessing, shape = self.decode, self.preprocessing, self.input.shape
        if decode is None or not isinstance(preprocessing, Preprocessing):
            _contradiction("a detector needs preprocessing 'letterbox' and a decode")
        strides = decode.strides
        for name, value, low, high in (
            *(("stride", stride, 1, min(shape[1:3])) for stride in strides),
            ("bins", decode.bins, 2, MAX_BINS),
            ("max_faces", decode.max_faces, 1, 10_000),
            ("pad", preprocessing.pad, 0, 255),
        ):
            _within(name, value, low, high)
        for name, fraction, most in (
            ("confidence", decode.confidence, 1.0),
            ("iou", decode.iou, 1.0),
            ("max_scale", preprocessing.max_scale, 100.0),
        ):
            if not 0 < fraction < most:
                _contradiction(f"{name} is {fraction}, expected between 0 and {most:g}")
        if (
            not strides
            or len(set(strides)) != len(strides)
            or any(n % s for s in strides for n in shape[1:3])
        ):
            _contradiction(f"strides {strides} are none, repeated, or do not divide the input {shape}")
        return {
            f"{kind}{s}": ((1, shape[1] // s, shape[2] // s, channels), "float32")
            for s in strides
            for kind, channels in (("box", 4 * decode.bins), ("cls", len(self.labels)))
        }

    def _check_classifier(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type that each output must have."""
        if self.decode is not None or not isinstance(self.preprocessing, FaceCrop):
            _contradiction("a classifier needs preprocessing 'crop' and no decode")
        if not 0.5 <= self.preprocessing.margin <= 10:
            _contradiction(f"margin is {self.preprocessing.margin}, expected 0.5 to 10")
        return {"logits": ((1, len(self.labels)), "float32")}

    def _check_decision(self, decision: LivenessDecision) -> None:
        if self.labels != LIVENESS_LABELS:
            _contradiction(f"labels of a liveness network are {self.labels}, expected {LIVENESS_LABELS}")
        _within("min_face", decision.min_face, 1, MAX_SIDE)
        for name, share in (("threshold", decision.threshold), ("max_outside", decision.max_outside)):
            if not 0 < share < 1:
                _contradiction(f"{name} is {share}, expected between 0 and 1")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        _contradiction(f"{name} is {value}, expected {low} to {high}")


def _contradiction(problem: str) -> NoReturn:
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
        granularity: one weight scale an output channel, or one a tensor.
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
