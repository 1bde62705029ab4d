"""What each scenario counts, when the warm-up ends, what is refused, and that nothing measured is lost."""

import threading
import time
from itertools import cycle

import numpy as np
import pytest
import toys

from edge_benchmarks import loops, render_html, render_text, report, scenarios, summary
from edge_benchmarks.frames import frame_set
from edge_benchmarks.system_under_test import Item, NullModel, item_stream, items_of
from edge_sdk.bundle import DataDigest, GateMetric, GateResult
from edge_sdk.errors import InferFailed, InputError
from edge_sdk.model import Model, ModelInfo
from edge_sdk.tasks.classification import ClassificationTask
from edge_sdk.testing import FakeClock, FakeSession

GATE = GateResult(DataDigest(100, "0" * 64), {"uar": GateMetric(0.81, 0.8, 0.01)})
ITEM = Item(0, np.zeros((48, 64, 3), np.uint8), None, 1)
STAGES = ("preprocess", "infer", "postprocess")


class SystemUnderTest:
    """Takes the given nanoseconds of a fake clock for each item, and says one face."""

    stages = STAGES

    def __init__(self, clock, durations):
        self.clock, self.durations = clock, durations

    def __call__(self, item):
        taken = next(self.durations)
        if isinstance(taken, BaseException):
            raise taken
        self.clock.advance(taken)
        return taken

    def read(self, decided):
        return 1, (decided // 10, decided * 8 // 10, decided // 10)


@pytest.fixture
def measured():
    """Run one loop on a fake clock; gives the measurement."""

    def run(loop, durations, *, columns=("capture", *STAGES), scenario=None, duration_s=1.0, **changes):
        clock = FakeClock()
        measurement = loops.Measurement(columns, duration_s=duration_s, clock=clock, **changes)
        measurement.begin()
        wanted = scenario or report.Scenario("single-stream", duration_s)
        subject = SystemUnderTest(clock, durations)
        measurement.guard(lambda: loop(measurement, [subject], cycle([ITEM]), wanted))
        return measurement

    return run


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_duration_that_is_not_positive_and_finite_is_refused(duration):
    with pytest.raises(InputError, match="duration") as caught:
        scenarios.run("fer-yolo11n", duration_s=duration)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "burst"}, "'burst'"),
        ({"kind": "single-stream", "fps": 30.0}, "has no fps"),
        ({"kind": "cold", "streams": 2}, "has no streams"),
    ],
)
def test_an_unknown_scenario_or_a_foreign_parameter_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        scenarios.named_scenario(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "paced", "fps": 0.0},
        {"kind": "multi-stream", "streams": 0},
        {"kind": "cold", "processes": -1},
    ],
)
def test_parameters_must_be_positive(given):
    with pytest.raises(InputError, match="positive"):
        scenarios.check(scenarios.named_scenario(**given), scenarios.Options())


def test_every_scenario_has_its_usual_parameters():
    for kind in scenarios.SCENARIOS:
        scenarios.check(scenarios.named_scenario(kind), scenarios.Options())
    assert scenarios.named_scenario("sustained").duration_s == 900


def test_warm_up_ends_when_three_windows_agree_but_not_before_its_least():
    clock = FakeClock()
    warm = loops.warm_up(SystemUnderTest(clock, cycle([1_000_000])), cycle([ITEM]), cap_s=6, clock=clock)
    # Windows of 100 one-millisecond frames, and a sixth of the cap at least.
    assert warm == report.WarmUp(1.0, 1000, stable=True)


def test_warm_up_waits_for_what_settles():
    clock = FakeClock()
    slow = [int(1_000_000 * (1 + 4 / (1 + n / 200))) for n in range(3000)]
    subject = SystemUnderTest(clock, iter(slow + [1_000_000] * 20_000))
    warm = loops.warm_up(subject, cycle([ITEM]), cap_s=30, clock=clock)
    assert warm.stable
    assert 5 <= warm.seconds < 30


def test_warm_up_gives_up_at_its_cap():
    clock = FakeClock()
    # Every frame is a hundredth slower than the one before, so every window is much slower.
    subject = SystemUnderTest(clock, (int(1_000_000 * 1.01**n) for n in range(1000)))
    warm = loops.warm_up(subject, cycle([ITEM]), cap_s=2, clock=clock)
    assert not warm.stable
    assert 2 <= warm.seconds < 2.5


