import hashlib
import itertools
import json
from pathlib import Path

import pytest

from edge_sdk.cli import main
from edge_sdk.errors import InputError
from edge_sdk.profile import read_profile
from edge_targets import wheelhouse

PI = read_profile("raspberry-pi-5")
FILES = {
    "numpy-2.0-cp311-cp311-manylinux_2_27_aarch64.whl": b"n",
    "ai_edge_litert-2.3.0-cp311-none-any.whl": b"l",
}


@pytest.fixture
def pip(monkeypatch):
    """A pip that puts files there instead of asking an index."""
    asked = []

    def fake(verb, *arguments):
        asked.append((verb, *arguments))
        folder = Path(arguments[arguments.index("-d" if verb == "download" else "-w") + 1])
        folder.mkdir(exist_ok=True)
        files = FILES if verb == "download" else {"face_edge_sdk-0.1.0-py3-none-any.whl": b"ours"}
        for name, data in files.items():
            (folder / name).write_bytes(data)

    monkeypatch.setattr(wheelhouse, "_pip", fake)
    return asked


def test_a_wheelhouse_holds_the_wheels_and_a_hashed_line_for_each(pip, tmp_path):
    houses = wheelhouse.collect(PI, tmp_path / "wheels")
    assert [h.python for h in houses] == list(PI.pythons)
    text = (tmp_path / "wheels" / "requirements-3.11.txt").read_text()
    assert f"numpy==2.0 --hash=sha256:{hashlib.sha256(b'n').hexdigest()}" in text.splitlines()
    assert "ai-edge-litert==2.3.0 --hash=sha256:" in text
    assert "--require-hashes" in houses[0].install
    assert {p.name for p in (tmp_path / "wheels").iterdir()} == {
        *FILES, "requirements-3.11.txt", "requirements-3.13.txt",
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["wheels"]


def test_pip_is_asked_for_the_boards_python_and_c_library(pip, tmp_path):
    wheelhouse.collect(PI, tmp_path / "wheels", pythons=("3.11",), extra="openvino")
    (_, download) = pip
    assert download[-1].endswith("face_edge_sdk-0.1.0-py3-none-any.whl[openvino]")
    assert "--only-binary=:all:" in download
    platforms = [b for a, b in itertools.pairwise(download) if a == "--platform"]
    assert platforms[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_37_aarch64" not in platforms
    assert {"cp311", "abi3", "none"} <= set(download)


def test_nothing_is_left_where_pip_fails(monkeypatch, tmp_path, capsys):
    def fail(*arguments):
        raise InputError("pip download failed: no wheel", remedy="another Python")

    monkeypatch.setattr(wheelhouse, "_pip", fail)
    assert main(["wheelhouse", "--profile", "raspberry-pi-4", "-o", str(tmp_path / "wheels")]) == 2
    assert "no wheel" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_never_touched(pip, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        wheelhouse.collect(PI, tmp_path)
    with pytest.raises(InputError, match="no folder for"):
        wheelhouse.collect(PI, tmp_path / "missing" / "wheels")
    assert pip == []


def test_a_profile_without_an_architecture_is_refused(pip, tmp_path):
    with pytest.raises(InputError, match="generic-cpu does not say machine"):
        wheelhouse.collect(read_profile("generic-cpu"), tmp_path / "wheels")


def test_the_command_tells_the_boards_own(pip, tmp_path, capsys):
    out = str(tmp_path / "wheels")
    assert main(["wheelhouse", "--profile", "raspberry-pi-5", "-o", out, "--python", "3.11", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pythons"][0]["wheels"][0]["sha256"] == hashlib.sha256(b"l").hexdigest()


def test_pips_own_words_are_told(tmp_path):
    with pytest.raises(InputError, match="pip download failed") as caught:
        wheelhouse._pip("download", "--no-index", "-d", str(tmp_path), "no-such-package-anywhere")
    assert "No matching distribution" in str(caught.value) or "ERROR" in str(caught.value)
