"""Sweeps over models x targets x recipes: build, gate and bench each cell, here or on a Dask or Ray cluster.

A cell depends on its job alone. It runs in a process of its own and returns what it made to the caller, which writes it
whole or not at all. So a lost worker costs nothing but its time: the cell is run again elsewhere. Cells that are done
are not run again unless the content of something they depend on, or of what they made, has changed.

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
from edge_sdk.files import check_private_folder, open_private, write_atomically
from edge_sdk.host import AUTO, build
from edge_sdk.profile import SUFFIX as TOML
from edge_sdk.schema import from_plain, read_toml, to_plain
from edge_sdk.target import engine_of

SCHEMA = 1
ATTEMPTS = 3
"""How often a cell is started before it counts as failed: a process that was killed once may succeed the next time."""


@dataclass(frozen=True)
class Build:
    """Table ``[build]`` of a sweep: what bundles are built from.

    Attributes:
        recipes: names, or files (``.toml``) beside the suite's own.
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
    """A sweep: what ``edge-sdk bench --suite`` knows, and how to build.

    Attributes:
        suite: its targets are engines, names of shipped profiles, or profiles' files (``.toml``) beside the suite's own.
        build: what bundles are built from.
        folder: of the suite's file, which every path in it is relative to.
    """

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
        engine_of(_named(plan, target))
    # Of the compile host, as whoever builds: a device that only measures does not import it.
    from edge_quantize.recipe import read_recipe

    for recipe in plan.build.recipes:
        if recipe != AUTO:
            read_recipe(_named(plan, recipe))
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
    """The cells, each with a name of its own and a key that changes with the content of everything it depends on.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    models = tuple(dict.fromkeys(plan.suite.models))
    targets = _cell_names(plan, plan.suite.targets)
    recipes = _cell_names(plan, plan.build.recipes)
    calibration, evaluation = (_place(plan, name) for name in (plan.build.calibration, plan.build.evaluation))
    shared = [
        __version__,
        platform.machine(),
        *(None if folder is None else _contents(Path(folder)) for folder in (calibration, evaluation)),
    ]
    made = []
    for model, target, recipe in product(models, targets, recipes):
        source = plan.build.onnx.get(model)
        onnx = zoo.float_source(model) if source is None else (plan.folder / source).resolve()
        if not onnx.is_file():
            raise InputError(f"no ONNX file {onnx}", remedy="name it in [build.onnx]")
        job = {
            "model": model,
            "target": target,
            "recipe": recipe,
            "onnx": str(onnx),
            "calibration": calibration,
            "evaluation": evaluation,
            "bench": {
                "name": plan.suite.name,
                "scenarios": plan.suite.scenarios,
                "threads": plan.suite.threads,
                "sizes": plan.suite.sizes,
                "duration_s": plan.suite.duration_s,
            },
        }
        files = [onnx, onnx.with_suffix(".tflite"), *(Path(n) for n in (target, recipe) if n.endswith(TOML))]
        depends = [job, to_plain(zoo.spec(model)), shared, [_content(file) for file in files]]
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        made.append({"name": f"{model}.{targets[target]}-{recipes[recipe]}", "key": key, **job})
    return made


def _place(plan: Plan, name: str) -> str | None:
    return str((plan.folder / name).resolve()) if name else None


def _named(plan: Plan, name: str) -> str:
    """A target or recipe: a file's whole path, or the name of what comes with the SDK, whatever files lie here."""
    return str((plan.folder / name).resolve()) if name.endswith(TOML) else name


def _cell_names(plan: Plan, names: Sequence[str]) -> dict[str, str]:
    """Targets or recipes, each once, as builds take them, to what cells are called after them.

    That is the stem; of several with one stem, each has a part of its path's hash too.
    """
    found = dict.fromkeys(_named(plan, name) for name in names)
    stems = [Path(name).stem if name.endswith(TOML) else name for name in found]
    called = {}
    for name, stem in zip(found, stems, strict=True):
        place = os.path.relpath(name, plan.folder.resolve()) if name.endswith(TOML) else name
        alone = stems.count(stem) == 1
        called[name] = stem if alone else f"{stem}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    return called


