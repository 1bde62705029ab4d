"""A short, seeded part of the fuzzing campaign (``make fuzz``), and everything that the campaign ever found."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")
pytest.importorskip("onnx", reason="host tool not installed")

from fuzz.mutate import mutated
from fuzz.targets import TARGETS, fault_of, seeds

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
FOUND = sorted(CORPUS.glob("*/*"))
EXECUTIONS = 150


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_target_understands_is_no_fault(name):
    for data in seeds()[name]:
        assert fault_of(TARGETS[name], data) is None


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_end_in_typed_errors(name):
    rng, given = random.Random(name), seeds()
    everything = [seed for many in given.values() for seed in many]
    for _ in range(EXECUTIONS):
        data = mutated(rng.choice(given[name]), rng, everything)
        assert fault_of(TARGETS[name], data) is None, data


@pytest.mark.parametrize("path", FOUND, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_what_the_campaign_found_stays_mended(path):
    assert fault_of(TARGETS[path.parent.name], path.read_bytes()) is None


def test_a_fault_is_seen():
    def fail(data):
        raise ZeroDivisionError

    assert isinstance(fault_of(fail, b""), ZeroDivisionError)


def test_the_campaign_runs_every_target_and_says_how_often():
    here = Path(__file__).parent
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fuzz",
            "--minutes",
            "0.02",
            "--workers",
            "2",
            "--engine",
            "mutations",
            "--json",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here), *sys.path))},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["found"] == []
    assert set(report["executions"]) == set(TARGETS)
    assert all(report["executions"].values())