def test_too_few_frames_for_three_windows_are_not_stable():
    clock = FakeClock()
    subject = SystemUnderTest(clock, cycle([100_000_000]))
    warm = loops.warm_up(subject, cycle([ITEM]), cap_s=2, clock=clock)
    assert warm == report.WarmUp(2.0, 20, stable=False)


def test_every_frame_counts_the_slowest_too(measured):
    durations = [5_000_000, 900_000_000, 5_000_000, 90_000_000, 5_000_000]
    found = measured(loops.single_stream, iter(durations)).traces()
    assert found["end_to_end"].tolist() == durations[:4]
    assert found["at"].tolist() == [0, 5_000_000, 905_000_000, 910_000_000]
    assert found["faces"].sum() == 4


def test_one_frame_is_measured_however_short_the_duration(measured):
    assert len(measured(loops.single_stream, cycle([80_000_000]), duration_s=1e-9).rows) == 1


def test_progress_is_shown_ten_times_a_second_at_most(measured):
    shown = []
    measured(loops.single_stream, cycle([1_000_000]), progress=lambda *at: shown.append(at))
    assert 2 <= len(shown) <= 11
    assert shown[-1] == (1000, 1000)


def test_an_engine_that_vanishes_leaves_what_was_measured(measured):
    gone = InferFailed("the device is gone", remedy="plug it in")
    measurement = measured(loops.single_stream, iter([1_000_000] * 7 + [gone]))
    assert len(measurement.rows) == 7
    assert measurement.incomplete == "InferFailed: the device is gone"


def test_an_interrupt_leaves_what_was_measured(measured):
    measurement = measured(loops.single_stream, iter([1_000_000] * 7 + [KeyboardInterrupt()]))
    assert len(measurement.rows) == 7
    assert measurement.incomplete == loops.INTERRUPTED


def test_a_wish_to_stop_is_heard_between_frames(measured):
    stop = loops.StopRequest()

    def durations():
        yield from [1_000_000] * 3
        stop.asked = True
        yield 1_000_000

    measurement = measured(loops.single_stream, durations(), stop=stop)
    assert len(measurement.rows) == 4
    assert measurement.incomplete == loops.INTERRUPTED


@pytest.fixture
def sleepy(monkeypatch):
    """Let sleeping advance the fake clock of the measurement that is running."""
    clocks = []
    monkeypatch.setattr(loops.time, "sleep", lambda s: clocks[-1].advance(max(1, round(s * 1e9))))
    before = loops.Measurement.begin

    def begin(self):
        clocks.append(self.clock)
        before(self)

    monkeypatch.setattr(loops.Measurement, "begin", begin)


PACED = ("queue", "capture", *STAGES)


def test_paced_waits_for_a_camera_and_counts_from_when_a_frame_was_due(measured, sleepy):
    wanted = report.Scenario("paced", 1.0, fps=10.0, drop="latest")
    measurement = measured(loops.paced, cycle([30_000_000]), columns=PACED, scenario=wanted)
    found = measurement.traces()
    assert (measurement.due, measurement.dropped) == (10, 0)
    assert found["at"].tolist() == [n * 100_000_000 for n in range(10)]
    assert set(found["end_to_end"].tolist()) == {30_000_000}


def test_paced_drops_what_it_has_no_time_for_and_a_stall_is_not_hidden(measured, sleepy):
    wanted = report.Scenario("paced", 2.0, fps=10.0, drop="latest")
    # One frame stalls for half a second: four frames of the camera pass by meanwhile.
    durations = iter([20_000_000] * 5 + [500_000_000] + [20_000_000] * 50)
    measurement = measured(loops.paced, durations, columns=PACED, scenario=wanted, duration_s=2.0)
    found = measurement.traces()
    assert (measurement.due, measurement.dropped) == (20, 4)
    assert found["end_to_end"].max() == 500_000_000
    ages = summary.age(found, 10.0, measurement.due)
    assert ages.max() > 400_000_000  # nobody had a newer result during the stall


