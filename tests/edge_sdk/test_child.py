"""Processes of their own: how they end, told in words, and what they import."""

import sys

import pytest

from edge_sdk import child
from edge_sdk.child import run_python


def run(code, timeout_s=30.0):
    return run_python(("-c", code), timeout_s=timeout_s)


def test_how_a_process_ended_is_told_in_words():
    fine = run("print('one'); print('two')")
    assert (fine.lines, fine.problem) == (("one", "two"), None)
    ill = run("import os; print('one', flush=True); os.kill(os.getpid(), 4)")
    assert (ill.lines, ill.problem, ill.signal) == (("one",), "died of SIGILL", "SIGILL")
    wrong = run("raise ImportError('libGL.so.1')")
    assert (wrong.problem, wrong.said) == ("ended with code 1", "ImportError: libGL.so.1")
    half = run("import os; os.write(1, b'whole\\nhal'); os.kill(os.getpid(), 9)")
    assert (half.lines, half.signal) == (("whole",), "SIGKILL")


def test_a_process_that_hangs_is_stopped():
    hung = run("import time; print('one', flush=True); time.sleep(60)", timeout_s=1.0)
    assert hung.timed_out
    assert hung.lines == ("one",)
    assert "1 s" in hung.problem


@pytest.fixture(params=["-P", "without -P, as on Python 3.10"])
def planted(request, monkeypatch, tmp_path):
    """The current folder holds modules with the names of others, which leave a file when they run."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("json", "subprocess", "numpy", "runpy", "program"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    # As python -m gives this process, and as a shell may.
    monkeypatch.setattr(sys, "path", [str(folder), "", ".", *sys.path])
    if request.param != "-P":
        monkeypatch.setattr(child, "_HAS_SAFE_PATH", False)
    return lambda: sorted(path.name for path in tmp_path.iterdir() if path.is_file())


OLD = {"PYTHONSAFEPATH": ""}
"""The variable that Python 3.10 does not know, as if it were not there."""


def test_a_child_runs_nothing_that_lies_in_the_current_folder(planted):
    ended = run_python(("-c", "import json, subprocess, numpy, sys; print(sys.argv[1:])", "a", "b"), timeout_s=60,
                       changes=OLD)  # fmt: skip
    assert (ended.problem, ended.lines) == (None, ("['a', 'b']",))
    assert run_python(("-m", "json.tool", "--help"), timeout_s=60, changes=OLD).problem is None
    assert "No module named program" in run_python(("-m", "program"), timeout_s=60, changes=OLD).said
    assert planted() == []


def test_a_child_gets_its_arguments_and_its_name(tmp_path, monkeypatch):
    (tmp_path / "tells.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for safe in (True, False):
        monkeypatch.setattr(child, "_HAS_SAFE_PATH", safe)
        assert run_python(("-m", "tells", "a b"), timeout_s=60).lines == ("__main__ ['a b']",)


def test_a_grandchild_runs_nothing_that_lies_in_the_current_folder(planted):
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no variable for it")
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import json'], check=True)"
    assert run_python(("-c", code), timeout_s=60).problem is None
    assert planted() == []


def test_a_child_starts_where_the_current_folder_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run_python(("-c", "print('here')"), timeout_s=60).lines == ("here",)
