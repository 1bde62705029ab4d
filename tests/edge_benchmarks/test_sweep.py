"""Sweeps: cells are kept as they come, a lost process loses none, and who measures is alone."""

import importlib.util
import json
import os
import signal
import sys
import threading
from collections import Counter

import pytest

from edge_benchmarks import sweep
from edge_sdk import zoo
from edge_sdk.errors import InputError, MissingDependency


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


def names_of(plan):
    return [job["name"] for job in sweep.jobs(plan)]


def keys_of(plan):
    return [job["key"] for job in sweep.jobs(plan)]


def test_a_picture_that_changed_at_equal_size_makes_other_cells(plan):
    picture = plan.folder / "val" / "happy" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"a picture")
    before = keys_of(plan)
    assert keys_of(plan) == before
    os.utime(picture, (0, 0))
    assert keys_of(plan) == before
    picture.write_bytes(b"b picture")
    changed = keys_of(plan)
    assert not set(changed) & set(before)
    picture.rename(picture.with_name("b.png"))
    assert not set(keys_of(plan)) & {*changed, *before}


def test_what_a_cell_made_is_made_again_once_it_is_lost_or_changed(plan, tmp_path):
    ran, out = Counter(), tmp_path / "out"

    def work(job):
        ran[job["name"]] += 1
        return outcome(job)

    sweep.sweep(plan, out, sweep.Local(1), work=work)
    lost, changed, *others = names_of(plan)
    (out / "bundles" / f"{lost}.edge").unlink()
    (out / "bundles" / f"{changed}.edge").write_bytes(b"bundlf")
    sweep.sweep(plan, out, sweep.Local(1), work=work)
    assert ran == {lost: 2, changed: 2, **dict.fromkeys(others, 1)}
    assert (out / "bundles" / f"{changed}.edge").read_bytes() == b"bundle"


def test_a_bundle_of_an_earlier_run_does_not_stand_beside_a_failed_gate(plan, tmp_path):
    out, evaluation = tmp_path / "out", plan.folder / "val"
    sweep.sweep(plan, out, sweep.Local(1), work=outcome)
    (evaluation / "new.png").write_bytes(b"")
    sweep.sweep(plan, out, sweep.Local(1), work=lambda job: outcome(job, "gate failed", None))
    assert list((out / "bundles").iterdir()) == []


RECIPE = 'name = "{0}"\nprecision = "fp32"\ncalibration_items = 0\n[gate.max_drop]\nmap50 = {1}\n'


@pytest.fixture
def with_recipes(plan):
    """The plan with other recipes."""

    def make(*recipes):
        path = plan.folder / "suite.toml"
        lines = path.read_text().splitlines()
        shown = f"recipes = {json.dumps(recipes)}"
        path.write_text("\n".join(shown if line.startswith("recipes") else line for line in lines))
        return sweep.read_plan(path)

    return make


def test_recipes_of_one_stem_are_cells_of_their_own(plan, with_recipes):
    for name, drop in (("strict", 0.01), ("loose", 0.1)):
        (plan.folder / name).mkdir()
        (plan.folder / name / "own.toml").write_text(RECIPE.format("own", drop))
    changed = with_recipes("strict/own.toml", "loose/own.toml", "fp32", "./strict/own.toml", "fp32")
    names = names_of(changed)
    assert len(set(names)) == len(names) == 6  # three recipes, each once, by two targets
    assert len(set(keys_of(changed))) == 6
    assert not any("/" in name for name in names)
    assert names == names_of(changed)


def test_a_recipes_name_is_not_a_files_and_its_file_is_read(plan, with_recipes):
    (plan.folder / "fp32").write_text("not a recipe")
    own = plan.folder / "own.toml"
    own.write_text(RECIPE.format("own", 0.01))
    changed = with_recipes("fp32", "own.toml")
    assert {job["recipe"] for job in sweep.jobs(changed)} == {"fp32", str(own.resolve())}
    before = keys_of(changed)
    own.write_text(RECIPE.format("own", 0.02))
    assert sum(old != new for old, new in zip(before, keys_of(changed), strict=True)) == 2


