import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_sdk.bundle import Bundle, GoldenCase
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.target import Artifact

SHA256_ON_EVERY_PYTHON = "1798ab60eb1118392b78ad426cc46f6dd15693490ca49a9de0a89677a909b260"


def fixed():
    """A bundle without computed numbers, whose bytes may depend on nothing."""
    outputs = {t.name: np.zeros(t.shape, np.float16) for t in toys.SPEC.outputs}
    return toys.bundle(golden=(GoldenCase(np.zeros((4, 5, 3), np.uint8), outputs),))


def test_what_is_written_is_what_is_read(tmp_path):
    bundle = toys.bundle()
    bundle.write(tmp_path / "x.edge")
    again = Bundle.open(tmp_path / "x.edge")
    assert again == bundle
    assert again.artifact == Artifact(
        {"model.onnx": b"toy"}, tuple(t.name for t in toys.SPEC.outputs), {"numpy": "any"}
    )
    (case,) = again.golden()
    assert (case.frame == toys.frame()).all()
    assert set(case.outputs) == {t.name for t in toys.SPEC.outputs}


def test_the_same_bundle_has_the_same_bytes_on_every_python():
    assert fixed().to_bytes() == fixed().to_bytes()
    assert hashlib.sha256(fixed().to_bytes()).hexdigest() == SHA256_ON_EVERY_PYTHON


def test_identity_covers_every_file():
    one, two = (
        toys.bundle(),
        toys.bundle(artifact=Artifact({"model.onnx": b"toy!"}, toys.bundle().manifest.outputs)),
    )
    assert one.sha256 == toys.bundle().sha256
    assert one.sha256 != two.sha256


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "x.edge"
    path.write_bytes(b"old")

    def fail(self, *args):
        if step == "write_bytes":
            with open(self, "wb") as f:
                f.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(InputError, match="No space"):
        toys.bundle().write(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.edge"]


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.edge"):
        Bundle.open(tmp_path / "none.edge")
    with pytest.raises(InputError, match="Is a directory"):
        Bundle.open(tmp_path)


def test_a_signature_is_kept_and_changes_no_identity(tmp_path):
    signed = dataclasses.replace(toys.bundle(), signature=b"signed")
    signed.write(tmp_path / "x.edge")
    again = Bundle.open(tmp_path / "x.edge")
    assert again.signature == b"signed"
    assert again.sha256 == toys.bundle().sha256


def test_what_could_not_be_read_is_not_made():
    with pytest.raises(ManifestInvalid):
        toys.bundle(min_snr_db="20")
