"""Cross-checks: which figures are compared, and what a tool that fails costs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_benchmarks import crosscheck
from edge_benchmarks.crosscheck import Figure, Row, SessionUnderTest, Tool
from edge_sdk.errors import InferFailed

PROGRAM = Path(__file__).parent / "programs" / "loadgen_session.py"


def tool(name, measure, of="median"):
    return Tool(name, (), ("json", "nothing"), measure, of, "differs in nothing")


def test_figures_of_the_same_inferences_go_before_those_of_the_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(crosscheck, "closed_loop", lambda subject, seconds: Figure(2.0, 3.0))
    rows = [
        Row(tool("inside", lambda s, t, a: (5.2, Figure(5.0, 9.0)))),
        Row(tool("outside", lambda s, t, a: (2.2, None))),
        Row(tool("mean", lambda s, t, a: (3.0, None), of="mean")),
    ]
    crosscheck.take_turns(SessionUnderTest(None, [], tmp_path, 1), rows, rounds=3, seconds=1)
    assert [row.ours_ms[0] for row in rows] == [5.0, 2.0, 3.0]
    assert [row.agrees for row in rows] == [True, False, True]
    assert len(rows[0].ratios) == 3


def test_a_tool_that_fails_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(crosscheck, "closed_loop", lambda subject, seconds: Figure(2.0, 3.0))

    def broken(subject, seconds, about):
        raise InferFailed("it fell", remedy="lift it")

    row = Row(tool("broken", broken))
    crosscheck.take_turns(SessionUnderTest(None, [], tmp_path, 1), [row], rounds=2, seconds=1)
    assert row.agrees is None
    assert "it fell" in row.missing


def test_a_tool_that_is_not_installed_names_the_command():
    missing = Tool(
        "none", (), ("no_such_module.inside", "pip install it"), lambda s, t, a: (1.0, None), "median", ""
    )
    assert crosscheck._missing(missing) == "not installed: pip install it"


def test_loadgens_log_is_read():
    lines = [
        ":::MLLOG " + json.dumps({"key": "loadgen_version", "value": "6"}),
        ":::MLLOG " + json.dumps({"key": "result_samples_per_second", "value": 200.0}),
    ]
    assert crosscheck.loadgen_results("\n".join(lines)) == {"result_samples_per_second": 200.0}
    with pytest.raises(InferFailed, match="no result"):
        crosscheck.loadgen_results(lines[0])


def test_loadgen_runs_our_session():
    pytest.importorskip("mlperf_loadgen", reason="the loadgen extra is not installed")
    # A process of its own: LoadGen is native code with threads, and a test run must outlive it.
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for theirs, ours in json.loads(done.stdout):
        assert theirs == pytest.approx(ours, rel=0.25)
