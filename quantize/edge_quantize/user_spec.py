"""A user's own network: its spec from a TOML file, its graph brought into our form.

``docs/bring-your-own.md`` is the text for users.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_quantize.graph.import_onnx import ExportedModel, PixelForm, adapt, fits, read_graph
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml
from edge_sdk.spec import Head, ModelSpec

_REMEDY = "mend the spec: docs/bring-your-own.md has its form"
_OLD_KEYS = ("task", "labels", "preprocessing", "decode", "decision")
_NEW_FORM = (
    "keep name, size, licence, provenance and [pixels]; put the others below [head]: "
    "kind = (was task), labels = [...], [head.letterbox] pad, max_scale (was [preprocessing] of a detector) or "
    "[head.crop] margin, outside (of other networks), and what was in [decode] or [decision] below [head] itself; "
    "examples/own_detector.toml is one"
)


@dataclass(frozen=True, slots=True)
class SpecFile:
    """The keys of a spec file.

    Attributes:
        name: of the network.
        size: height and width of the picture that the graph takes, in pixels.
        licence: SPDX expression of the weights.
        head: what the network answers, as in a bundle's manifest; its kind is the task.
        provenance: what the weights were trained from, one line per source.
        exported_labels: the head's labels in the order of the graph's own outputs; empty where that is the head's.
        pixels: what the graph expects.
    """

    name: str
    size: tuple[int, ...]
    licence: str
    head: Head
    provenance: tuple[str, ...] = ()
    exported_labels: tuple[str, ...] = ()
    pixels: PixelForm = field(default_factory=PixelForm)


def read_spec(path: Path) -> ExportedModel:
    """Read a spec file.

    Raises:
        InputError: the file cannot be read, breaks the schema, is of the form before ``[head]``, or contradicts itself.
    """
    plain = read_toml(path)
    if "head" not in plain and (old := [key for key in _OLD_KEYS if key in plain]):
        raise InputError(f"{path.name} has the key {old[0]!r} of an older form", remedy=_NEW_FORM)
    try:
        return _exported(from_plain(SpecFile, plain, path.name))
    except ManifestInvalid as error:
        prefix = "" if error.message.startswith(path.name) else f"{path.name}: "
        raise InputError(prefix + error.message, remedy=_REMEDY) from error
    except InputError as error:
        raise InputError(f"{path.name}: {error.message}", remedy=error.remedy) from error


def _exported(file: SpecFile) -> ExportedModel:
    if len(file.size) != 2 or min(file.size) < 1:
        raise InputError(f"size is {list(file.size)}, expected [height, width]", remedy=_REMEDY)
    if len(file.pixels.mean) != 3 or len(file.pixels.std) != 3 or min(file.pixels.std) <= 0:
        raise InputError("pixels.mean and pixels.std need three numbers, std above 0", remedy=_REMEDY)
    labels = file.exported_labels or file.head.labels
    if sorted(labels) != sorted(file.head.labels):
        raise InputError(
            f"exported_labels {list(labels)} are not the head's labels {list(file.head.labels)} in another order",
            remedy=_REMEDY,
        )
    inputs, outputs = file.head.tensors(*file.size)
    spec = ModelSpec(
        name=file.name,
        inputs=inputs,
        outputs=outputs,
        head=file.head,
        licence=file.licence,
        provenance=file.provenance,
    )
    return ExportedModel(spec, labels, file.pixels)


@contextmanager
def adapted(onnx: Path, spec_file: Path) -> Iterator[tuple[Path, ModelSpec]]:
    """The network as a build takes it, while the context lasts.

    Args:
        onnx: as any tool exported it.
        spec_file: TOML.

    Yields:
        A graph with the spec's tensors, which is the file itself where it has them already; and the spec.

    Raises:
        InputError: as :func:`read_spec` and :func:`edge_quantize.graph.import_onnx.adapt` say.
    """
    own = read_spec(spec_file)
    model = read_graph(onnx)
    if fits(model, own):
        yield onnx, own.spec
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / onnx.name
        path.write_bytes(adapt(model, own, onnx).SerializeToString())
        yield path, own.spec
