"""Sweeps over models x targets x recipes: build, gate and bench each cell, here or on a Dask or Ray cluster.

A cell depends on its job alone. It runs in a process of its own and returns what it made to the caller, which writes it
whole or not at all. So a lost worker costs nothing but its time: the cell is run again elsewhere. Cells that are done
are not run again unless something they depend on has changed.

Builds would disturb a measurement on the same machine. So on each machine building holds a lock in shared mode and
measuring holds it exclusively; a waiting measurement goes before later builds. Load that is not the sweep's own still
shows in the verdict.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from edge_benchmarks import report, scenarios, suite
from edge_benchmarks.scenarios import Options
from edge_sdk import __version__, zoo
from edge_sdk.child import isolated_children, start_python
from edge_sdk.errors import EdgeError, GateFailed, InputError, LoadFailed, ManifestInvalid, MissingDependency
from edge_sdk.files import write_atomically
from edge_sdk.host import build
from edge_sdk.schema import from_plain, read_toml
from edge_sdk.target import engine_of

SCHEMA = 1
ATTEMPTS = 3
"""How often a cell is started before it counts as failed: a process that was killed once may succeed the next time."""


@dataclass(frozen=True)
class Build:
    """Table ``[build]`` of a sweep: what bundles are built from.

    Attributes:
        recipes: names or files.
        evaluation: folder of labelled pictures for the gate, beside the suite's file.
        calibration: folder of pictures; empty if no recipe needs one.
        onnx: zoo name to float network; a checkout's own for those that are not named.
    """

    recipes: tuple[str, ...]
    evaluation: str
    calibration: str = ""
    onnx: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A sweep: what ``edge-sdk bench --suite`` knows, and how to build."""

    suite: suite.Suite
    build: Build
    folder: Path


Job = dict[str, Any]
Outcome = dict[str, Any]
"""``record`` as it is written, ``bundle`` bytes or None, ``runs`` text or None."""


def read_plan(path: Path) -> Plan:
    """Read a suite's TOML with a table ``[build]``.

    Raises:
        InputError: an unknown key, model, target, scenario or size, or a folder that is missing.
    """
    plain = dict(read_toml(path))
    table = plain.pop("build", None)
    if not isinstance(table, dict):
        raise InputError(
            f"{path} has no table [build]",
            remedy="give recipes and evaluation there, or use 'edge-sdk bench --suite'",
        )
    try:
        plan = Plan(
            from_plain(suite.Suite, plain, path.name),
            from_plain(Build, table, f"{path.name} build"),
            path.parent,
        )
    except ManifestInvalid as error:
        raise InputError(error.message, remedy="see docs/fleet.md for a suite that builds") from error
    if not (plan.suite.models and plan.suite.targets and plan.build.recipes):
        raise InputError(f"{path} names no model, target or recipe", remedy="name at least one of each")
    for model in plan.suite.models:
        zoo.spec(model)
    for target in plan.suite.targets:
        engine_of(target)
    for kind in plan.suite.scenarios:
        scenarios.named_scenario(kind)
    for text in plan.suite.sizes:
        suite.size(text)
    for name in filter(None, (plan.build.evaluation, plan.build.calibration)):
        if not (plan.folder / name).is_dir():
            raise InputError(
                f"{path}: no folder {plan.folder / name}", remedy="paths are relative to the suite"
            )
    return plan


def jobs(plan: Plan) -> list[Job]:
    """The cells, each with a name and a key that changes with everything it depends on."""
    made = []
    for model, target, recipe in product(plan.suite.models, plan.suite.targets, plan.build.recipes):
        source = plan.build.onnx.get(model)
        onnx = zoo.float_source(model) if source is None else (plan.folder / source).resolve()
        if not onnx.is_file():
            raise InputError(f"no ONNX file {onnx}", remedy="name it in [build.onnx]")
        recipe_file = plan.folder / recipe
        job = {
            "model": model,
            "target": target,
            "recipe": str(recipe_file.resolve()) if recipe_file.is_file() else recipe,
            "onnx": str(onnx),
            "calibration": _place(plan, plan.build.calibration),
            "evaluation": _place(plan, plan.build.evaluation),
            "bench": {
                "name": plan.suite.name,
                "scenarios": plan.suite.scenarios,
                "threads": plan.suite.threads,
                "sizes": plan.suite.sizes,
                "duration_s": plan.suite.duration_s,
            },
        }
        digest = hashlib.sha256(json.dumps([job, __version__, platform.machine()], sort_keys=True).encode())
        for file in (onnx, onnx.with_suffix(".tflite"), recipe_file):
            digest.update(file.read_bytes() if file.is_file() else b"-")
        for folder in filter(None, (job["calibration"], job["evaluation"])):
            for file in sorted(Path(str(folder)).rglob("*")):
                digest.update(f"{file}{file.stat().st_size}".encode())
        made.append({"name": f"{model}.{target}-{Path(recipe).stem}", "key": digest.hexdigest(), **job})
    return made


