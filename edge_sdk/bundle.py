"""The bundle, format 1: one file that holds a compiled network and everything needed to trust and run it.

``docs/bundle.md`` is the normative text; this module is the only reader and the only writer.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Literal, cast

import numpy as np

from edge_sdk.errors import ChecksumMismatch, ManifestInvalid, SignatureInvalid
from edge_sdk.files import opened, write_atomically
from edge_sdk.image import Image, check_image
from edge_sdk.schema import from_plain, to_plain
from edge_sdk.signing import Signature, from_member, to_member
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact
from edge_sdk.tensors import Array, Tensors

SCHEMA: Final = 1
SUFFIX = ".edge"
MAX_BYTES = 512 * 2**20
MAX_FILES = 64
MAX_MANIFEST_BYTES = 256 * 2**10
MIN_GOLDEN_SNR_DB = 20.0
"""Engines on other processors round differently: 35 dB and more was seen for the same network, below 12 dB for swapped
colours."""
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"

_MEMBER = re.compile(r"(artifact|golden/[0-9]{1,2})/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FRAME, _INPUT, _OUTPUT = "frame", "input.", "output."
"""Names of a golden case's files: its frame, and the prefixes of other inputs and of outputs."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and lower-case hexadecimal SHA-256 of one member."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a calibration set shows: 5th, 50th and 95th percentile over its pictures or faces.

    Attributes:
        brightness: mean of each input tensor, 0..255.
        contrast: standard deviation of each input tensor, 0..127.5.
        face_size: pixels of a face's side: of a detector, on the canvas, of the faces that the float network finds; of
            another network, the picture that the crop is made from. None where there was none.
        per_class: pictures of each class, of a labelled set.
    """

    brightness: tuple[float, ...]
    contrast: tuple[float, ...]
    face_size: tuple[float, ...] | None = None
    per_class: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class DataDigest:
    """A set of pictures that took part in the build: how many, and one SHA-256 over all of them in order.

    Attributes:
        coverage: of a calibration set, what it shows; older bundles have none.
    """

    items: int
    sha256: str
    coverage: Coverage | None = None


@dataclass(frozen=True, slots=True)
class GateMetric:
    """One figure of the gate, as fractions. Its name says whether less is better: see :meth:`fall`.

    Attributes:
        reference: the float reference's.
        compiled: the compiled network's.
        max_drop: the fall allowed.
        low: of the paired interval of ``compiled - reference``; None in older bundles.
        high: of the same.
    """

    reference: float
    compiled: float
    max_drop: float
    low: float | None = None
    high: float | None = None

    def fall(self, *, less_is_better: bool) -> tuple[float, float]:
        """By how much the figure became worse, and by how much at most according to its interval.

        Args:
            less_is_better: of an error rate, which became worse if it rose.
        """
        difference = self.compiled - self.reference
        if self.low is None or self.high is None:
            return (difference, 0.0) if less_is_better else (-difference, 0.0)
        return (difference, self.high) if less_is_better else (-difference, -self.low)


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the accuracy gate measured on which held-out set. A bundle exists only if it passed, or was waived.

    Attributes:
        evaluation: the held-out set.
        metrics: name to figure.
        engine: that ran the compiled network, where it is not the bundle's own target.
        waiver: why the bundle was written although the gate failed; None if it passed.
    """

    evaluation: DataDigest
    metrics: Mapping[str, GateMetric]
    engine: str | None = None
    waiver: str | None = None