@pytest.mark.parametrize("name", ["magic", "../int8", "missing.toml"])
def test_a_recipe_that_is_none_is_refused_before_anything_is_built(with_recipes, name):
    with pytest.raises(InputError, match=name.strip("./")):
        with_recipes(name)


def test_a_profile_is_found_beside_the_suite_wherever_one_stands(plan, tmp_path, monkeypatch):
    board = plan.folder / "boards" / "mine.toml"
    board.parent.mkdir()
    text = 'name = "mine"\ntitle = "m"\nengine = "onnxruntime"\ninstall = "pip"\n'
    board.write_text(text)
    path = plan.folder / "suite.toml"
    path.write_text(path.read_text().replace("raspberry-pi-5", "boards/mine.toml"))
    monkeypatch.chdir(tmp_path)
    changed = sweep.read_plan(path)
    made = {job["name"]: job for job in sweep.jobs(changed)}
    mine = [job for name, job in made.items() if ".mine-" in name]
    assert [job["target"] for job in mine] == [str(board.resolve())] * 2
    board.write_text(text + "threads = 2\n")
    again = {job["name"]: job["key"] for job in sweep.jobs(changed)}
    assert {name for name, job in made.items() if again[name] != job["key"]} == {job["name"] for job in mine}


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_result_folder_that_cannot_be_made_is_named(plan, tmp_path, kind):
    place = tmp_path / "results"
    place.write_text("")
    with pytest.raises(InputError, match="results"):
        sweep.sweep(plan, place if kind == "file" else place / "x", sweep.Local(1), work=outcome)


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
    if importlib.util.find_spec(module) is None:  # not imported: Ray reads its settings once
        pytest.skip("the extra of this cluster is not installed")
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


def test_a_ray_cluster_of_this_machine_asks_for_a_token_that_nobody_else_has(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(sweep.importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match="ray"):
        next(sweep.Ray(1, "host:6379").run(lambda job: job, []))
    assert "RAY_AUTH_TOKEN" not in os.environ  # a cluster that stands has its own
    with pytest.raises(MissingDependency, match="ray"):
        next(sweep.Ray(1).run(lambda job: job, []))
    assert os.environ["RAY_AUTH_MODE"] == "token"
    token = os.environ["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    with pytest.raises(MissingDependency, match="ray"):
        next(sweep.Ray(1).run(lambda job: job, []))
    assert os.environ["RAY_AUTH_TOKEN"] == token


def missing(name):
    raise ImportError(name)


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


def locked(folder):
    with sweep.machine_lock(exclusive=True, folder=folder):
        pass


@pytest.mark.parametrize("name", ["door", "room"])
def test_a_lock_follows_no_link(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = tmp_path / "locks"
    place.mkdir(mode=0o700)
    (place / name).symlink_to(victim)
    with pytest.raises(InputError, match="is a link"):
        locked(place)
    assert victim.read_bytes() == b"precious"


def test_two_names_for_one_lock_hang_nobody(tmp_path):
    (tmp_path / "door").touch(mode=0o600)
    (tmp_path / "room").hardlink_to(tmp_path / "door")
    with pytest.raises(InputError, match="one file"):
        locked(tmp_path)


def test_a_lock_folder_that_somebody_else_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.tempfile, "gettempdir", lambda: str(tmp_path))
    locked(None)
    (place,) = tmp_path.iterdir()
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    with pytest.raises(InputError, match="may write") as caught:
        locked(None)
    assert "TMPDIR" in caught.value.remedy
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        locked(None)
    place.unlink()
    place.write_text("")
    with pytest.raises(InputError, match="cannot lock"):
        locked(None)


def test_a_lock_is_never_written(tmp_path):
    (tmp_path / "door").touch(mode=0o600)
    (tmp_path / "door").write_bytes(b"kept")
    locked(tmp_path)
    assert (tmp_path / "door").read_bytes() == b"kept"


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
