import dataclasses
import hashlib
import os

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys
from throwaway import ThrowAwayKey

from edge_sdk.bundle import Bundle, GoldenCase
from edge_sdk.errors import BundleError, InputError, ManifestInvalid
from edge_sdk.target import Artifact

SHA256_ON_EVERY_PYTHON = "494af6cfe0811e0474c5a6161946db685f61aa3ba035325c3e07a378fafba361"


def fixed():
    """A bundle without computed numbers, whose bytes may depend on nothing."""
    outputs = {t.name: np.zeros(t.shape, np.float16) for t in toys.SPEC.outputs}
    return toys.bundle(golden=(GoldenCase(outputs, np.zeros((4, 5, 3), np.uint8)),))


def test_what_is_written_is_what_is_read(tmp_path):
    bundle = toys.bundle()
    bundle.write(tmp_path / "x.edge")
    again = Bundle.open(tmp_path / "x.edge")
    assert again == bundle
    assert again.artifact == Artifact(
        {"model.onnx": b"toy"}, ("pixels",), tuple(t.name for t in toys.SPEC.outputs), {"numpy": "any"}
    )
    (case,) = again.golden()
    assert (case.frame == toys.frame()).all()
    assert set(case.outputs) == {t.name for t in toys.SPEC.outputs}


def test_the_same_bundle_has_the_same_bytes_on_every_python():
    assert fixed().to_bytes() == fixed().to_bytes()
    assert hashlib.sha256(fixed().to_bytes()).hexdigest() == SHA256_ON_EVERY_PYTHON


def test_identity_covers_every_file():
    other = dataclasses.replace(toys.artifact(), files={"model.onnx": b"toy!"})
    one, two = toys.bundle(), toys.bundle(artifact=other)
    assert one.sha256 == toys.bundle().sha256
    assert one.sha256 != two.sha256


def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.edge"
    path.write_bytes(b"old")

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="No space"):
        toys.bundle().write(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.edge"]


def test_golden_cases_without_a_frame_and_with_more_inputs_come_back(tmp_path):
    pixels = toys.SPEC.inputs[0]
    outputs = {t.name: np.zeros(t.shape, np.float16) for t in toys.SPEC.outputs}
    given = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(pixels.shape)
    cases = (GoldenCase(outputs, toys.frame()), GoldenCase(outputs, inputs={pixels.name: given}))
    toys.bundle(golden=cases).write(tmp_path / "x.edge")
    drawn, plain = Bundle.open(tmp_path / "x.edge").golden()
    assert (drawn.frame == toys.frame()).all()
    assert drawn.inputs == {}
    assert plain.frame is None
    assert (plain.inputs[pixels.name] == given).all()


@pytest.mark.parametrize(
    "inputs",
    [{}, {"pixels": np.zeros((1, 8, 8, 3), np.uint8)}, {"pixels": np.zeros((1, 64, 64, 3))}],
    ids=str,
)
def test_a_golden_case_that_does_not_give_every_input_is_refused(inputs):
    outputs = {t.name: np.zeros(t.shape, np.float16) for t in toys.SPEC.outputs}
    with pytest.raises(ManifestInvalid, match="golden/0"):
        toys.bundle(golden=(GoldenCase(outputs, inputs=inputs),)).golden()


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.edge"):
        Bundle.open(tmp_path / "none.edge")
    with pytest.raises(InputError, match="it is a folder"):
        Bundle.open(tmp_path)


def test_a_signature_is_kept_and_changes_no_identity(tmp_path):
    signed = ThrowAwayKey("maker").signed(toys.bundle())
    signed.write(tmp_path / "x.edge")
    again = Bundle.open(tmp_path / "x.edge")
    assert again.signature == signed.signature
    assert again.signatures[0].fits(again.manifest.to_bytes())
    assert again.sha256 == toys.bundle().sha256


def test_what_could_not_be_read_is_not_made():
    with pytest.raises(ManifestInvalid):
        toys.bundle(producer=20)


def test_a_large_bundle_is_read_once_and_held_once(tmp_path):
    import tracemalloc

    size = 24 * 2**20
    artifact = Artifact({"model": bytes(size)}, toys.bundle().manifest.inputs, toys.bundle().manifest.outputs)
    path = tmp_path / "large.edge"
    toys.bundle(artifact=artifact).write(path)
    tracemalloc.start()
    try:
        opened = Bundle.open(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(opened.artifact.files["model"]) == size
    assert peak < 1.25 * size


@pytest.mark.parametrize("place", [0, 5 * 2**20, -2])
def test_a_large_member_is_compared_whole(tmp_path, place):
    artifact = Artifact(
        {"model": bytes(6 * 2**20)}, toys.bundle().manifest.inputs, toys.bundle().manifest.outputs
    )
    path = tmp_path / "large.edge"
    toys.bundle(artifact=artifact).write(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError):
        Bundle.open(path)
    path.write_bytes(data[:-1])
    with pytest.raises(BundleError):
        Bundle.open(path)