@dataclass(frozen=True, slots=True)
class GoldenSpec:
    """How many golden cases there are, and the signal-to-noise ratio (dB) that every output must reach."""

    cases: int
    min_snr_db: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a reader may know of a bundle before it touches the artifact."""

    schema: Literal[1]
    producer: str
    spec: ModelSpec
    recipe: Recipe
    target: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fingerprint: Mapping[str, str]
    calibration: DataDigest | None
    gate: GateResult
    golden: GoldenSpec
    files: Mapping[str, FileEntry]

    def __post_init__(self) -> None:
        """Refuse a manifest whose parts contradict each other (ManifestInvalid)."""
        if self.golden.cases < 1:
            raise ManifestInvalid(
                f"manifest.golden.cases is {self.golden.cases}: nothing would prove the bundle on a device",
                remedy="build it again",
            )
        if self.golden.min_snr_db < MIN_GOLDEN_SNR_DB:
            raise ManifestInvalid(
                f"manifest.golden.min_snr_db is {self.golden.min_snr_db:g}, expected at least "
                f"{MIN_GOLDEN_SNR_DB:g}: other answers would pass for the network's",
                remedy="build it again",
            )
        self._check_gate()
        for name, listed, tensors in (
            ("inputs", self.inputs, self.spec.inputs),
            ("outputs", self.outputs, self.spec.outputs),
        ):
            if sorted(listed) != sorted(t.name for t in tensors):
                raise ManifestInvalid(
                    f"manifest.{name} {list(listed)} are not the spec's, each once", remedy="build it again"
                )

    def _check_gate(self) -> None:
        """Refuse figures that do not pass their own limits, unless a waiver says why the bundle exists all the same."""
        limits, remedy = self.recipe.gate.max_drop, "build it again, or take another bundle"
        if not self.gate.metrics or self.gate.evaluation.items < 1:
            raise ManifestInvalid(
                "manifest.gate has no metrics or no pictures: nothing was gated", remedy=remedy
            )
        if not 0.5 <= self.recipe.gate.confidence < 1:
            raise ManifestInvalid(
                f"manifest.recipe.gate.confidence is {self.recipe.gate.confidence:g}, expected 0.5 to 1",
                remedy=remedy,
            )
        for name, metric in self.gate.metrics.items():
            where = f"manifest.gate.metrics.{name}"
            if metric.max_drop != limits.get(name) or not 0 < metric.max_drop < 1:
                raise ManifestInvalid(
                    f"{where}.max_drop is {metric.max_drop:g}, the recipe's is {limits.get(name)}: "
                    "expected the same, between 0 and 1",
                    remedy=remedy,
                )
            if self.gate.waiver is not None:
                continue
            drop, bound = metric.fall(less_is_better=name in self.spec.head.error_rates)
            # Written so that what is no number fails.
            if not (drop <= metric.max_drop and bound <= metric.max_drop):
                raise ManifestInvalid(
                    f"{where} became worse by {drop:g}, at most {bound:g}; its limit is {metric.max_drop:g} and the "
                    "manifest has no waiver",
                    remedy=remedy,
                )

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, two spaces, ASCII, a final newline."""
        text = json.dumps(to_plain(self), indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False)
        return text.encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse and check a manifest.

        Raises:
            ManifestInvalid: it is not JSON, of another schema version, or breaks the closed schema.
        """
        try:
            plain = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise ManifestInvalid(
                f"{MANIFEST} is not JSON: {error}", remedy="fetch or build the bundle again"
            ) from error
        version = plain.get("schema") if isinstance(plain, dict) else None
        if version != SCHEMA or isinstance(version, bool):
            raise ManifestInvalid(
                f"{MANIFEST} has schema version {version!r}, this SDK reads {SCHEMA}",
                remedy="install the face-edge-sdk that wrote it, or build the bundle again",
            )
        spec = plain.get("spec")
        if isinstance(spec, dict) and "head" not in spec and "preprocessing" in spec:
            raise ManifestInvalid(
                f"{MANIFEST} is of a development version, before inputs and heads had names",
                remedy="build the bundle again with this version (edge-sdk build)",
            )
        return from_plain(cls, plain, "manifest")


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """Inputs, and what the network answered to them when the bundle was built.

    Attributes:
        outputs: the spec's output names to float16 arrays of their shapes.
        frame: (H, W, 3) uint8 RGB, from which the task makes inputs as from any frame, so that preprocessing is proven
            too; None where nothing is made from a frame.
        inputs: the spec's inputs that do not come from the frame, such as the state of a later step.
    """

    outputs: Tensors
    frame: Image | None = None
    inputs: Tensors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle in memory.

    Attributes:
        manifest: as read or as it will be written.
        files: member name to content; exactly the members that ``manifest.files`` lists.
        signature: content of ``manifest.sig`` if present: :attr:`signatures` reads it, :mod:`edge_sdk.trust` judges it.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    signature: bytes | None = None

    @classmethod
    def create(
        cls,
        *,
        producer: str,
        spec: ModelSpec,
        recipe: Recipe,
        target: str,
        artifact: Artifact,
        calibration: DataDigest | None,
        gate: GateResult,
        golden: tuple[GoldenCase, ...],
        min_snr_db: float,
    ) -> Bundle:
        """Assemble a bundle from its parts; the hashes are made here."""
        files = {f"artifact/{name}": data for name, data in artifact.files.items()}
        for index, case in enumerate(golden):
            arrays = {} if case.frame is None else {_FRAME: case.frame}
            arrays |= {f"{_INPUT}{name}": array for name, array in case.inputs.items()}
            arrays |= {f"{_OUTPUT}{name}": array for name, array in case.outputs.items()}
            for name, array in arrays.items():
                files[f"golden/{index}/{name}.npy"] = _npy(array)
        manifest = Manifest(
            schema=SCHEMA,
            producer=producer,
            spec=spec,
            recipe=recipe,
            target=target,
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            fingerprint=dict(artifact.fingerprint),
            calibration=calibration,
            gate=gate,
            golden=GoldenSpec(len(golden), min_snr_db),
            files={
                name: FileEntry(len(data), hashlib.sha256(data).hexdigest())
                for name, data in sorted(files.items())
            },
        )
        # What is written must be readable: the same checks, before anything reaches the disk.
        return cls(Manifest.from_bytes(manifest.to_bytes()), files)

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read a bundle; every byte is hashed before the caller can give it to an engine.

        Nothing is extracted: members stay in memory, and their names never become paths.

        Raises:
            InputError: the file cannot be read.
            ManifestInvalid: not a bundle of format 1, or a member that the format does not allow.
            SignatureInvalid: ``manifest.sig`` is not written as the format prescribes; whether anybody who is trusted
                signed is asked when the bundle is loaded.
            ChecksumMismatch: truncated or edited.
        """
        path = Path(path)
        with opened(path, "bundle") as (file, size):
            if size > MAX_BYTES:
                raise ManifestInvalid(
                    f"{path} has {size:,} bytes, a bundle at most {MAX_BYTES:,}",
                    remedy="this is not a bundle of this SDK",
                )
            members = _read_archive(file, size, path)
            manifest_bytes = members.pop(MANIFEST)
            signature = members.pop(SIGNATURE, None)
            if signature is not None:
                from_member(signature)
            manifest = Manifest.from_bytes(manifest_bytes)
            _check_members(manifest, members, path)
            bundle = cls(manifest, members, signature)
            # The archive itself is canonical, so a changed header byte is as visible as a changed member. It is written
            # again on what was read, piece by piece: a second copy would double what a large bundle takes.
            again = _Comparison(file, size)
            if manifest.to_bytes() == manifest_bytes:
                bundle._write(cast(IO[bytes], again))
            if not again.equal:
                raise ChecksumMismatch(
                    f"{path} is not written the way format {SCHEMA} prescribes: it was edited or damaged",
                    remedy="fetch or build the bundle again",
                )
        return bundle

    def to_bytes(self) -> bytes:
        """The whole file; the same bundle always gives the same bytes."""
        out = io.BytesIO()
        self._write(out)
        return out.getvalue()

    def _write(self, out: IO[bytes]) -> None:
        members = {MANIFEST: self.manifest.to_bytes()}
        if self.signature is not None:
            members[SIGNATURE] = self.signature
        members |= {name: self.files[name] for name in sorted(self.files)}
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                info = zipfile.ZipInfo(name, _EPOCH)
                info.create_system = 3
                info.external_attr = 0o644 << 16
                archive.writestr(info, data)

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all: under a temporary name, then renamed.

        Raises:
            InputError: the folder is missing, not writable or full; an older file of that name is untouched.
        """
        write_atomically(path, self.to_bytes())

    @property
    def sha256(self) -> str:
        """Identity of the bundle: the manifest's hash, which covers every file by theirs."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """What ``manifest.sig`` holds, sorted by key; whether they fit and whom to trust is not said by that.

        Raises:
            SignatureInvalid: it is not written as the format prescribes.
        """
        return () if self.signature is None else from_member(self.signature)

    def signed(self, signature: Signature) -> Bundle:
        """The same bundle with one more signature, which replaces an older one by the same key.

        Raises:
            SignatureInvalid: it does not fit the manifest, or there would be too many.
        """
        if not signature.fits(self.manifest.to_bytes()):
            raise SignatureInvalid(
                f"the signature by {signature.key[:16]} is of another bundle", remedy="sign this bundle"
            )
        others = (s for s in self.signatures if s.key != signature.key)
        return replace(self, signature=to_member((*others, signature)))

    @property
    def artifact(self) -> Artifact:
        """The compiled network."""
        prefix = "artifact/"
        return Artifact(
            files={n.removeprefix(prefix): d for n, d in self.files.items() if n.startswith(prefix)},
            inputs=self.manifest.inputs,
            outputs=self.manifest.outputs,
            fingerprint=self.manifest.fingerprint,
        )

    def golden(self) -> tuple[GoldenCase, ...]:
        """The golden cases.

        Raises:
            ManifestInvalid: a case is missing or has other shapes than the spec.
        """
        spec = self.manifest.spec
        cases = []
        for index in range(self.manifest.golden.cases):
            place = f"golden/{index}"
            has_frame = f"{place}/{_FRAME}.npy" in self.files
            if not has_frame and not all(f"{place}/{_INPUT}{t.name}.npy" in self.files for t in spec.inputs):
                raise ManifestInvalid(
                    f"{place}/{_FRAME}.npy is missing, and so are inputs in its place",
                    remedy="build it again",
                )
            cases.append(
                GoldenCase(
                    outputs={
                        t.name: self._array(f"{place}/{_OUTPUT}{t.name}.npy", t.shape, "float16")
                        for t in spec.outputs
                    },
                    frame=self._array(f"{place}/{_FRAME}.npy", None, "uint8") if has_frame else None,
                    inputs={
                        t.name: self._array(name, t.shape, t.dtype)
                        for t in spec.inputs
                        if (name := f"{place}/{_INPUT}{t.name}.npy") in self.files
                    },
                )
            )
        return tuple(cases)

    def _array(self, name: str, shape: tuple[int, ...] | None, dtype: str) -> Any:
        try:
            array = _read_npy(self.files[name])
            if shape is None:
                check_image(array)
            if array.dtype == np.dtype(dtype) and shape in (None, array.shape):
                return array
            problem = f"has {array.dtype} {array.shape}"
        except KeyError:
            problem = "is missing"
        except Exception as error:  # numpy evaluates a header's text, which can fail in any way
            problem = f"is not a plain array: {error}"
        raise ManifestInvalid(
            f"{name} {problem}, expected {dtype} {shape or '(height, width, 3)'}",
            remedy="build the bundle again",
        )


def _npy(array: Array) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return out.getvalue()


def _read_npy(data: bytes) -> Array:
    """The array of a format 1.0 file; a header that claims more or less than is there is refused, not allocated."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not NumPy format 1.0")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    start = stream.tell()
    if by_columns or dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"its header claims {dtype} {shape}, {len(data) - start} bytes follow")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


