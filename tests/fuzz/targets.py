"""What is fuzzed: functions from bytes that may raise an EdgeError and nothing else, and seeds that they understand.

Each target reads what a stranger can hand to the SDK: a bundle, its manifest, a spec, a recipe, a profile, a report,
boxes, a picture. A target returns normally, raises ``EdgeError``, or has found a fault.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import toys

from edge_benchmarks import report
from edge_quantize.recipe import read_recipe
from edge_quantize.user_spec import read_spec
from edge_sdk.bundle import Bundle, Manifest
from edge_sdk.errors import EdgeError
from edge_sdk.image import check_boxes, read_image, write_image
from edge_sdk.profile import read_profile
from edge_sdk.schema import from_plain, to_plain
from edge_sdk.spec import ModelSpec

Fuzzed = Callable[[bytes], object]
FRAME = np.zeros((48, 64, 3), np.uint8)


@contextmanager
def written(data: bytes, name: str):
    """The bytes in a file."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def bundle(data: bytes) -> object:
    with written(data, "x.edge") as path:
        opened = Bundle.open(path)
        return opened.golden(), opened.artifact


def manifest(data: bytes) -> object:
    return Manifest.from_bytes(data).to_bytes()


def spec(data: bytes) -> object:
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return from_plain(ModelSpec, plain, "spec")


def user_spec(data: bytes) -> object:
    with written(data, "own.toml") as path:
        return read_spec(path)


def recipe(data: bytes) -> object:
    with written(data, "own.toml") as path:
        return read_recipe(path)


def profile(data: bytes) -> object:
    with written(data, "own.toml") as path:
        return read_profile(path)


def bench_report(data: bytes) -> object:
    with written(data, "run.json") as path:
        return report.read_report(path)


def boxes(data: bytes) -> object:
    """Text that Python reads as nested numbers, or raw float64."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        given = np.frombuffer(data[: len(data) // 8 * 8], np.float64)
        given = given.reshape(-1, 4) if len(given) % 4 == 0 else given
    checked = check_boxes(given, FRAME)
    assert np.isfinite(checked).all()
    assert (checked[:, 2:] > checked[:, :2]).all()
    return checked


def picture(data: bytes) -> object:
    with written(data, "x.png") as path:
        return read_image(path)


TARGETS: dict[str, Fuzzed] = {
    f.__name__: f for f in (bundle, manifest, spec, user_spec, recipe, profile, bench_report, boxes, picture)
}

_SPEC = """
name = "own"
size = [64, 64]
licence = "MIT"
[head]
kind = "classification"
labels = ["a", "b"]
[head.crop]
margin = 1.0
outside = "repeat"
[pixels]
order = "bgr"
mean = [1.0, 2.0, 3.0]
std = [255.0, 255.0, 255.0]
"""
_RECIPE = """
name = "own"
precision = "int8"
calibration_items = 64
method = "mse"
[gate.max_drop]
uar = 0.01
"""
_PROFILE = """
name = "own"
title = "Own"
engine = "onnxruntime"
install = "pip install 'face-edge-sdk[onnxruntime]'"
threads = 2
pythons = ["3.11"]
"""


def seeds() -> dict[str, list[bytes]]:
    """Inputs that each target understands, made here: nothing is stored."""
    whole = toys.bundle()
    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for suffix in (".png", ".jpg", ".bmp", ".webp"):
            path = Path(folder) / f"x{suffix}"
            write_image(path, toys.frame())
            pictures.append(path.read_bytes())
    plain = to_plain(toys.CLASSIFIER)
    return {
        "bundle": [whole.to_bytes()],
        "manifest": [whole.manifest.to_bytes()],
        "spec": [json.dumps(to_plain(toys.SPEC)).encode(), json.dumps(plain).encode()],
        "user_spec": [_SPEC.encode()],
        "recipe": [_RECIPE.encode()],
        "profile": [_PROFILE.encode()],
        "bench_report": [json.dumps({"schema": report.SCHEMA, "runs": []}).encode()],
        "boxes": [b"[[1, 2, 3, 4]]", struct.pack("<4d", 1, 2, 30, 40), b"[]"],
        "picture": pictures,
    }


def fault_of(target: Fuzzed, data: bytes) -> BaseException | None:
    """What a target did that it must not do; None if it behaved."""
    try:
        target(data)
    except EdgeError as error:
        if not (error.message and error.remedy and error.message.isprintable()):
            return AssertionError(f"a message that is empty or no line: {error.message!r}")
    except Exception as error:  # that is what is looked for
        return error
    return None
