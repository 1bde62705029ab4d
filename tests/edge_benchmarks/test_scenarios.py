"""The single-stream loop: what it refuses, when the warm-up ends, what it counts."""

from itertools import cycle

import numpy as np
import pytest

from edge_benchmarks import report, scenarios
from edge_sdk.errors import InputError
from edge_sdk.testing import FakeClock

FRAME = np.zeros((48, 64, 3), np.uint8)


class Paced:
    """A model whose frames take the given nanoseconds of a fake clock."""

    def __init__(self, model, clock, durations):
        self.model, self.clock, self.durations = model, clock, durations

    def __call__(self, image):
        self.clock.advance(next(self.durations))
        return self.model(image)


@pytest.fixture
def paced(make_model):
    clock = FakeClock()
    return lambda durations: (Paced(make_model(), clock, durations), clock)


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf")])
def test_a_duration_that_is_not_positive_and_finite_is_refused(duration):
    with pytest.raises(InputError, match="duration") as caught:
        scenarios.run("fer-yolo11n", duration_s=duration)
    assert caught.value.remedy


def test_an_unknown_scenario_is_refused():
    with pytest.raises(InputError, match="'offline'") as caught:
        scenarios.run("fer-yolo11n", scenario="offline")
    assert "single-stream" in caught.value.remedy


def test_warm_up_ends_when_three_windows_agree(paced):
    model, clock = paced(cycle([1_000_000]))
    warm = scenarios.warm_up(model, cycle([FRAME]), cap_s=10, clock=clock)
    # Windows of half a second, of one-millisecond frames.
    assert warm == report.WarmUp(1.5, 1500, stable=True)


def test_warm_up_waits_for_what_settles(paced):
    slow = [int(1_000_000 * (1 + 4 / (1 + n / 200))) for n in range(3000)]
    model, clock = paced(iter(slow + [1_000_000] * 20_000))
    warm = scenarios.warm_up(model, cycle([FRAME]), cap_s=30, clock=clock)
    assert warm.stable
    assert 4.5 < warm.seconds < 30


def test_warm_up_gives_up_at_its_cap(paced):
    # Every frame is a hundredth slower than the one before, so every window is much slower.
    durations = (int(1_000_000 * 1.01**n) for n in range(1000))
    model, clock = paced(durations)
    warm = scenarios.warm_up(model, cycle([FRAME]), cap_s=2, clock=clock)
    assert not warm.stable
    assert 2 <= warm.seconds < 2.5


def test_too_few_frames_for_three_windows_are_not_stable(paced):
    model, clock = paced(cycle([100_000_000]))
    warm = scenarios.warm_up(model, cycle([FRAME]), cap_s=2, clock=clock)
    assert warm == report.WarmUp(2.0, 20, stable=False)


def test_every_frame_counts_the_slowest_too(paced):
    model, clock = paced(iter([5_000_000, 900_000_000, 5_000_000, 90_000_000, 5_000_000]))
    samples = scenarios.measure(model, cycle([FRAME]), duration_s=1, clock=clock)
    assert samples.stages["end_to_end"] == [5_000_000, 900_000_000, 5_000_000, 90_000_000]
    assert samples.faces == 4
    assert {len(ns) for ns in samples.stages.values()} == {4}


def test_one_frame_is_measured_however_short_the_duration(paced):
    model, clock = paced(cycle([80_000_000]))
    assert len(scenarios.measure(model, cycle([FRAME]), duration_s=1e-9, clock=clock)) == 1


def test_progress_is_shown_ten_times_a_second_at_most(paced):
    model, clock = paced(cycle([1_000_000]))
    shown = []
    scenarios.measure(
        model,
        cycle([FRAME]),
        duration_s=1,
        clock=clock,
        progress=lambda done, total: shown.append((done, total)),
    )
    assert 2 <= len(shown) <= 11
    assert shown[-1] == (1000, 1000)


def test_a_run_reports_what_it_did(make_model, monkeypatch):
    monkeypatch.setattr(scenarios, "load", lambda bundle, threads: make_model())
    run = scenarios.run("some.edge", duration_s=0.2, threads=3)
    assert (run.name, run.target, run.precision, run.bundle) == (
        "fer-yolo11n",
        "onnxruntime",
        "fp32",
        "some.edge",
    )
    assert run.environment.threads == 3
    assert run.frames.faces_reported == 1
    assert run.frames.faces_drawn == 1.75
    assert {len(run.samples_ns[stage]) for stage in report.STAGES} == {run.count}
    for total, *parts in zip(*(run.samples_ns[s] for s in reversed(report.STAGES)), strict=True):
        assert sum(parts) <= total
    assert max(map(len, report.table([run]).splitlines())) <= 100


def test_a_network_that_sees_nothing_is_said_to(make_model, monkeypatch):
    monkeypatch.setattr(scenarios, "load", lambda bundle, threads: make_model(faces=()))
    run = scenarios.run("some.edge", duration_s=0.05)
    assert run.frames.faces_reported == 0
    assert any("no face" in note for note in run.notes)


def test_the_model_is_closed_when_the_run_ends(make_model, monkeypatch):
    model = make_model()
    monkeypatch.setattr(scenarios, "load", lambda bundle, threads: model)
    scenarios.run("some.edge", duration_s=0.05)
    assert model.session.closed