def test_paced_can_queue_so_that_frames_behind_a_stall_are_late(measured, sleepy):
    wanted = report.Scenario("paced", 2.0, fps=10.0, drop="none")
    durations = iter([20_000_000] * 5 + [500_000_000] + [20_000_000] * 50)
    measurement = measured(loops.paced, durations, columns=PACED, scenario=wanted, duration_s=2.0)
    found = measurement.traces()
    assert (measurement.due, measurement.dropped) == (20, 0)
    # A closed loop would say 20 ms of them; they were due long before.
    assert found["end_to_end"][5:9].tolist() == [500_000_000, 420_000_000, 340_000_000, 260_000_000]


def test_frames_still_waiting_at_the_end_were_due_and_make_the_newest_result_old(measured, sleepy):
    wanted = report.Scenario("paced", 1.0, fps=100.0, drop="none")
    measurement = measured(loops.paced, cycle([100_000_000]), columns=PACED, scenario=wanted)
    assert (measurement.due, len(measurement.rows)) == (100, 10)
    assert summary.age(measurement.traces(), 100.0, measurement.due).max() > 800_000_000


class Slow:
    """Sleeps in a thread; remembers how many did so at once."""

    stages = STAGES
    at_once = most = 0
    lock = threading.Lock()

    def __call__(self, item):
        with Slow.lock:
            Slow.at_once += 1
            Slow.most = max(Slow.most, Slow.at_once)
        time.sleep(0.002)
        with Slow.lock:
            Slow.at_once -= 1

    def read(self, decided):
        return 0, (1, 2, 3)


@pytest.mark.parametrize("loop", [loops.multi_stream, loops.offline])
def test_streams_run_at_once(loop):
    Slow.most = 0
    measurement = loops.Measurement(STAGES, duration_s=0.1)
    measurement.begin()
    wanted = report.Scenario("multi-stream", 0.1, streams=3)
    measurement.guard(lambda: loop(measurement, [Slow(), Slow(), Slow()], cycle([ITEM]), wanted))
    assert Slow.most == 3
    assert measurement.incomplete is None
    if loop is loops.multi_stream:
        queries = measurement.traces()["query"]
        assert len(queries) * 3 == len(measurement.rows)
        assert queries.max() >= measurement.traces()["end_to_end"].max()


@pytest.mark.parametrize("loop", [loops.multi_stream, loops.offline])
def test_a_stream_that_fails_ends_the_run_and_loses_nothing(loop):
    class Failing(Slow):
        calls = 0

        def __call__(self, item):
            self.calls += 1
            if self.calls > 3:
                raise InferFailed("gone", remedy="look")

    measurement = loops.Measurement(STAGES, duration_s=60)
    measurement.begin()
    wanted = report.Scenario("multi-stream", 60, streams=2)
    measurement.guard(lambda: loop(measurement, [Slow(), Failing()], cycle([ITEM]), wanted))
    assert measurement.incomplete == "InferFailed: gone"
    assert len(measurement.rows) >= 3


def test_drift_is_the_last_tenth_against_the_first():
    rng = np.random.default_rng(0)
    samples = (rng.normal(10e6, 1e5, 3000) * np.linspace(1, 1.3, 3000)).astype(np.int64)
    found = summary.drift(samples, 30.0)
    assert 0.22 < found.low < found.change < found.high < 0.32
    assert summary.drift(samples[:50], 0.5) is None


def test_the_harness_is_measured_on_a_model_that_only_walks_through_memory():
    cost = loops.harness_cost(50)
    assert cost.frames == 50
    assert 0 < cost.inside_us <= cost.around_us
    model = NullModel()
    assert len(model(ITEM.image)) == 0
    assert len(model.took_ns) == 1


def test_crops_are_drawn_faces_and_own_pictures_are_crops(tmp_path):
    drawn = items_of(frame_set(), "given")
    assert len(drawn) == 112
    assert {item.boxes.shape for item in drawn} == {(1, 4)}
    own = frame_set()
    own = type(own)("folder", own.images[:2], (), own.sha256)
    assert [item.boxes for item in items_of(own, "given")] == [None, None]
    (middle,) = items_of(own, "required")[0].boxes.tolist()
    assert middle == [240, 160, 400, 320]
    assert [item.drawn for item in items_of(own, "found")] == [None, None]
    assert next(item_stream(drawn)).number == next(item_stream(drawn)).number


