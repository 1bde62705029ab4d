"""A matrix of measurements: what it names, what it cannot make, and that nothing measured is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_benchmarks import loops, report, scenarios, suite
from edge_benchmarks.scenarios import Options
from edge_sdk import zoo
from edge_sdk.cli import main
from edge_sdk.errors import InferFailed, InputError, UnknownTarget

ROOT = Path(__file__).parents[2]


def write(tmp_path, text):
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    return path


def planned(tmp_path, text):
    path = write(tmp_path, text)
    return suite.cells(suite.read_suite(path), tmp_path, Options())


def test_a_matrix_has_every_combination(tmp_path, make_bundle):
    make_bundle("a")
    cells, missing = planned(
        tmp_path,
        'name = "m"\nmodels = ["a.edge"]\nscenarios = ["single-stream", "paced", "cold"]\n'
        'threads = [1, 2]\nsizes = ["640x480", "1280x720"]\nduration_s = 3\nfps = 15.0',
    )
    assert missing == []
    assert len({str(cell) for cell in cells}) == len(cells) == 12
    by_kind = {cell.scenario.kind: cell.scenario for cell in cells}
    assert by_kind["single-stream"].duration_s == 3
    assert by_kind["paced"].fps == 15
    assert by_kind["cold"].duration_s is None


@pytest.mark.skipif(not zoo.bundles("fer-yolo11n"), reason="no bundle is shipped")
def test_holes_of_a_matrix_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "available_targets", lambda: ("openvino", "tflite"))
    text = 'name = "m"\nmodels = ["fer-yolo11n"]\nprecisions = ["int8", "int8-mixed", "fp16"]\n'
    cells, missing = planned(tmp_path, text)
    assert {Path(cell.bundle).name.split(".")[1] for cell in cells} == {
        "openvino-int8-mixed",
        "tflite-int8-mixed",
    }
    said = {failure.what: failure.message for failure in missing}
    assert "no such bundle" in said["fer-yolo11n openvino fp16"]
    assert "not installed" in said["fer-yolo11n onnxruntime int8-mixed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "m"\nmodels = ["fer-none"]', "fer-none"),
        ('name = "m"\nmodels = ["missing.edge"]', r"missing\.edge"),
        ('name = "m"\nmodels = []', "names no model"),
        ('name = "m"\nmodels = ["fer-yolo11n"]\ntargets = ["abacus"]', "no bundle of fer-yolo11n fits"),
        ('name = "m"\nmodels = ["a.edge"]\nscenarios = ["burst"]', "'burst'"),
        ('name = "m"\nmodels = ["a.edge"]\nduration_s = 0', "duration"),
        ('name = "m"\nmodels = ["a.edge"]\nsizes = ["big"]', "'big'"),
        ('name = "m"\nmodels = ["a.edge"]\nthreads = [0]', "threads"),
        ('name = "m"\nmodels = ["a.edge"]\nspeed = 3', "unknown key 'speed'"),
        ('models = ["a.edge"]', "lacks the key 'name'"),
        ("name = ", "cannot read"),
    ],
)
def test_a_wrong_suite_is_refused_before_anything_is_measured(tmp_path, make_bundle, text, message):
    make_bundle("a")
    with pytest.raises((InputError, UnknownTarget), match=message):
        planned(tmp_path, text)
    assert main(["bench", "--suite", str(tmp_path / "matrix.toml")]) == 2


def test_the_repositorys_suites_can_be_read():
    found = [suite.read_suite(path) for path in (ROOT / "benchmarks" / "suites").glob("*.toml")]
    assert {"engines", "publication", "scaling"} <= {s.name for s in found}


def test_a_cell_goes_to_another_process_and_stays_the_same():
    options = Options(frames=Path("a"), size=(640, 480), data=Path("b"), threads=2)
    cell = suite.Cell("x.edge", scenarios.named_scenario("paced", fps=7.5), options)
    assert suite._cell(suite._plain(cell)) == cell


@pytest.fixture
def measure(monkeypatch, make_run):
    """Measure by a script: a run, an error, or KeyboardInterrupt for each cell in turn."""

    def script(*outcomes):
        left = iter(outcomes)

        def run(bundle, **_):
            outcome = next(left)
            if isinstance(outcome, BaseException):
                raise outcome
            return make_run(bundle=bundle, **(outcome or {}))

        monkeypatch.setattr(suite.scenarios, "run", run)

    return script


def cells(*names):
    return [suite.Cell(name, scenarios.named_scenario("single-stream"), Options()) for name in names]


def test_an_engine_that_fails_costs_its_own_cell_only(measure):
    measure(None, InferFailed("gone", remedy="look"), None)
    kept = []
    runs, failures, code = suite.run(
        cells("a", "b", "c"), keep=lambda done, failed: kept.append((len(done), len(failed)))
    )
    assert [run.bundle for run in runs] == ["a", "c"]
    assert failures[0].message == "gone"
    assert code == 3
    assert kept == [(1, 0), (1, 1), (2, 1)]


def test_a_wrong_name_is_refused_before_anything_is_measured(measure, toy_bundle, capsys):
    measure()
    assert main(["bench", str(toy_bundle), "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
    assert main(["bench", str(toy_bundle), "--suite", "x.toml"]) == 2


def test_an_interrupt_keeps_what_came_before(measure):
    measure(None, KeyboardInterrupt(), None)
    runs, _, code = suite.run(cells("a", "b", "c"))
    assert ([run.bundle for run in runs], code) == (["a"], 130)
    measure(None, {"incomplete": loops.INTERRUPTED}, None)
    runs, _, code = suite.run(cells("a", "b", "c"))
    assert ([run.bundle for run in runs], code) == (["a", "b"], 130)


def test_a_run_cut_short_by_its_engine_is_kept_and_exits_with_three(measure):
    measure({"incomplete": "InferFailed: gone"}, None)
    runs, _, code = suite.run(cells("a", "b"))
    assert (len(runs), code) == (2, 3)


def test_a_single_bundles_error_is_the_commands(measure):
    measure(InputError("no", remedy="yes"))
    with pytest.raises(InputError):
        suite.run(cells("a"))


def test_a_fresh_process_that_fails_says_why():
    (cell,) = cells("missing.edge")
    with pytest.raises(Exception, match=r"missing\.edge"):
        suite.measure_in_fresh_process(cell)


PROGRAM = Path(__file__).parent / "programs" / "interruptible_bench.py"


def test_ctrl_c_still_writes_what_was_measured(toy_bundle, tmp_path):
    out = tmp_path / "run.json"
    path = os.pathsep.join(str(ROOT / p) for p in (".", "quantize", "targets", "benchmarks", "tests"))
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(toy_bundle), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as child:
        assert next(line for line in child.stdout if "measuring" in line)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        said, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    (run,) = report.read(out)
    assert run.incomplete == loops.INTERRUPTED
    assert run.verdict == "INVALID"
    assert run.count == len(run.traces["end_to_end"]) > 0
    assert "incomplete: interrupted by the user" in said
    assert "interrupted by the user" in Path(f"{out}.html").read_text()
