"""Suites: a matrix of measurements from a TOML file, made one after the other, each in a fresh process if asked.

A suite is ``models x targets x precisions x scenarios x threads x sizes``; the keys are the fields of :class:`Suite`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from edge_benchmarks import report, scenarios
from edge_benchmarks.loops import INTERRUPTED
from edge_benchmarks.report import Failure, Run, Scenario
from edge_benchmarks.scenarios import Options
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.child import start_python
from edge_sdk.errors import EdgeError, InputError, LoadFailed, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml, to_plain
from edge_sdk.selection import names_a_file, open_shipped
from edge_sdk.target import available_targets


@dataclass(frozen=True)
class Suite:
    """A matrix of measurements.

    Attributes:
        name: of the suite, for messages.
        models: zoo names, or bundle files beside the suite's own.
        targets: engines; empty for all that are shipped.
        precisions: precisions; empty for all that are shipped.
        scenarios: each with the parameters below that it has.
        threads: of each engine; empty for automatic.
        sizes: of the pictures, ``WxH``; empty for as they are.
        duration_s: of each measurement.
        fps: of ``paced``.
        drop: of ``paced``.
        streams: of ``multi-stream`` and ``offline``.
        processes: of ``cold``.
        page_cache: of ``cold``.
        repeat: number of fresh processes that each measurement is made in; 1 measures in this one.
        memory: measure peak memory as well.
        roofline: measure the engine's peak as well.
        energy: measure energy as well.
    """

    name: str
    models: tuple[str, ...]
    targets: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ("single-stream",)
    threads: tuple[int, ...] = ()
    sizes: tuple[str, ...] = ()
    duration_s: float | None = None
    fps: float | None = None
    drop: Literal["latest", "none"] | None = None
    streams: int | None = None
    processes: int | None = None
    page_cache: Literal["kept", "dropped"] | None = None
    repeat: int = 1
    memory: bool = False
    roofline: bool = False
    energy: bool = False


@dataclass(frozen=True)
class Cell:
    """One measurement to be made."""

    bundle: str
    scenario: Scenario
    options: Options

    def __str__(self) -> str:
        """Name of the cell in progress lines and failures."""
        threads = "" if self.options.threads is None else f", {self.options.threads} threads"
        size = "" if self.options.size is None else f", {self.options.size[0]}x{self.options.size[1]}"
        return f"{Path(self.bundle).name} {self.scenario.kind}{threads}{size}"


def read_suite(path: Path) -> Suite:
    """Read a suite's TOML.

    Raises:
        InputError: it cannot be read, or has an unknown key or a value of another type.
    """
    plain = read_toml(path)
    # TOML writers say 10 where 10.0 is meant; the schema takes both for a float.
    try:
        return from_plain(Suite, plain, path.name)
    except ManifestInvalid as error:
        raise InputError(error.message, remedy=f"keys: {', '.join(f.name for f in fields(Suite))}") from error


def cells(suite: Suite, folder: Path, options: Options) -> tuple[list[Cell], list[Failure]]:
    """The measurements of a suite, and those of its matrix that cannot be made on this machine.

    Args:
        suite: as read.
        folder: that its bundle files are relative to.
        options: that hold for all.

    Raises:
        InputError: an unknown model, bundle, scenario or size, or nothing that fits.
    """
    if not suite.models:
        raise InputError(f"suite {suite.name} names no model", remedy="give models = ['fer-yolo11n']")
    shared = replace(
        options,
        memory=options.memory or suite.memory,
        roofline=options.roofline or suite.roofline,
        energy=options.energy or suite.energy,
    )
    bundles: list[str] = []
    failures: list[Failure] = []
    for model in suite.models:
        found, missing = _bundles(suite, model, folder)
        bundles += found
        failures += missing
    wanted = [_scenario(suite, kind) for kind in suite.scenarios]
    threads = suite.threads or (options.threads,)
    sizes = tuple(size(text) for text in suite.sizes) or (options.size,)
    made = [
        Cell(bundle, scenario, replace(shared, threads=n, size=of))
        for bundle, scenario, n, of in product(bundles, wanted, threads, sizes)
    ]
    for cell in made:
        scenarios.check(cell.scenario, cell.options)
    return made, failures


def size(text: str) -> tuple[int, int]:
    """Width and height of ``WxH``.

    Raises:
        InputError: the text is not of that form.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and len(text) < 12):
        raise InputError(
            f"expected WxH such as 1280x720, got {text!r}", remedy="write width x height in pixels"
        )
    return int(width), int(height)