@pytest.fixture
def loads(make_model, monkeypatch):
    """Whatever is loaded is a fake model; gives what was loaded."""
    made = []

    def load(bundle, **options):
        made.append(make_model())
        return made[-1]

    monkeypatch.setattr(scenarios, "load", load)
    return made


@pytest.mark.parametrize("kind", ["single-stream", "paced", "multi-stream", "offline", "sustained"])
def test_a_run_reports_what_it_did(loads, kind):
    run = scenarios.run("some.edge", scenario=kind, duration_s=0.3, threads=3)
    assert (run.title, run.bundle, run.scenario.kind) == ("fer-yolo11n onnxruntime fp32", "some.edge", kind)
    assert run.environment.threads == 3
    assert run.frames.faces_reported == 1
    assert {g.drawn for g in run.frames.groups} <= {0, 1, 5}
    assert run.count == len(run.traces["at"]) == run.stages["end_to_end"].count
    stages = [s for s in run.stages if s not in ("end_to_end", "query", "age")]
    for i in range(run.count):
        assert sum(run.traces[s][i] for s in stages) <= run.traces["end_to_end"][i]
    assert run.harness.inside_us > 0
    assert all(model.session.closed for model in loads)
    assert ("query" in run.stages) == (kind == "multi-stream")
    assert (run.pace is not None) == (kind == "paced")
    assert run.incomplete is None


def test_a_network_that_sees_nothing_is_said_to(make_model, monkeypatch):
    monkeypatch.setattr(scenarios, "load", lambda bundle, **options: make_model(faces=()))
    run = scenarios.run("some.edge", duration_s=0.05)
    assert run.frames.faces_reported == 0
    assert any("no face" in note for note in run.notes)


def test_an_interrupt_during_the_warm_up_gives_a_run_without_samples(loads, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenarios, "warm_up", interrupt)
    for kind in ("single-stream", "paced", "multi-stream", "offline", "sustained"):
        run = scenarios.run("some.edge", scenario=kind, duration_s=1)
        assert (run.count, run.incomplete, run.verdict) == (0, loops.INTERRUPTED, "INVALID")
        run.save(tmp_path / "run.json")
        assert report.read(tmp_path / "run.json") == (run,)
        assert "incomplete" in render_text.table([run])
        assert "incomplete" in render_html.page([run])
    assert all(model.session.closed for model in loads)


def test_crops_are_measured_face_by_face(monkeypatch):
    info = ModelInfo(
        name="toy-classifier",
        task="classification",
        labels=toys.LABELS,
        input_size=(toys.CROP, toys.CROP),
        target="onnxruntime",
        precision="fp32",
        gate=GATE,
        licence="Apache-2.0",
        sha256="ab" * 32,
        chosen="a fake",
    )
    session = FakeSession(toys.CLASSIFIER, answer=lambda inputs: toys.classify(inputs["pixels"]))
    model = Model(session, ClassificationTask(toys.CLASSIFIER), info)
    monkeypatch.setattr(scenarios, "load", lambda bundle, **_: model)
    run = scenarios.run("some.edge", duration_s=0.2)
    assert run.frames.unit == "face"
    assert run.frames.faces_reported == 1
    assert [group.drawn for group in run.frames.groups] == [1]
    assert run.incomplete is None


def test_an_extra_that_cannot_be_had_is_a_note_and_costs_no_latency(loads):
    run = scenarios.run("missing.edge", duration_s=0.1, options=scenarios.Options(roofline=True, memory=True))
    assert run.memory is None
    assert run.roofline is None
    assert run.count > 0
    assert sum(note.startswith(("no memory", "no roofline")) for note in run.notes) == 2


def test_accuracy_is_the_gates_unless_measured(loads):
    run = scenarios.run("some.edge", duration_s=0.05)
    assert run.accuracy.source == "gate"
    assert run.accuracy.metrics["map50"].value == 0.8
