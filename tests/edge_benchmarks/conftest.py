import hashlib
from dataclasses import replace

import numpy as np
import pytest

from edge_benchmarks import report
from edge_benchmarks.environment import Environment
from edge_sdk import zoo
from edge_sdk.bundle import Bundle, DataDigest, GateMetric, GateResult, GoldenCase
from edge_sdk.model import Model, ModelInfo
from edge_sdk.spec import Gate, Recipe
from edge_sdk.target import Artifact
from edge_sdk.tasks import DetectionTask
from edge_sdk.testing import FakeSession

GATE = GateResult(DataDigest(100, "0" * 64), {"map50": GateMetric(0.81, 0.8, 0.01)})
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
            np.zeros((4, 4, 3), np.uint8), {t.name: np.zeros(t.shape, np.float16) for t in spec.outputs}
        )
        bundle = Bundle.create(
            producer="a test",
            spec=spec,
            recipe=Recipe(precision, precision, 0, Gate({})),
            target=target,
            artifact=Artifact({"model": name.encode()}, tuple(t.name for t in spec.outputs)),
            calibration=None,
            gate=GATE,
            golden=(golden,),
            min_snr_db=20.0,
        )
        path = tmp_path / f"{name}.edge"
        bundle.write(path)
        return path

    return make


@pytest.fixture
def make_run():
    """A run that nothing speaks against, with changes."""

    def make(count=1000, environment=None, **changes):
        samples = {stage: tuple(range(1_000_000, 1_000_000 + count)) for stage in report.STAGES}
        surroundings = Environment(
            machine="aarch64",
            board="Raspberry Pi 5 Model B Rev 1.0",
            cpu=None,
            cores=4,
            os="Debian GNU/Linux 12 (bookworm)",
            kernel="Linux 6.6.31+rpt-rpi-2712",
            python="3.11.2",
            sdk="0.1.0",
            engine="onnxruntime",
            engine_version="1.20.0",
            threads=4,
            governor="ondemand",
            throttling=None,
            load_before=0.2,
            load_after=1.4,
            background_share=0.01,
        )
        run = report.Run(
            name="fer-yolo11n",
            target="onnxruntime",
            precision="fp32",
            bundle="fer-yolo11n",
            chosen="fastest of 3",
            sha256="ab" * 32,
            gate=GATE,
            scenario="single-stream",
            started="2026-01-01T00:00:00Z",
            duration_s=1.5,
            count=count,
            latency_ms={stage: report.percentiles(ns) for stage, ns in samples.items()},
            warm_up=report.WarmUp(1.0, 60, stable=True),
            frames=report.Frames("drawn", "cd" * 32, 64, 1.75, 1.5),
            environment=replace(surroundings, **(environment or {})),
            samples_ns=samples,
        )
        return replace(run, **changes)

    return make
