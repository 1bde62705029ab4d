"""Sweeps: cells are kept as they come, a lost process loses none, and who measures is alone."""

import json
import os
import signal
import threading
from collections import Counter

import pytest

from edge_benchmarks import sweep
from edge_sdk import zoo
from edge_sdk.errors import InputError


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Two models by two targets by two recipes; nothing of it is real but the files."""
    place = tmp_path / "suite"
    (place / "val").mkdir(parents=True)
    (place / "net.onnx").write_bytes(b"network")
    models = [zoo.NAMES[0]]
    text = f"""
name = "test"
models = {json.dumps(models)}
targets = ["onnxruntime", "raspberry-pi-5"]
duration_s = 1.0
[build]
recipes = ["fp32", "int8"]
evaluation = "val"
[build.onnx]
{models[0]} = "net.onnx"
"""
    (place / "suite.toml").write_text(text)
    return sweep.read_plan(place / "suite.toml")


def outcome(job, status="ok", bundle=b"bundle"):
    return {**sweep._lost(job, "-"), "record": sweep._record(job, status), "bundle": bundle}


def test_cells_are_kept_and_not_run_again(plan, tmp_path):
    ran = []

    def work(job):
        ran.append(job["name"])
        return outcome(job, "gate failed" if "int8" in job["name"] else "ok")

    records = sweep.sweep(plan, tmp_path / "out", sweep.Local(2), work=work)
    assert [r["name"] for r in records] == [job["name"] for job in sweep.jobs(plan)]
    assert len(ran) == 4
    assert sweep.sweep(plan, tmp_path / "out", sweep.Local(2), work=work) == records
    assert len(ran) == 4
    assert sorted(p.name for p in (tmp_path / "out" / "bundles").iterdir()) == sorted(
        f"{n}.edge" for n in ran
    )


def test_what_failed_or_changed_runs_again(plan, tmp_path):
    ran = Counter()

    def work(job):
        ran[job["name"]] += 1
        return outcome(job, "failed" if "fp32" in job["name"] else "ok")

    sweep.sweep(plan, tmp_path / "out", sweep.Local(1), work=work)
    sweep.sweep(plan, tmp_path / "out", sweep.Local(1), work=work)
    assert {name: n for name, n in ran.items() if "int8" in name} == dict.fromkeys(
        (n for n in ran if "int8" in n), 1
    )
    assert all(n == 2 for name, n in ran.items() if "fp32" in name)
    (plan.folder / "net.onnx").write_bytes(b"another network")
    sweep.sweep(plan, tmp_path / "out", sweep.Local(1), work=work)
    assert all(n == 2 for name, n in ran.items() if "int8" in name)


def test_an_interrupted_sweep_keeps_what_it_had(plan, tmp_path):
    def work(job):
        if "raspberry" in job["name"]:
            raise KeyboardInterrupt
        return outcome(job)

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(plan, tmp_path / "out", sweep.Local(1), work=work)
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2


def test_a_cell_whose_process_fails_says_what_it_printed(monkeypatch):
    monkeypatch.setattr(sweep.sys, "executable", "/bin/false")
    found = sweep.run_cell({"name": "a", "key": "b", "model": "c", "target": "d", "recipe": "e"})["record"]
    assert found["status"] == "failed"
    assert "ended with 1" in found["error"]["message"]


def test_a_bad_cell_comes_back_from_its_process_as_an_error(plan):
    found = sweep.run_cell(sweep.jobs(plan)[0])["record"]
    assert found["status"] == "failed"
    assert "net.onnx" in found["error"]["message"]
    assert found["attempts"] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a cluster that loses a process is not quiet
@pytest.mark.parametrize(("module", "executor"), [("distributed", sweep.Dask), ("ray", sweep.Ray)])
def test_a_cluster_that_loses_a_worker_loses_no_cell(plan, tmp_path, module, executor):
    pytest.importorskip(module, reason="the extra of this cluster is not installed")
    marker, kill = str(tmp_path / "killed"), signal.SIGKILL

    def work(job):
        if "raspberry-pi-5-fp32" in job["name"] and not os.path.exists(marker):
            with open(marker, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), kill)
        return {
            "record": {"schema": 1, **job, "status": "ok", "pid": os.getpid()},
            "bundle": None,
            "runs": None,
        }

    records = sweep.sweep(plan, tmp_path / "out", executor(2), work=work)
    assert [r["status"] for r in records] == ["ok"] * 4
    killed = int((tmp_path / "killed").read_text())
    assert killed != os.getpid()
    assert killed not in {r["pid"] for r in records if "raspberry-pi-5-fp32" in r["name"]}
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 4


def test_who_measures_is_alone_and_goes_before_who_comes_later(tmp_path):
    order, inside = [], threading.Event()

    def use(name, alone):
        with sweep.machine_lock(exclusive=alone, folder=tmp_path):
            order.append(name)

    with sweep.machine_lock(exclusive=False, folder=tmp_path):
        measuring = threading.Thread(target=use, args=("measures", True))
        measuring.start()
        inside.wait(0.2)  # it stands at the door now
        building = threading.Thread(target=use, args=("builds", False))
        building.start()
        inside.wait(0.2)
        assert order == []
    measuring.join(5)
    building.join(5)
    assert order == ["measures", "builds"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('models = ["nobody"]', "nobody"),
        ('targets = ["toaster"]', "toaster"),
        ('scenarios = ["dance"]', "dance"),
        ("colour = 1", "colour"),
    ],
)
def test_a_wrong_suite_is_refused(plan, line, said):
    path = plan.folder / "suite.toml"
    key = line.split(" ")[0]
    kept = [text for text in path.read_text().splitlines() if not text.startswith(f"{key} =")]
    path.write_text("\n".join([line, *kept]))
    with pytest.raises((InputError, LookupError), match=said):
        sweep.read_plan(path)


def test_a_suite_that_builds_nothing_is_refused(plan):
    path = plan.folder / "suite.toml"
    path.write_text('name = "a"\nmodels = ["fer-yolo11n"]\n')
    with pytest.raises(InputError, match=r"\[build\]"):
        sweep.read_plan(path)
