"""A user's own network: its spec from a TOML file, its graph brought into our form.

``docs/bring-your-own.md`` is the text for users.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml
from edge_sdk.spec import (
    LIVENESS_LABELS,
    DetectionDecode,
    FaceCrop,
    LivenessDecision,
    ModelSpec,
    Preprocessing,
    Task,
)
from edge_sdk.tensors import TensorSpec

_REMEDY = "mend the spec: docs/bring-your-own.md has its form"


@dataclass(frozen=True, slots=True)
class Pixels:
    """What the exported graph expects in the place of uint8 RGB pixels; ignored if it takes these already.

    Attributes:
        order: of the colour channels.
        mean: subtracted from a pixel of 0..255, a channel each in ``order``.
        std: divided by, a channel each in ``order``.
    """

    order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A user's network.

    Attributes:
        spec: what the bundle will say.
        labels: in the order of the graph's own outputs; the spec's, or for a liveness network these reversed.
        pixels: what the graph expects.
    """

    spec: ModelSpec
    labels: tuple[str, ...]
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class _File:
    """The keys of a spec file."""

    name: str
    task: Task
    labels: tuple[str, ...]
    size: tuple[int, ...]
    licence: str
    preprocessing: Preprocessing | FaceCrop
    decode: DetectionDecode | None = None
    decision: LivenessDecision | None = None
    provenance: tuple[str, ...] = ()
    pixels: Pixels = field(default_factory=Pixels)


def read_spec(path: Path) -> OwnModel:
    """A spec file.

    Raises:
        InputError: the file cannot be read, breaks the schema, or contradicts itself.
    """
    try:
        file = from_plain(_File, read_toml(path), path.name)
        return _own(file)
    except ManifestInvalid as error:
        prefix = "" if error.message.startswith(path.name) else f"{path.name}: "
        raise InputError(prefix + error.message, remedy=_REMEDY) from error
    except InputError as error:
        raise InputError(f"{path.name}: {error.message}", remedy=error.remedy) from error


def _own(file: _File) -> OwnModel:
    if len(file.size) != 2:
        raise InputError(f"size is {list(file.size)}, expected [height, width]", remedy=_REMEDY)
    if len(file.pixels.mean) != 3 or len(file.pixels.std) != 3 or min(file.pixels.std) <= 0:
        raise InputError("pixels.mean and pixels.std need three numbers, std above 0", remedy=_REMEDY)
    height, width = file.size
    labels = file.labels
    if file.task == "liveness" and sorted(labels) == sorted(LIVENESS_LABELS):
        labels = LIVENESS_LABELS
    if file.decode is None:
        outputs: tuple[TensorSpec, ...] = (TensorSpec("logits", (1, len(labels)), "float32", "NC"),)
    else:
        outputs = tuple(
            TensorSpec(f"{kind}{s}", (1, height // s, width // s, channels), "float32", "NHWC")
            for s in file.decode.strides
            if s > 0
            for kind, channels in (("box", 4 * file.decode.bins), ("cls", len(labels)))
        )
    spec = ModelSpec(
        name=file.name,
        task=file.task,
        labels=labels,
        input=TensorSpec("pixels", (1, height, width, 3), "uint8", "NHWC"),
        outputs=outputs,
        preprocessing=file.preprocessing,
        decode=file.decode,
        licence=file.licence,
        provenance=file.provenance,
        decision=file.decision,
    )
    return OwnModel(spec, file.labels, file.pixels)


@contextmanager
def adapted(onnx: Path, spec_file: Path) -> Iterator[tuple[Path, ModelSpec]]:
    """The network as a build takes it, while the context lasts.

    Args:
        onnx: as any tool exported it.
        spec_file: TOML.

    Yields:
        A graph with the spec's tensors: the file itself where it has them already; and the spec.

    Raises:
        InputError: as ``read_spec`` and ``edge_quantize.surgery.adapt`` do.
    """
    from edge_quantize import surgery

    own = read_spec(spec_file)
    model = surgery.read_graph(onnx)
    if surgery.fits(model, own):
        yield onnx, own.spec
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / onnx.name
        path.write_bytes(surgery.adapt(model, own, onnx).SerializeToString())
        yield path, own.spec
