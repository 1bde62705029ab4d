"""A verdict with reasons, JSON there and back, traces packed small."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_benchmarks import report
from edge_sdk.bundle import GateResult
from edge_sdk.errors import InputError


def test_a_run_is_valid_when_nothing_speaks_against_it(make_run):
    run = make_run()
    assert (run.verdict, run.reasons, run.unknown) == ("VALID", (), ())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"health": {"background_share": 0.11}}, "others took 11% of all cores"),
        ({"health": {"background_share": None}}, "background load is unknown"),
        ({"health": {"throttled": True, "throttle": "under-voltage now"}}, "throttled: under-voltage now"),
        ({"health": {"clock_cv": 0.04}}, "the clock varied by 4.0%"),
        ({"health": {"swapped_in": 3}}, "swap: 3 pages"),
        ({"health": {"golden": False}}, "golden vectors"),
        ({"gate": GateResult(evaluation=None, metrics={})}, "missing gate"),
        ({"warm_up": report.WarmUp(10.0, 500, stable=False)}, "UNSTABLE"),
        ({"count": 10}, "too few samples: 10"),
        ({"incomplete": "interrupted by the user"}, "incomplete: interrupted"),
    ],
)
def test_what_makes_a_run_invalid(make_run, changes, reason):
    run = make_run(**changes)
    assert run.verdict == "INVALID"
    assert len(run.reasons) == 1
    assert reason in run.reasons[0]


def test_reasons_add_up(make_run):
    assert len(make_run(count=3, health={"background_share": None}).reasons) == 2


def test_what_the_machine_cannot_tell_is_unknown_and_not_fine(make_run):
    run = make_run(health={"throttled": None, "clock_cv": None, "swapped_in": None})
    assert run.unknown == ("throttling", "clocks", "swap")
    assert run.to_dict()["unknown"] == ["throttling", "clocks", "swap"]


def test_a_moving_clock_may_be_wanted(make_run):
    assert make_run(health={"clock_cv": 0.2, "as_shipped": True}).verdict == "VALID"


def test_throttling_is_what_sustained_measures_and_no_reason_against_it(make_run):
    sustained = report.Scenario("sustained", duration_s=900.0)
    assert make_run(scenario=sustained, health={"throttled": True, "clock_cv": 0.2}).verdict == "VALID"


def test_json_goes_there_and_back(make_run, tmp_path):
    runs = (make_run(), make_run(count=20, notes=("a note",), environment={"governor": None}))
    path = tmp_path / "runs.json"
    failure = report.Failure("b.edge", "no engine", "install one")
    report.save(runs, path, [failure])
    found = report.read_report(path)
    assert found == report.Report(runs, (failure,))
    for before, after in zip(runs, found.runs, strict=True):
        assert before.traces.keys() == after.traces.keys()
        assert all((before.traces[name] == after.traces[name]).all() for name in before.traces)
    plain = json.loads(path.read_text())
    assert plain["schema"] == report.SCHEMA
    assert plain["runs"][1]["stages"]["infer"]["percentiles"]["p99"] is None
    assert plain["runs"][1]["environment"]["governor"] is None
    assert plain["runs"][0]["energy"]["net_mj"] is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_verdict_in_a_file_is_made_again_and_not_believed(make_run, tmp_path):
    path = tmp_path / "run.json"
    make_run(health={"swapped_in": 5}).save(path)
    path.write_text(path.read_text().replace('"verdict": "INVALID"', '"verdict": "VALID"'))
    assert report.read(path)[0].verdict == "INVALID"


def test_single_samples_are_saved_and_not_printed(make_run):
    plain = make_run().to_dict()
    assert plain["traces"] == {}
    assert (plain["schema"], plain["verdict"], plain["reasons"]) == (report.SCHEMA, "VALID", [])
    json.dumps(plain, allow_nan=False)


def test_traces_are_kept_to_the_nanosecond_in_few_bytes():
    samples = np.random.default_rng(0).normal(10e6, 1e5, 10_000).astype(np.int64)
    packed = report.pack(samples)
    assert (report.unpack(packed) == samples).all()
    assert len(packed["data"]) < 5 * len(samples)
    assert len(report.unpack(report.pack(samples[:0]))) == 0


@pytest.mark.parametrize(
    "packed",
    [None, {}, {"count": 2, "data": "!"}, {"count": -1, "data": ""}, {"count": 10**12, "data": ""},
     {"count": 1, "data": "AAAA"}, {**report.pack(np.zeros(100_000, np.int64)), "count": 3}],
)  # fmt: skip
def test_a_damaged_or_lying_trace_is_refused(packed):
    with pytest.raises(ValueError, match=r"trace|Only base64|padding|Incorrect|base64"):
        report.unpack(packed)


def test_traces_share_one_limit(make_run, tmp_path, monkeypatch):
    run = replace(
        make_run(), traces={name: np.arange(60, dtype=np.int64) for name in ("infer", "end_to_end")}
    )
    path = tmp_path / "run.json"
    report.save([run, run], path)
    for limit, fits in ((240, True), (239, False), (60, False)):
        monkeypatch.setattr(report, "MAX_SAMPLES", limit)
        if fits:
            assert len(report.read(path)) == 2
        else:
            with pytest.raises(InputError, match="a trace of 60 samples"):
                report.read(path)


def test_what_could_not_be_read_is_not_written(make_run, tmp_path, monkeypatch):
    run = replace(make_run(), traces={"infer": np.arange(60, dtype=np.int64)})
    monkeypatch.setattr(report, "MAX_SAMPLES", 59)
    with pytest.warns(UserWarning, match="60 single samples are left out"):
        report.save([run], tmp_path / "run.json")
    (read,) = report.read(tmp_path / "run.json")
    assert (read, dict(read.traces)) == (run, {})


def test_a_report_of_too_many_parts_or_bytes_is_not_parsed(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_text('{"schema": 2, "runs": [' + ",".join(["[]"] * 2000) + "]}")
    monkeypatch.setattr(report.json, "loads", lambda text: pytest.fail("it was parsed"))
    monkeypatch.setattr(report, "MAX_PARTS", 4001)
    with pytest.raises(InputError, match="4,002 parts, a report at most 4,001"):
        report.read(path)
    monkeypatch.setattr(report, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="a report at most 100"):
        report.read(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": 2, "runs": ' + "[" * 100_000])
def test_a_report_that_is_too_deep_is_no_report(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a benchmark report"):
        report.read(path)


def test_an_unwritable_place_is_an_input_error_and_leaves_nothing(make_run, tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        report.save([make_run()], tmp_path / "missing" / "run.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        report.save([make_run()], tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": 2}', '{"schema": 2, "runs": [{"name": "x"}]}', '{"schema": 2, "runs": [3]}',
     '{"schema": 2, "runs": 3}'],
)  # fmt: skip
def test_another_file_is_not_a_report(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a benchmark report"):
        report.read(path)


def test_a_report_of_another_schema_names_both(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"schema": 1, "runs": []}')
    with pytest.raises(InputError, match="of schema 1, this version reads 2"):
        report.read(path)


def test_a_missing_report_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        report.read(tmp_path / "missing.json")


def test_a_run_saves_itself(make_run, tmp_path):
    run = replace(make_run(), incomplete="interrupted by the user")
    run.save(tmp_path / "run.json")
    assert report.read(tmp_path / "run.json") == (run,)
