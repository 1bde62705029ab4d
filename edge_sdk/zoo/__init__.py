"""The models: one spec file each, and the bundles that passed their gate.

``bundles/index.json`` lists the bundles with their hashes and how fast each ran, relative to onnxruntime fp32 in
the same run, by processor architecture. Timings stand there and not in the bundles, whose bytes must not depend on them.

``keys/`` holds the public keys by which they are signed.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import InputError
from edge_sdk.schema import from_plain
from edge_sdk.signing import PublicKey
from edge_sdk.spec import ModelSpec, Precision

NAMES = tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules([str(Path(__file__).parent)])))
"""The models: every module of this folder has a ``SPEC``."""
BUNDLES = Path(__file__).parent / "bundles"
KEYS = Path(__file__).parent / "keys"
INDEX = BUNDLES / "index.json"
SOURCES = Path(__file__).parents[2] / "training" / "weights"


@dataclass(frozen=True, slots=True)
class ZooBundle:
    """One shipped bundle.

    Attributes:
        file: name in ``bundles/``.
        model: zoo name.
        target: engine it was compiled for.
        precision: of its graph.
        sha256: the bundle's identity (hash of its manifest).
        relative_latency: architecture to median latency of the engine, divided by onnxruntime fp32's.
    """

    file: str
    model: str
    target: str
    precision: Precision
    sha256: str
    relative_latency: Mapping[str, float]

    @property
    def path(self) -> Path:
        """Where the bundle lies."""
        return BUNDLES / self.file


@dataclass(frozen=True, slots=True)
class _Index:
    bundles: tuple[ZooBundle, ...]


def spec(name: str) -> ModelSpec:
    """The spec of a zoo model.

    Raises:
        InputError: no model of this name.
    """
    if name not in NAMES:
        raise InputError(
            f"no model {name!r} in the zoo",
            remedy=f"use one of {', '.join(NAMES)}, or a bundle's path, such as ./name.edge",
        )
    found: ModelSpec = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").SPEC
    return found


def float_source(name: str) -> Path:
    """The float ONNX file that a model's bundles are built from; a checkout has it, the wheel does not.

    Raises:
        InputError: no model of this name, or not a checkout.
    """
    spec(name)
    path = SOURCES / f"{name}.onnx"
    if not path.is_file():
        raise InputError(
            f"the float network of {name} is not here: the wheel has none, a checkout those of shipped models",
            remedy="name it with --onnx (from weights: python -m edge_training.export), or work in a checkout",
        )
    return path


def bundles(name: str) -> tuple[ZooBundle, ...]:
    """The shipped bundles of a model, fastest first for this machine's architecture.

    An architecture that nobody measured takes the order of x86_64.

    Raises:
        InputError: no model of this name.
    """
    spec(name)
    if not INDEX.exists():
        return ()
    index = from_plain(_Index, json.loads(INDEX.read_text()), "zoo index")
    mine = (b for b in index.bundles if b.model == name)
    return tuple(sorted(mine, key=lambda b: (latency_here(b), b.file)))


def signing_keys() -> tuple[PublicKey, ...]:
    """The public keys by which the project signs the zoo's bundles; older ones stay as long as their bundles do."""
    return tuple(PublicKey.read(path) for path in sorted(KEYS.glob("*.pub")))


def latency_here(bundle: ZooBundle) -> float:
    """Relative latency measured on this architecture, else on x86_64, else 1."""
    measured = bundle.relative_latency
    return measured.get(platform.machine(), measured.get("x86_64", 1.0))
