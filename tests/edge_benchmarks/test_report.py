"""Percentiles only when they can be known, a verdict with reasons, JSON there and back, a table that fits."""

import json
from dataclasses import replace

import pytest

from edge_benchmarks import report
from edge_sdk.errors import InputError


@pytest.mark.parametrize(("name", "needed"), report.MIN_SAMPLES.items())
def test_a_percentile_needs_enough_samples(name, needed):
    assert report.percentiles(range(needed - 1))[name] is None
    assert report.percentiles(range(needed))[name] is not None


def test_the_counts_are_those_of_mlperf():
    assert report.MIN_SAMPLES == {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}


def test_percentiles_are_measured_values_by_nearest_rank():
    samples = [n * 1_000_000 for n in range(10_000, 0, -1)]  # 10000 ms down to 1 ms
    assert report.percentiles(samples) == {
        "p50": 5000,
        "p90": 9000,
        "p95": 9500,
        "p99": 9900,
        "p99.9": 9990,
    }


def test_no_outlier_is_removed():
    assert report.percentiles([1_000_000] * 5 + [10**12] * 6)["p50"] == 10**6


def test_a_run_is_valid_when_nothing_speaks_against_it(make_run):
    assert make_run().verdict == "VALID"
    assert make_run().reasons == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"environment": {"background_share": 0.11}}, "others took 11% of all cores"),
        ({"environment": {"background_share": None}}, "background load is unknown"),
        ({"gate": report.GateResult(evaluation=None, metrics={})}, "missing gate"),
        ({"warm_up": report.WarmUp(10.0, 500, stable=False)}, "UNSTABLE"),
        ({"count": 10}, "too few samples: 10"),
    ],
)
def test_what_makes_a_run_invalid(make_run, changes, reason):
    run = make_run(**changes)
    assert run.verdict == "INVALID"
    assert len(run.reasons) == 1
    assert reason in run.reasons[0]


def test_reasons_add_up(make_run):
    run = make_run(count=3, environment={"background_share": None})
    assert len(run.reasons) == 2


def test_json_goes_there_and_back(make_run, tmp_path):
    runs = (make_run(), make_run(count=20, notes=("a note",), environment={"governor": None}))
    path = tmp_path / "runs.json"
    report.save(runs, path)
    assert report.read(path) == runs
    plain = json.loads(path.read_text())
    assert plain["schema"] == 1
    assert plain["runs"][1]["latency_ms"]["infer"]["p99"] is None
    assert plain["runs"][1]["environment"]["governor"] is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_saves_itself(make_run, tmp_path):
    run = make_run()
    run.save(tmp_path / "run.json")
    assert report.read(tmp_path / "run.json") == (run,)


def test_single_samples_are_saved_and_not_printed(make_run):
    plain = make_run().to_dict()
    assert plain["samples_ns"] == {}
    assert (plain["schema"], plain["verdict"], plain["reasons"]) == (1, "VALID", [])
    json.dumps(plain, allow_nan=False)


def test_an_unwritable_place_is_an_input_error_and_leaves_nothing(make_run, tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        report.save([make_run()], tmp_path / "missing" / "run.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        report.save([make_run()], tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": 2, "runs": []}', '{"schema": 1}', '{"schema": 1, "runs": [{"name": "x"}]}',
     '{"schema": 1, "runs": [3]}', '{"schema": 1, "runs": 3}'],
)  # fmt: skip
def test_another_file_is_not_a_report(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError):
        report.read(path)


def test_a_missing_report_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        report.read(tmp_path / "missing.json")


def test_the_table_starts_with_what_and_verdict(make_run):
    lines = report.table([make_run()]).splitlines()
    assert lines[0] == "fer-yolo11n onnxruntime fp32 VALID"
    shown = "\n".join(lines)
    for stage in ("preprocess", "infer", "postprocess", "end to end"):
        assert stage in shown


def test_the_table_says_what_is_not_known(make_run):
    text = report.table([make_run(count=20, environment={"governor": None, "load_before": None})])
    assert "n/a (n=20)" in text
    assert "governor unknown" in text
    assert "load unknown before" in text


def test_the_table_fits_a_hundred_columns_of_plain_text(make_run):
    long = {"board": None, "cpu": "Some Processor With A Very Long Name " * 5, "background_share": None}
    run = replace(make_run(count=20, environment=long, notes=("word " * 60,)), count=9_999_999)
    text = report.table([run, make_run()])
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
    assert text.count("fer-yolo11n onnxruntime fp32") == 2