def run(
    planned: Sequence[Cell],
    *,
    repeat: int = 1,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    keep: Callable[[Sequence[Run], Sequence[Failure]], None] = lambda runs, failures: None,
    failures: Sequence[Failure] = (),
) -> tuple[list[Run], list[Failure], int]:
    """Measure all cells, round after round, so that what drifts hits all of them.

    Args:
        planned: to be measured.
        repeat: rounds; if there are several, each cell has a process of its own in each.
        progress: called with what is being measured, the milliseconds done and their total.
        keep: called with everything so far after each cell, so that nothing measured is lost.
        failures: known before.

    Returns:
        Runs, failures, and the exit code: 0; 3 if an engine failed or nothing could be measured; 130 if interrupted.
    """
    runs: list[Run] = []
    failed = list(failures)
    code = 0
    rounds = [(turn, cell) for turn in range(repeat) for cell in planned]
    for number, (turn, cell) in enumerate(rounds):
        what = f"bench {cell}" + (f", {turn + 1} of {repeat}" if repeat > 1 else "")

        def said(done: int, total: int, what: str = what) -> None:
            progress(what, done, total)

        try:
            if repeat > 1:
                progress(what, number, len(rounds))
                done = measure_in_fresh_process(cell)
            else:
                done = scenarios.run(cell.bundle, scenario=cell.scenario, options=cell.options, progress=said)
        except KeyboardInterrupt:
            code = 130
            break
        except EdgeError as error:
            # A single bundle's error is the command's own; in a suite the others still count.
            if len(rounds) == 1:
                raise
            failed.append(Failure(str(cell), " ".join(error.message.split()), " ".join(error.remedy.split())))
            code = max(code, error.exit_code)
            keep(runs, failed)
            continue
        runs.append(done)
        keep(runs, failed)
        if done.incomplete == INTERRUPTED:
            code = 130
            break
        if done.incomplete is not None:
            code = max(code, 3)
    if not runs and failed and not code:
        code = 3
    return runs, failed, code


def measure_in_fresh_process(cell: Cell) -> Run:
    """Measure one cell in a fresh process; Ctrl-C is passed on to it, and what it had measured is returned.

    Raises:
        KeyboardInterrupt: it had measured nothing yet.
        LoadFailed: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "run.json", Path(folder) / "log"
        with log.open("w+") as chatter:
            child = start_python(
                ("-m", "edge_benchmarks.suite", str(path)),
                stdin=subprocess.PIPE,
                stdout=chatter,
                stderr=chatter,
                text=True,
                new_session=True,  # so that Ctrl-C reaches it once, from here
            )
            assert child.stdin is not None
            child.stdin.write(json.dumps(_plain(cell)))
            child.stdin.close()
            interrupted = False
            while True:
                try:
                    child.wait()
                    break
                except KeyboardInterrupt:
                    interrupted = True
                    child.send_signal(signal.SIGINT)
            chatter.seek(0)
            said = chatter.read().strip().splitlines()
        if path.is_file():
            return report.read(path)[0]
        if interrupted:
            raise KeyboardInterrupt
    raise LoadFailed(
        f"the process that measured {cell} failed ({child.returncode}): {said[-1] if said else 'no message'}",
        remedy="measure it without --repeat to see more",
    )


def _plain(cell: Cell) -> dict[str, Any]:
    options = {
        f.name: str(v) if isinstance(v := getattr(cell.options, f.name), Path) else v for f in fields(Options)
    }
    return {"bundle": cell.bundle, "scenario": to_plain(cell.scenario), "options": options}


def _cell(plain: dict[str, Any]) -> Cell:
    options = dict(plain["options"])
    for name in ("frames", "meter", "data"):
        options[name] = None if options[name] is None else Path(options[name])
    options["size"] = None if options["size"] is None else tuple(options["size"])
    return Cell(plain["bundle"], from_plain(Scenario, plain["scenario"], "scenario"), Options(**options))


def _bundles(suite: Suite, model: str, folder: Path) -> tuple[list[str], list[Failure]]:
    """The bundles of one model that the suite's targets and precisions choose."""
    if names_a_file(model):
        path = folder / model
        Bundle.open(path)
        return [str(path)], []
    shipped = zoo.bundles(model)
    targets = suite.targets or tuple(dict.fromkeys(b.target for b in shipped))
    precisions = suite.precisions or tuple(dict.fromkeys(b.precision for b in shipped))
    installed = available_targets()
    found, missing = [], []
    for target, precision in product(targets, precisions):
        fitting = [b for b in shipped if b.target == target and b.precision == precision]
        what = f"{model} {target} {precision}"
        if not fitting:
            missing.append(Failure(what, "no such bundle is shipped", f"build it: edge-sdk build {model}"))
        elif target not in installed:
            remedy = f"pip install 'face-edge-sdk[{target}]'"
            missing.append(Failure(what, f"the engine {target} is not installed here", remedy))
        else:
            open_shipped(fitting[0])
            found.append(str(fitting[0].path))
    if not found:
        raise InputError(
            f"suite {suite.name}: no bundle of {model} fits: {'; '.join(f.message for f in missing) or 'none'}",
            remedy="see 'edge-sdk zoo' for what is shipped",
        )
    return found, missing


def _scenario(suite: Suite, kind: str) -> Scenario:
    """The scenario of that name, with the suite's values for the parameters that it has."""
    usual = scenarios.named_scenario(kind)
    given = {
        name: value
        for name in ("duration_s", "fps", "drop", "streams", "processes", "page_cache")
        if (value := getattr(suite, name)) is not None and getattr(usual, name) is not None
    }
    return replace(usual, **given)


def main() -> int:
    """Measure the cell on standard input, and write its run to the file named as the only argument."""
    cell = _cell(json.loads(sys.stdin.read()))
    try:
        scenarios.run(cell.bundle, scenario=cell.scenario, options=cell.options).save(sys.argv[1])
    except EdgeError as error:
        print(f"{error.message}; {error.remedy}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
