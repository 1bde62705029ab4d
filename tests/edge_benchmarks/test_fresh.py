"""Processes of their own: cold starts, memory, and accuracy of the very bundle."""

import pytest
import toys

from edge_benchmarks import accuracy, cold, memory, scenarios
from edge_benchmarks.frames import frame_set
from edge_benchmarks.scenarios import Options
from edge_benchmarks.system_under_test import items_of
from edge_sdk import zoo
from edge_sdk.errors import InputError, LoadFailed, SourceUnavailable
from edge_sdk.target import available_targets
from edge_sdk.timing import now_ns


@pytest.fixture
def shipped():
    """A bundle that can really run here."""
    found = [b.path for b in zoo.bundles("fer-yolo11n") if b.target in available_targets()]
    if not found:
        pytest.skip("no engine of a shipped bundle is installed")
    return found[0]


def test_a_cold_start_is_the_sum_of_its_phases_and_pythons_own(shipped):
    run = scenarios.run(shipped, scenario=scenarios.named_scenario("cold", processes=1))
    assert run.count == 1
    assert tuple(run.stages) == (*cold.PHASES, "end_to_end")
    phases = sum(run.stages[phase].mean_ms for phase in cold.PHASES)
    assert 0 < phases < run.stages["end_to_end"].mean_ms
    assert all(run.stages[phase].min_ms > 0 for phase in cold.PHASES)
    assert "too few samples" in run.reasons[-1]


def test_memory_grows_from_start_to_peak(shipped):
    item = items_of(frame_set(), "found")[0]
    found = memory.measure(shipped, item, threads=1, frames=3)
    assert 0 < found.start_mb < found.loaded_mb <= found.peak_mb
    assert found.pss_mb is None or 0 < found.pss_mb <= found.peak_mb
    assert found.frames == 3


def test_a_process_that_fails_ends_the_run_and_keeps_the_others(make_model, monkeypatch):
    monkeypatch.setattr(scenarios, "load", lambda bundle, **_: make_model())
    answers = iter([{}, {}])

    def ask(*_, **__):
        next(answers, None) is not None or fail()
        return dict.fromkeys(cold.PHASES, 1000000) | {"faces": 1, "answered_at": now_ns() + 9_000_000}

    def fail():
        raise LoadFailed("the engine is gone", remedy="look")

    monkeypatch.setattr(cold.child_process, "json_of", ask)
    run = scenarios.run("some.edge", scenario=scenarios.named_scenario("cold", processes=5))
    # The first process fills the caches and does not count.
    assert run.count == 1
    assert run.incomplete == "LoadFailed: the engine is gone"


def test_the_page_cache_is_dropped_through_the_kernel_or_it_is_an_error(tmp_path):
    control = tmp_path / "drop_caches"
    control.write_text("")
    cold.drop_page_cache(control)
    assert control.read_text() == "3\n"
    with pytest.raises(SourceUnavailable, match="cannot be dropped"):
        cold.drop_page_cache(tmp_path / "missing" / "drop_caches")


def test_accuracy_can_be_measured_in_the_same_report(toy_bundle, toy_engine, monkeypatch, tmp_path):
    pytest.importorskip("pycocotools")
    monkeypatch.setattr(scenarios, "find_target", lambda name: toy_engine)
    data = toys.write_pictures(tmp_path / "val", 12, seed=3)
    run = scenarios.run(toy_bundle, duration_s=0.2, options=Options(data=data))
    assert run.accuracy.source == "measured"
    assert run.accuracy.items == 12
    figure = run.accuracy.metrics["map50"]
    assert figure.low <= figure.value <= figure.high
    with pytest.raises(InputError):
        accuracy.measure(toy_bundle, tmp_path / "missing", threads=1)