def _contents(folder: Path) -> list[tuple[str, str | None]]:
    """Every file below a folder by its path there, with what :func:`_content` says of it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), _content(path)) for path in found]


def _content(file: Path) -> str | None:
    """Hash of a file's bytes; None if there is no such file.

    Raises:
        InputError: it cannot be read.
    """
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}", remedy="make it readable") from error
    return digest.hexdigest()


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
            _ask_for_a_token()
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as missing:
            raise MissingDependency(
                f"ray cannot be imported: {missing}", remedy="pip install 'face-edge-sdk[ray]'"
            ) from missing
        with contextlib.ExitStack() as stack:
            here: dict[str, Any] = {}
            if self.address is None:
                # Ray lets everybody write into its folder: it gets one inside a folder of this user's.
                place = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
                folder = str(Path(stack.enter_context(place)) / "r")
                here = {"num_cpus": self.workers, "include_dashboard": False, "_temp_dir": folder}
            with isolated_children():
                ray.init(address=self.address, log_to_driver=False, **here)
            stack.callback(ray.shutdown)
            remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(work)
            waiting = {remote.remote(job): job for job in todo}
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(done)
                try:
                    yield job, ray.get(done)
                except ray.exceptions.RayError as error:
                    yield job, _lost(job, str(error))


def _ask_for_a_token() -> None:
    """Let a Ray cluster that this process starts serve this process and its children alone.

    Ray listens on all interfaces and would run what anybody sends. It reads these variables once, when it is imported.
    """
    # On this machine alone: it would listen to the network, and ask a host of the internet for its own address.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        # Else it makes one, and leaves it in the user's home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


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

    Raises:
        InputError: a file of the plan cannot be read, or the folder cannot be made.
    """
    try:
        for name in ("cells", "bundles", "runs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {folder / name}: {error.strerror}", remedy="name a folder with -o"
        ) from error
    planned = jobs(plan)
    records = {job["name"]: found for job in planned if (found := _done(folder, job)) is not None}
    todo = [job for job in planned if job["name"] not in records]
    for job, outcome in executor.run(work or run_cell, todo):
        records[job["name"]] = _keep(folder, job["name"], outcome)
        progress(f"sweep {job['name']}: {outcome['record']['status']}", len(records), len(planned))
    return [records[job["name"]] for job in planned]


def _done(folder: Path, job: Job) -> dict[str, Any] | None:
    """The record of a cell that has a result for the same key and need not run again; None for all others."""
    try:
        found = json.loads((folder / "cells" / f"{job['name']}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(found, dict) and found.get("schema") == SCHEMA and found.get("key") == job["key"]
    if not fits or found.get("status") not in ("ok", "gate failed"):
        return None
    made = {name: _content(folder / name) for name in _files_of(job["name"])}
    # What was lost or changed since is made again.
    return found if found.get("files") == {name: sha256 for name, sha256 in made.items() if sha256} else None


def _keep(folder: Path, name: str, outcome: Outcome) -> dict[str, Any]:
    """Write what a cell made; its record, which is returned, comes last, because it marks the cell as done."""
    files = {}
    for file, content in zip(_files_of(name), (outcome["bundle"], outcome["runs"]), strict=True):
        if content is None:
            (folder / file).unlink(
                missing_ok=True
            )  # of an earlier run, which this one's record would speak for
            continue
        data = content if isinstance(content, bytes) else content.encode()
        write_atomically(folder / file, data)
        files[file] = hashlib.sha256(data).hexdigest()
    record = {**outcome["record"], "files": files}
    write_atomically(folder / "cells" / f"{name}.json", json.dumps(record, indent=1) + "\n")
    return record


def _files_of(name: str) -> tuple[str, str]:
    """What a cell may write beside its record: its bundle and its runs."""
    return f"bundles/{name}.edge", f"runs/{name}.json"


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

    Raises:
        InputError: the folder or a lock is not this user's alone: somebody else could hold up every sweep.
    """
    place = folder or Path(tempfile.gettempdir()) / f"edge-sdk-sweep-{os.geteuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        check_private_folder(place, "set TMPDIR to a folder of your own")
    except OSError as error:
        raise InputError(
            f"cannot lock this machine by {place}: {error.strerror}",
            remedy="set TMPDIR to a folder of your own",
        ) from error
    with _lock_file(place / "door") as door, _lock_file(place / "room") as room:
        if os.path.sameopenfile(door, room):  # who holds the one would wait for the other for ever
            raise InputError(f"{place / 'door'} and room are one file", remedy=f"remove {place}")
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        if not exclusive:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield  # closing the files lets go of both


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    """A file that is only locked, never written: opened, and closed in the end."""
    handle = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        yield handle
    finally:
        os.close(handle)


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
