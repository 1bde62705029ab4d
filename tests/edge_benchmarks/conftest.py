import hashlib
from dataclasses import replace

import numpy as np
import pytest

from edge_benchmarks import report, stats, summary
from edge_benchmarks.environment import Environment, Snapshot
from edge_sdk import zoo
from edge_sdk.bundle import Bundle, DataDigest, GateMetric, GateResult, GoldenCase
from edge_sdk.model import Model, ModelInfo
from edge_sdk.spec import Gate, Recipe
from edge_sdk.target import Artifact
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.testing import FakeSession

GATE = GateResult(DataDigest(100, "0" * 64), {"map50": GateMetric(0.805, 0.8, 0.01)})
FACE = (100, 100, 200, 200)


@pytest.fixture
def spec():
    return zoo.spec("fer-yolo11n")


@pytest.fixture
def make_model(spec):
    """A model of a fake engine that finds the given faces; target onnxruntime is only its name."""

    def make(faces=(FACE,), **changes):
        session = FakeSession(spec, faces, [3] * len(faces))
        info = ModelInfo(
            name=spec.name,
            task="detection",
            labels=spec.labels,
            input_size=(320, 320),
            target="onnxruntime",
            precision="fp32",
            gate=GATE,
            licence="Apache-2.0",
            sha256=hashlib.sha256(b"fake").hexdigest(),
            chosen="a fake",
        )
        return Model(session, DetectionTask(spec), replace(info, **changes))

    return make


@pytest.fixture
def make_bundle(spec, tmp_path):
    """Write a bundle whose artifact is a word."""

    def make(name, target="onnxruntime", precision="fp32"):
        golden = GoldenCase(
            {t.name: np.zeros(t.shape, np.float16) for t in spec.outputs}, np.zeros((4, 4, 3), np.uint8)
        )
        bundle = Bundle.create(
            producer="a test",
            spec=spec,
            recipe=Recipe(precision, precision, 0, Gate({"map50": 0.01})),
            target=target,
            artifact=Artifact({"model": name.encode()}, ("pixels",), tuple(t.name for t in spec.outputs)),
            calibration=None,
            gate=GATE,
            golden=(golden,),
            min_snr_db=20.0,
        )
        path = tmp_path / f"{name}.edge"
        bundle.write(path)
        return path

    return make


MOMENT = Snapshot(0.2, (2400.0, 2400.0), {"cpu-thermal": 51.5}, 6000.0, ("python3 12%",))
ENVIRONMENT = Environment(
    machine="aarch64",
    board="Raspberry Pi 5 Model B Rev 1.0",
    cpu="Cortex-A76",
    cores=4,
    affinity=(0, 1, 2, 3),
    memory_mb=8443.2,
    os="Debian GNU/Linux 12 (bookworm)",
    kernel="Linux 6.6.31+rpt-rpi-2712",
    governor="performance",
    max_mhz=2400.0,
    power_mode=None,
    python="3.11.2",
    numpy="2.0.0",
    opencv="4.10.0",
    sdk="0.1.0",
    engine="onnxruntime",
    engine_version="1.20.0",
    device="CPU",
    threads=4,
    before=MOMENT,
    after=MOMENT,
)
HEALTH = report.Health(
    throttled=False,
    throttle="no (vcgencmd get_throttled)",
    clock_cv=0.001,
    clock="60 readings of cpufreq",
    as_shipped=False,
    background_share=0.01,
    swapped_in=0,
    golden=True,
)
NO_ENERGY = report.Energy(None, "", "not asked for", None, None, None, None, 0)


def latencies(count, *, seed=0, ms=10.0, spread=0.05):
    """Nanoseconds as a quiet machine gives them."""
    rng = np.random.default_rng(seed)
    return (rng.normal(ms, ms * spread, count).clip(ms / 2) * 1e6).astype(np.int64)


def stages_of(total, seconds, share):
    """Summaries of stages that take the same part of every frame: resampled once for all, because that takes long."""
    whole = report.stage(total, duration_s=seconds)

    def scaled(part):
        known = {
            name: p and stats.Percentile(p.ms * part, p.low * part, p.high * part)
            for name, p in whole.percentiles.items()
        }
        times = {name: getattr(whole, name) * part for name in ("min_ms", "mean_ms", "max_ms")}
        return replace(whole, percentiles=known, **times)

    return {name: scaled(part) for name, part in share.items()}


@pytest.fixture
def make_run():
    """A run that nothing speaks against, with changes."""

    def make(count=1000, environment=None, health=None, end_to_end=None, **changes):
        total = latencies(count) if end_to_end is None else np.asarray(end_to_end, np.int64)
        share = {"capture": 0.01, "preprocess": 0.04, "infer": 0.9, "postprocess": 0.05}
        traces = {name: (total * part).astype(np.int64) for name, part in share.items()}
        seconds = float(total.sum()) / 1e9
        traces = {
            "at": np.concatenate([[0], np.cumsum(total)[:-1]]),
            "item": np.arange(len(total)) % 64,
            "faces": np.ones(len(total), np.int64),
            **traces,
            "end_to_end": total,
        }
        run = report.Run(
            name="fer-yolo11n",
            target="onnxruntime",
            precision="fp32",
            bundle="fer-yolo11n",
            chosen="fastest of 3",
            sha256="ab" * 32,
            gate=GATE,
            scenario=report.Scenario("single-stream", duration_s=10.0),
            started="2026-01-01T00:00:00Z",
            duration_s=seconds,
            count=len(total),
            stages=stages_of(total, seconds, share | {"end_to_end": 1}) if len(total) else {},
            throughput=summary.throughput(traces["at"], seconds),
            warm_up=report.WarmUp(1.0, 60, stable=True),
            frames=report.Frames(
                "drawn", "cd" * 32, 64, "640x480", "frame", 1.5, (report.FaceGroup(1, count, 0.95, 10.0),)
            ),
            environment=replace(ENVIRONMENT, **(environment or {})),
            health=replace(HEALTH, **(health or {})),
            series=report.Series((0.0, 1.0), (2400.0, 2390.0), (50.0, 51.0), (None, 4.5)),
            energy=NO_ENERGY,
            accuracy=report.Accuracy("gate", 100, "0" * 64, {"map50": report.Figure(0.8, None, None)}),
            harness=report.Harness(1.1, 3.0, 300),
            traces=traces,
        )
        return replace(run, **changes)

    return make
