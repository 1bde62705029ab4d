"""Like with like, how sure a change is, what a rule calls a regression, and the exit codes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_benchmarks import compare as comparing
from edge_benchmarks import report
from edge_benchmarks.compare import parse_rule, table
from edge_sdk.cli import main
from edge_sdk.errors import InputError


def compare(base, run, **options):
    return comparing.compare(base, run, draws=500, **options)


def quiet(seed, scale=1.0, count=700):
    rng = np.random.default_rng(seed)
    return (rng.normal(10e6, 3e5, count) * scale).astype(np.int64)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("e2e.p99>+5%", ("e2e.p99", ">", 0.05)),
        (" throughput < -2.5 % ", ("throughput", "<", -0.025)),
        ("accuracy.map50<-1%", ("accuracy.map50", "<", -0.01)),
        ("energy.net>10%", ("energy.net", ">", 0.1)),
        ("infer.p99.9>0%", ("infer.p99.9", ">", 0.0)),
    ],
)
def test_rules_are_a_small_grammar(text, rule):
    found = parse_rule(text)
    assert (found.metric, found.direction, found.limit) == rule


@pytest.mark.parametrize(
    "text", ["", "e2e.p99", "e2e.p99>5", "e2e.p98>5%", "e2e>5%", "latency>5%", "e2e.p50>-5%", "throughput<5%"]
)
def test_anything_else_is_refused_and_told_the_grammar(text):
    with pytest.raises(InputError) as caught:
        parse_rule(text)
    assert "e2e" in caught.value.remedy or "METRIC" in caught.value.remedy


def test_a_slower_run_is_a_regression_and_its_interval_holds_the_truth(make_run):
    base, run = make_run(end_to_end=quiet(1)), make_run(end_to_end=quiet(2, 1.10))
    found = compare([base], [run], rules=[parse_rule("e2e.p50>+5%")])
    (pair,) = found.pairs
    change = next(c for c in pair.changes if c.metric == "e2e.p50")
    assert change.low < 0.10 < change.high
    assert change.p < 0.05
    assert len(found.regressions) == 1


def test_a_change_below_the_limit_is_none(make_run):
    base, run = make_run(end_to_end=quiet(1)), make_run(end_to_end=quiet(2, 1.03))
    found = compare([base], [run], rules=[parse_rule("e2e.p50>+5%")])
    assert found.regressions == ()
    assert next(c for c in found.pairs[0].changes if c.metric == "e2e.p50").sure


def test_what_may_be_chance_is_no_regression(make_run):
    rng = np.random.default_rng(0)
    # Blocks of slow and fast seconds: the medians differ, and would again.
    a, b = (np.repeat(rng.normal(10e6, 3e6, 12).clip(2e6), 100).astype(np.int64) for _ in range(2))
    slow, fast = sorted((a, b), key=np.median)[::-1]
    found = compare(
        [make_run(end_to_end=fast)], [make_run(end_to_end=slow)], rules=[parse_rule("e2e.p50>+0%")]
    )
    assert found.pairs[0].changes[0].change > 0
    assert found.regressions == ()


def test_equal_runs_raise_no_false_alarm_more_often_than_they_may(make_run):
    rule = [parse_rule("e2e.p50>+0%"), parse_rule("e2e.p90>+0%")]
    alarms = sum(
        bool(
            compare(
                [make_run(end_to_end=quiet(2 * n, count=300))],
                [make_run(end_to_end=quiet(2 * n + 1, count=300))],
                rules=rule,
            ).regressions
        )
        for n in range(12)
    )
    assert alarms <= 2


def test_processes_that_differ_widen_the_interval(make_run):
    def widths(scales):
        base = [make_run(end_to_end=quiet(n, s)) for n, s in enumerate(scales)]
        run = [make_run(end_to_end=quiet(9 + n, s)) for n, s in enumerate(scales)]
        (pair,) = compare(base, run).pairs
        return {c.metric: c.high - c.low for c in pair.changes if c.low is not None}

    apart, alike = widths((0.8, 1.0, 1.2)), widths((1.0, 1.0, 1.0))
    assert "throughput" not in apart  # too short: a figure without an interval
    assert apart["e2e.p50"] > 3 * alike["e2e.p50"]


def test_throughput_is_drawn_by_seconds_and_by_processes(make_run):
    def changes(scale):
        base = [make_run(end_to_end=quiet(n, 1.0, 1500)) for n in range(2)]
        run = [make_run(end_to_end=quiet(9 + n, scale, 1500)) for n in range(2)]
        (pair,) = compare(base, run).pairs
        return next(c for c in pair.changes if c.metric == "throughput")

    slower = changes(1.25)
    assert abs(slower.change + 0.2) < 0.01
    assert slower.p < 0.05
    assert changes(1.0).p > 0.05


def test_runs_of_different_length_are_compared(make_run, monkeypatch):
    long = make_run(end_to_end=quiet(1, count=4000))
    assert compare([make_run(end_to_end=quiet(2))], [long]).pairs[0].changes


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("cpu", {"environment": {"cpu": "another"}}),
        ("governor", {"environment": {"governor": "ondemand"}}),
        ("engine_version", {"environment": {"engine_version": "9"}}),
        ("frames", {"frames": report.Frames("own", "ef" * 32, 3, "640x480", "frame", 1.0, ())}),
    ],
)
def test_unlike_environments_are_refused_by_name_unless_accepted(make_run, field, changes):
    base, run = make_run(), make_run(**changes)
    with pytest.raises(InputError, match=field) as caught:
        compare([base], [run])
    assert f"--across {field}" in caught.value.remedy
    assert compare([base], [run], across=[field]).accepted[0].startswith(field)


def test_only_runs_of_one_kind_are_paired(make_run):
    other = make_run(target="openvino")
    found = compare([make_run(), other], [make_run(), make_run(environment={"threads": 1})])
    assert len(found.pairs) == 1
    assert "openvino" in found.only_base[0]
    assert "1 threads" in found.only_run[0]
    paced = make_run(scenario=report.Scenario("paced", 10.0, fps=30.0, drop="latest"))
    with pytest.raises(InputError, match="no measurement in common"):
        compare([make_run()], [paced])


def test_two_files_of_one_bundle_each_are_compared_whatever_they_are(make_run):
    int8 = make_run(precision="int8", end_to_end=quiet(3, 0.5))
    (pair,) = compare([make_run(end_to_end=quiet(1))], [int8]).pairs
    assert "->" in pair.title
    assert -0.52 < pair.changes[0].change < -0.48


def test_figures_without_samples_are_held_to_their_rules_too(make_run):
    def accurate(value):
        figures = {"map50": report.Figure(value, None, None)}
        return make_run(accuracy=report.Accuracy("gate", 100, "0" * 64, figures))

    found = compare([accurate(0.8)], [accurate(0.7)], rules=[parse_rule("accuracy.map50<-1%")])
    assert "-12.5%" in found.regressions[0]


def test_energy_of_different_sources_is_not_compared(make_run):
    def drawing(source, gross):
        return make_run(energy=report.Energy(source, "all", "", gross, None, 5.0, None, 100))

    rule = [parse_rule("energy.gross>+5%")]
    assert compare([drawing("RAPL", 10.0)], [drawing("RAPL", 20.0)], rules=rule).regressions
    found = compare([drawing("RAPL", 10.0)], [drawing("meter", 20.0)], rules=rule)
    assert found.regressions == ()
    assert len(found.unjudged) == 1


def test_the_table_fits_a_hundred_columns(make_run):
    runs = [make_run(count=20), make_run(name="a-model-with-a-rather-long-name", count=900)]
    shown = table(compare(runs, runs, rules=[parse_rule("e2e.p99>+5%")]))
    assert max(map(len, shown.splitlines())) <= 100
    assert "cannot judge e2e.p99>+5%" in shown


@pytest.fixture
def files(make_run, tmp_path):
    """A base, an equal run, and one that is a tenth slower."""
    found = {}
    for name, samples in (("base", quiet(1)), ("same", quiet(2)), ("slow", quiet(3, 1.1))):
        found[name] = str(tmp_path / f"{name}.json")
        make_run(end_to_end=samples).save(found[name])
    return found


def test_the_verb_exits_with_one_on_a_regression(files, capsys):
    assert main(["compare", files["base"], files["same"]]) == 0
    assert "no regression" in capsys.readouterr().out
    assert main(["compare", files["base"], files["slow"]]) == 1
    assert "REGRESSION e2e.p50>+5%" in capsys.readouterr().out
    assert main(["compare", files["base"], files["slow"], "--fail-if", "e2e.p50>+20%"]) == 0
    capsys.readouterr()
    assert main(["compare", files["base"], files["slow"], "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["regression"] is True


def test_a_rule_that_cannot_be_judged_is_not_kept(files, capsys):
    assert main(["compare", files["base"], files["same"], "--fail-if", "e2e.p99.9>+5%"]) == 2
    assert "cannot judge" in capsys.readouterr().err


def test_bad_input_is_two_lines_and_exit_code_two(files, tmp_path, capsys, make_run):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for arguments in (
        [files["base"], str(broken)],
        [files["base"], str(tmp_path / "missing.json")],
        [files["base"], files["same"], "--fail-if", "faster"],
        [files["base"], files["same"], "--across", "weather"],
    ):
        assert main(["compare", *arguments]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2
    unlike = tmp_path / "unlike.json"
    replace(make_run(environment={"cpu": "another"})).save(unlike)
    assert main(["compare", files["base"], str(unlike)]) == 2
    assert "unlike environments: cpu" in capsys.readouterr().err
