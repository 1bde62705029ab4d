"""The command line under bad input: two lines, a documented code, nothing that a terminal obeys, and never 70."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_sdk import cli
from edge_sdk.cli import FAULT, main
from edge_sdk.cli_common import printable
from edge_sdk.errors import InputError, LoadFailed
from edge_sdk.image import write_image

DEEP = "[" * 100_000 + "]" * 100_000


def told(capsys):
    """The two lines of an error."""
    out, err = capsys.readouterr()
    assert not any(c in out + err for c in "\x1b\x07\r\x9b")
    *_, what, remedy = err.rstrip("\n").split("\n")
    assert what.startswith("error: ")
    assert remedy.startswith("  ")
    assert "Traceback" not in err
    return what, remedy


@pytest.mark.parametrize("text", ["\x1b[2J", "two\nlines", "\r", "\x9b31m", "\u2028", "\ud800", "\x00"])
def test_what_a_terminal_would_obey_is_escaped(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode("utf-8")
    assert printable("für – 好") == "für – 好"


def test_a_file_name_cannot_write_a_line_of_its_own(capsys, toy_bundle, toy_engine, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_image(folder / "a.png", toys.frame())
    os.rename(folder / "a.png", folder / "\x1b[2Jx\nb.png: no face, 1.0 ms.png")
    assert main(["predict", str(toy_bundle), "--source", str(folder)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert "\x1b" not in out
    assert r"\x1b[2Jx\nb.png" in out


def test_an_engines_message_stays_on_its_line(capsys, toy_bundle, toy_engine, monkeypatch):
    def refuse(*_, **__):
        raise LoadFailed("engine said:\n  do \x1b]0;this\x07", remedy="a\nb")

    monkeypatch.setattr(toy_engine, "load", refuse)
    assert main(["verify", str(toy_bundle), "--no-isolation"]) == 3
    what, remedy = told(capsys)
    assert what == r"error: engine said:\n  do \x1b]0;this\x07"
    assert remedy == r"  a\nb"


def test_a_fault_of_ours_is_told_in_two_lines_with_its_code(capsys, monkeypatch, toy_bundle):
    def fail(_):
        raise ZeroDivisionError("by zero\n")

    monkeypatch.setattr(cli.Bundle, "open", fail)
    assert main(["inspect", str(toy_bundle)]) == FAULT == 70
    what, remedy = told(capsys)
    assert "ZeroDivisionError" in what
    assert "report it" in remedy
    assert main(["inspect", str(toy_bundle), "--debug"]) == FAULT
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["inspect", "verify"])
@pytest.mark.parametrize("place", ["/dev/zero", "/dev/null", "pipe", "folder", "\0", "a" * 5000, ""])
def test_what_is_no_bundle_is_refused_at_once(capsys, verb, place, tmp_path):
    if place == "pipe":
        os.mkfifo(tmp_path / "x.edge")
        place = str(tmp_path / "x.edge")
    elif place == "folder":
        (tmp_path / "y.edge").mkdir()
        place = str(tmp_path / "y.edge")
    elif place.startswith("/dev"):
        (tmp_path / "z.edge").symlink_to(place)
        place = str(tmp_path / "z.edge")
    assert main([verb, place]) in (2, 4)
    told(capsys)


def test_boxes_beyond_all_numbers_are_bad_input():
    from edge_sdk.image import check_boxes

    with pytest.raises(InputError):
        check_boxes([[0, 0, 10**400, 5]], toys.frame())


@pytest.mark.parametrize("content", [DEEP, "{", '"text"', "[]", "\xff", '{"schema": ' + DEEP + "}"])
def test_a_report_that_is_none_is_bad_input(capsys, content, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(content, encoding="latin-1")
    assert main(["compare", str(path), str(path)]) == 2
    told(capsys)


def test_a_manifest_that_is_nested_too_deeply_is_refused():
    from edge_sdk.bundle import Manifest
    from edge_sdk.errors import ManifestInvalid

    for data in (DEEP, '{"schema": 1, "spec": ' + DEEP + "}"):
        with pytest.raises(ManifestInvalid):
            Manifest.from_bytes(data.encode())


def run(*words, **streams):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edge_sdk", *words],
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **streams,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_below_stdout_is_an_error_of_the_environment(toy_bundle):
    with open("/dev/full", "w") as full:
        done = run("inspect", str(toy_bundle), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_is_no_traceback(toy_bundle):
    done = run("inspect", str(toy_bundle), stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 3)


words = st.sampled_from(
    [
        "zoo", "predict", "inspect", "verify", "build", "evaluate", "doctor", "compare", "check", "sweep",
        "--json", "--source", "--data", "--limit", "--conf", "--save", "--target", "--precision", "--threads",
        "--spec", "--onnx", "--recipe", "--evaluation", "--calibration", "-o", "--output", "--profile", "--prefer",
        "toy", "fer-yolo11n", "x.edge", "x.json", "x.toml", "x.png", "folder", "/dev/zero", "", "\x1b[2J", "-1",
        "nan", "0", "1e400", "int8", "onnxruntime", "raspberry-pi-5", "\0", "a" * 300,
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words, min_size=1, max_size=7))
def test_no_words_reach_the_fault_code(tmp_path, toy_bundle, toy_engine, capsys, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    if not Path("x.edge").exists():
        Path("x.edge").write_bytes(toy_bundle.read_bytes())
        Path("x.json").write_text(json.dumps({"schema": 2, "runs": []}))
        Path("x.toml").write_text("name = 1\n")
        write_image("x.png", toys.frame())
        Path("folder").mkdir()
    if line[0] in ("doctor", "sweep") and "--help" not in line:
        line = [*line, "--help"]  # what takes seconds each
    try:
        code = main([str(word) for word in line])
    except SystemExit as end:  # argparse's own: wrong use, or help
        code = end.code
    out, err = capsys.readouterr()
    assert code in (0, 1, 2, 3, 4), (line, err)
    assert "Traceback" not in out + err