def _place(plan: Plan, name: str) -> str | None:
    return str((plan.folder / name).resolve()) if name else None


class Executor(Protocol):
    """Runs a function on many jobs, somewhere."""

    def run(self, work: Callable[[Job], Outcome], todo: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job's outcome as it comes, in any order."""
        ...


@dataclass(frozen=True)
class Local:
    """Processes of this machine, at most ``workers`` at once."""

    workers: int

    def run(self, work: Callable[[Job], Outcome], todo: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """See :class:`Executor`; every cell is a process already, so threads only wait for them."""
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = {pool.submit(work, job): job for job in todo}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Dask:
    """A Dask cluster: the one whose scheduler has ``address``, or one of ``workers`` processes on this machine.

    A worker that is lost has its cells run again by others; that is Dask's own doing.
    """

    workers: int
    address: str | None = None

    def run(self, work: Callable[[Job], Outcome], todo: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """See :class:`Executor`."""
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError as missing:
            raise MissingDependency(
                f"distributed cannot be imported: {missing}", remedy="pip install 'face-edge-sdk[dask]'"
            ) from missing
        with contextlib.ExitStack() as stack:
            stack.enter_context(isolated_children())
            place: Any = self.address
            if place is None:
                place = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=self.workers, threads_per_worker=1, processes=True, dashboard_address=None
                    )
                )
            client = stack.enter_context(distributed.Client(place))
            waiting = {
                client.submit(work, job, pure=False, key=f"{job['name']}-{job['key']}"): job for job in todo
            }
            for future in distributed.as_completed(list(waiting)):
                job = waiting[future]
                error = future.exception()
                yield job, _lost(job, str(error)) if error is not None else future.result()


@dataclass(frozen=True)
class Ray:
    """A Ray cluster: the one at ``address``, or ``workers`` processes on this machine.

    A worker that is lost has its cells run again by others; that is Ray's own doing.
    """

    workers: int
    address: str | None = None

    def run(self, work: Callable[[Job], Outcome], todo: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """See :class:`Executor`."""
        if self.address is None:
            # On this machine alone: it would listen to the network, and ask a host of the internet for its own address.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            # Else it makes one, and leaves it in the user's home folder.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as missing:
            raise MissingDependency(
                f"ray cannot be imported: {missing}", remedy="pip install 'face-edge-sdk[ray]'"
            ) from missing
        here = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
        with isolated_children():
            ray.init(address=self.address, log_to_driver=False, **here)
        try:
            remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(work)
            waiting = {remote.remote(job): job for job in todo}
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(done)
                try:
                    yield job, ray.get(done)
                except ray.exceptions.RayError as error:
                    yield job, _lost(job, str(error))
        finally:
            ray.shutdown()


def sweep(
    plan: Plan,
    folder: Path,
    executor: Executor,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    work: Callable[[Job], Outcome] | None = None,
) -> list[dict[str, Any]]:
    """Run the cells that are not done, and keep each result as it comes.

    Args:
        plan: what to run.
        folder: ``cells/NAME.json``, ``bundles/NAME.edge`` and ``runs/NAME.json`` are written into it.
        executor: where.
        progress: called with the cell that has ended, how many are done and of how many.
        work: what a cell does; None builds, gates and measures.

    Returns:
        The records of all cells, in the suite's order.
    """
    for name in ("cells", "bundles", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    planned = jobs(plan)
    records = {job["name"]: found for job in planned if (found := _done(folder, job)) is not None}
    todo = [job for job in planned if job["name"] not in records]
    for job, outcome in executor.run(work or run_cell, todo):
        _keep(folder, job["name"], outcome)
        records[job["name"]] = outcome["record"]
        progress(f"sweep {job['name']}: {outcome['record']['status']}", len(records), len(planned))
    return [records[job["name"]] for job in planned]


def _done(folder: Path, job: Job) -> dict[str, Any] | None:
    """The record of a cell that has a result for the same key and need not run again; None for all others."""
    try:
        found = json.loads((folder / "cells" / f"{job['name']}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(found, dict) and found.get("schema") == SCHEMA and found.get("key") == job["key"]
    return found if fits and found.get("status") in ("ok", "gate failed") else None


def _keep(folder: Path, name: str, outcome: Outcome) -> None:
    """Write what a cell made; its record comes last, because it marks the cell as done."""
    bundle = folder / "bundles" / f"{name}.edge"
    if outcome["bundle"] is not None:
        write_atomically(bundle, outcome["bundle"])
    if outcome["runs"] is not None:
        write_atomically(folder / "runs" / f"{name}.json", outcome["runs"])
    write_atomically(folder / "cells" / f"{name}.json", json.dumps(outcome["record"], indent=1) + "\n")


def run_cell(job: Job) -> Outcome:
    """Run a cell in a fresh process; one that is killed is started again, a few times."""
    said = "it was not started"
    for attempt in range(1, ATTEMPTS + 1):
        with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as chatter:
            folder = Path(name)
            child = start_python(
                ("-m", "edge_benchmarks.sweep", name),
                stdin=subprocess.PIPE,
                stdout=chatter,
                stderr=chatter,
            )
            assert child.stdin is not None
            try:
                # The pipe stays open: its end tells the child that nobody waits for it any more.
                with contextlib.suppress(OSError):
                    child.stdin.write(json.dumps(job).encode() + b"\n")
                    child.stdin.flush()
                child.wait()
            finally:
                with contextlib.suppress(OSError):
                    child.stdin.close()
            record = folder / "record.json"
            if record.is_file():
                bundle, runs = folder / "bundle.edge", folder / "runs.json"
                return {
                    "record": {**json.loads(record.read_text()), "attempts": attempt},
                    "bundle": bundle.read_bytes() if bundle.is_file() else None,
                    "runs": runs.read_text() if runs.is_file() else None,
                }
            chatter.seek(0)
            lines = chatter.read().decode(errors="replace").strip().splitlines()
            said = (
                f"its process ended with {child.returncode}: {lines[-1] if lines else 'it printed nothing'}"
            )
    return _lost(job, said)


def _lost(job: Job, why: str) -> Outcome:
    return {
        "record": _record(job, "failed", error=LoadFailed(why, remedy="run the sweep again")),
        "bundle": None,
        "runs": None,
    }


def _record(
    job: Job, status: str, *, error: EdgeError | None = None, seconds: Mapping[str, float] | None = None
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": job["name"],
        "key": job["key"],
        **{k: job[k] for k in ("model", "target", "recipe")},
        "status": status,
        "error": None if error is None else {"message": error.message, "remedy": error.remedy},
        "host": socket.gethostname(),
        "seconds": dict(seconds or {}),
    }


def _work(job: Job, folder: Path) -> dict[str, Any]:
    """Build, gate and measure in this process; files into ``folder``; the record."""
    bundle, seconds = folder / "bundle.edge", {}
    try:
        with machine_lock(exclusive=False):
            begun = time.monotonic()
            build(
                job["onnx"],
                model=job["model"],
                target=job["target"],
                recipe=job["recipe"],
                calibration=job["calibration"],
                evaluation=job["evaluation"],
                output=bundle,
            )
            seconds["build"] = round(time.monotonic() - begun, 1)
        asked = from_plain(suite.Suite, {**job["bench"], "models": [str(bundle)]}, "bench")
        cells, _ = suite.cells(replace(asked, targets=(), precisions=()), folder, Options())
        with machine_lock(exclusive=True):
            begun = time.monotonic()
            runs = [suite.measure_in_fresh_process(cell) for cell in cells]
            seconds["bench"] = round(time.monotonic() - begun, 1)
        report.save(runs, folder / "runs.json")
        verdicts = [run.verdict for run in runs]
        return {**_record(job, "ok", seconds=seconds), "verdicts": verdicts}
    except GateFailed as error:
        return _record(job, "gate failed", error=error, seconds=seconds)
    except EdgeError as error:
        return _record(job, "failed", error=error, seconds=seconds)


@contextlib.contextmanager
def machine_lock(*, exclusive: bool, folder: Path | None = None) -> Iterator[None]:
    """Hold this machine's lock, shared or exclusively; who waits for it exclusively goes before later sharers.

    Args:
        exclusive: True waits until nobody else holds the lock, and keeps everybody out; False shares it.
        folder: of the locks; None takes the user's own in the system's temporary folder.
    """
    place = folder or Path(tempfile.gettempdir()) / f"edge-sdk-sweep-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    with (place / "door").open("w") as door, (place / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        if not exclusive:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield  # closing the files lets go of both


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Plain text with one line per cell."""
    width = max(len(str(record["name"])) for record in records) + 2
    lines = []
    for record in records:
        seconds = ", ".join(f"{what} {value:.0f} s" for what, value in record["seconds"].items())
        verdicts = " ".join(record.get("verdicts", ()))
        why = "" if record["error"] is None else record["error"]["message"]
        lines.append(
            f"{record['name']:<{width}}{record['status']:<13}{verdicts or why}  ({seconds or record['host']})"
        )
    return "\n".join(lines)


def _exit_with_parent() -> None:
    """End this process when its parent is gone: a cell that nobody waits for would disturb the others."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> int:
    """Run the cell on the first line of standard input; its files go to the folder named as the only argument."""
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    folder = Path(sys.argv[1])
    record = json.dumps(_work(job, folder))
    write_atomically(folder / "record.json", record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
