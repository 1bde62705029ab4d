"""What a network is (ModelSpec) and how it was made smaller (Recipe): pure data that travels in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_sdk.errors import ManifestInvalid
from edge_sdk.tensors import TensorSpec

Precision = Literal["fp32", "int8"]

MAX_SIDE = 4096
"""Pixels of a canvas's side: far above any detector's, and small enough that a hostile spec takes no memory."""
MAX_BINS = 64


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a frame becomes the input tensor.

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
class ModelSpec:
    """A network as its users see it.

    Attributes:
        name: zoo name or the user's own.
        task: which pre- and postprocessing belongs to it.
        labels: class names in the order of the network's outputs.
        input: uint8 pixels, NHWC, RGB.
        outputs: for detection, per stride the side logits ``boxN`` (1, h, w, 4 * bins) and the class logits ``clsN``
            (1, h, w, classes).
        licence: SPDX expression of the weights.
        provenance: what the weights were trained from, one line a source.
    """

    name: str
    task: Literal["detection"]
    labels: tuple[str, ...]
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    decode: DetectionDecode
    licence: str
    provenance: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a spec whose parts contradict each other (ManifestInvalid)."""
        shape = self.input.shape
        if self.input.dtype != "uint8" or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            _contradiction(f"input {self.input.dtype} {shape} is not uint8 (1, height, width, 3)")
        decode, pad = self.decode, self.preprocessing.pad
        for name, value, low, high in (
            ("input height", shape[1], 1, MAX_SIDE),
            ("input width", shape[2], 1, MAX_SIDE),
            *(("stride", stride, 1, min(shape[1:3])) for stride in decode.strides),
            ("bins", decode.bins, 2, MAX_BINS),
            ("max_faces", decode.max_faces, 1, 10_000),
            ("pad", pad, 0, 255),
        ):
            if not low <= value <= high:
                _contradiction(f"{name} is {value}, expected {low} to {high}")
        for name, fraction, most in (
            ("confidence", decode.confidence, 1.0),
            ("iou", decode.iou, 1.0),
            ("max_scale", self.preprocessing.max_scale, 100.0),
        ):
            if not 0 < fraction < most:
                _contradiction(f"{name} is {fraction}, expected between 0 and {most:g}")
        strides = decode.strides
        if (
            not strides
            or len(set(strides)) != len(strides)
            or any(n % s for s in strides for n in shape[1:3])
        ):
            _contradiction(f"strides {strides} are none, repeated, or do not divide the input {shape}")
        if not self.labels or len(set(self.labels)) != len(self.labels):
            _contradiction("labels are empty or not distinct")
        sizes = {
            f"{kind}{s}": ((1, shape[1] // s, shape[2] // s, channels), "float32")
            for s in strides
            for kind, channels in (("box", 4 * decode.bins), ("cls", len(self.labels)))
        }
        found = {spec.name: (spec.shape, spec.dtype) for spec in self.outputs}
        if found != sizes or len(self.outputs) != len(sizes):
            _contradiction(f"outputs {found} do not fit strides, bins and labels, each once: {sizes}")


def _contradiction(problem: str) -> None:
    raise ManifestInvalid(f"model spec: {problem}", remedy="mend the spec that the bundle was built from")


@dataclass(frozen=True, slots=True)
class Gate:
    """How far the compiled network may fall behind the float one on the held-out set.

    Attributes:
        max_drop: metric name to the largest fall, as a fraction (0.005 is half a point).
    """

    max_drop: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is quantized.

    Attributes:
        name: of the recipe's file.
        precision: of weights and activations inside the graph.
        calibration_items: how many pictures calibration looks at; 0 for float.
        gate: what must hold for a bundle to be written.
    """

    name: str
    precision: Precision
    calibration_items: int
    gate: Gate