class _Comparison(io.RawIOBase):
    """A file to write to, that keeps no bytes but compares them with those of another file.

    A zip's header is written once without the checksum of its member and once with it: what is written last counts.

    Args:
        file: to compare with.
        size: of it in bytes.
    """

    PIECE = 2**20

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file, self._size = file, size
        self._at = self._end = 0
        self._headers: dict[int, bytes] = {}
        self._same = True

    @property
    def equal(self) -> bool:
        """Whether all of the other file was written, and nothing else."""
        right = self._same and self._end == self._size
        return right and all(self._stands(place, data) for place, data in self._headers.items())

    def _stands(self, place: int, data: bytes | memoryview) -> bool:
        self._file.seek(place)
        return self._file.read(len(data)) == data

    def write(self, data: Any) -> int:
        """Compare what is large at once, and keep what is small until the end."""
        if len(data) < self.PIECE:
            self._headers[self._at] = bytes(data)
        else:
            view = memoryview(data)
            for start in range(0, len(view), self.PIECE):
                piece = view[start : start + self.PIECE]
                self._same = self._same and self._stands(self._at + start, piece)
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte goes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on elsewhere."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence] + offset
        return self._at


def _read_archive(file: BinaryIO, size: int, path: Path) -> dict[str, bytes]:
    """All members of a stored zip, by name, within the format's limits."""
    remedy = "fetch or build the bundle again"
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            # Stored members that share bytes would multiply: 64 of them over the same half gigabyte.
            if sum(entry.file_size for entry in entries) > size:
                raise ManifestInvalid(f"{path}: members claim more bytes than the file has", remedy=remedy)
            if len(entries) > MAX_FILES or len(set(names)) != len(names):
                raise ManifestInvalid(
                    f"{path} has {len(names)} members, {len(set(names))} of them distinct; "
                    f"a bundle has at most {MAX_FILES}, each once",
                    remedy=remedy,
                )
            for entry in entries:
                if entry.filename not in (MANIFEST, SIGNATURE) and not _MEMBER.fullmatch(entry.filename):
                    raise ManifestInvalid(
                        f"{path} has a member {entry.filename!r} that the format does not allow",
                        remedy="do not use this file: it is damaged or hostile",
                    )
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise ManifestInvalid(
                        f"{path}: member {entry.filename} is compressed or encrypted", remedy=remedy
                    )
            if MANIFEST not in names:
                raise ManifestInvalid(f"{path} has no {MANIFEST}", remedy="this is not a bundle")
            if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
                raise ManifestInvalid(
                    f"{path}: {MANIFEST} is larger than {MAX_MANIFEST_BYTES:,} bytes", remedy=remedy
                )
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        raise ChecksumMismatch(f"{path} is not a complete bundle: {error}", remedy=remedy) from error


def _check_members(manifest: Manifest, members: Mapping[str, bytes], path: Path) -> None:
    if set(members) != set(manifest.files):
        odd = sorted(set(members) ^ set(manifest.files))[0]
        where = "the archive" if odd in members else "the manifest"
        raise ManifestInvalid(f"{path}: {odd} is only in {where}", remedy="fetch or build the bundle again")
    for name, entry in manifest.files.items():
        data = members[name]
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ChecksumMismatch(
                f"{path}: {name} differs from its checksum", remedy="fetch or build the bundle again"
            )
