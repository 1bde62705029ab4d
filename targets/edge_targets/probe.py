"""A real inference in a process of its own: whether an engine works here, and in which words it fails.

    python -m edge_targets.probe ENGINE

prints what ran as one JSON object. The network is a real one: the smallest zoo bundle of the engine.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from dataclasses import dataclass

from edge_sdk import zoo
from edge_sdk.child import run_python
from edge_sdk.cli_common import stdout_is_ours
from edge_sdk.errors import EdgeError
from edge_sdk.model import load
from edge_sdk.selection import open_shipped
from edge_sdk.target import LoadOptions, find_target

TIMEOUT_S = 60.0
_STARTED = "{"


@dataclass(frozen=True)
class Probe:
    """What came of trying an engine.

    Attributes:
        engine: name of the target.
        works: an inference gave what the bundle's golden vectors say; None where it was loaded and no bundle of it is
            here to try.
        version: distribution and version of the engine; None where it is not installed.
        device: that ran it.
        bundle: file that was run.
        problem: what went wrong; empty where nothing did.
        remedy: what to do about it.
    """

    engine: str
    works: bool | None
    version: str | None = None
    device: str | None = None
    bundle: str | None = None
    problem: str = ""
    remedy: str = ""


def probe(engine: str, *, timeout_s: float = TIMEOUT_S) -> Probe:
    """Try an engine, whatever that does to the process that tries it."""
    version = installed_version(engine)
    if version is None:
        target = find_target(engine)
        return Probe(
            engine,
            False,
            problem="not installed",
            remedy=f"pip install 'face-edge-sdk[{target.distribution}]'",
        )
    ended = run_python(("-m", "edge_targets.probe", engine), timeout_s=timeout_s)
    answers = [line for line in ended.lines if line.startswith(_STARTED)]
    if ended.problem is None and answers:
        return Probe(**json.loads(answers[-1]))
    problem = f"its process {ended.problem or 'ended without an answer'}"
    if ended.said:
        problem += f": {ended.said}"
    return Probe(
        engine,
        False,
        version,
        problem=problem,
        remedy=_remedy(engine, version, ended.signal, ended.timed_out),
    )


def installed_version(engine: str) -> str | None:
    """Distribution and version that provide an engine, as far as pip knows them; found without importing it."""
    for module in find_target(engine).modules:
        name = module.replace("_", "-")
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _remedy(engine: str, version: str, signal: str | None, timed_out: bool) -> str:
    name, _, number = version.partition(" ")
    if signal == "SIGILL":
        return (
            f"{name} {number} uses instructions that this {platform.machine()} processor does not have: "
            f"pip install '{name}<{number}', or take another engine"
        )
    if signal is not None:
        return (
            f"reinstall it: pip install --force-reinstall --no-deps {name}=={number}; or take another engine"
        )
    if timed_out:
        return "try it again on an idle machine; if it hangs again, take another engine and report it"
    return f"pip install --force-reinstall 'face-edge-sdk[{find_target(engine).distribution}]'"


def _try(engine: str) -> Probe:
    """In this process."""
    version = installed_version(engine)
    shipped = [b for name in zoo.NAMES for b in zoo.bundles(name) if b.target == engine]
    if not shipped:
        return Probe(engine, None, version, problem="no shipped bundle to try it with")
    smallest = min(shipped, key=lambda b: b.path.stat().st_size)
    try:
        with load(open_shipped(smallest), options=LoadOptions(threads=1)) as model:
            return Probe(engine, True, version, model.info.device, smallest.file)
    except EdgeError as error:
        problem = str(error.message)
        cause = error.__cause__ or error
        remedy = error.remedy
        if "numpy" in f"{problem} {cause}".lower() or "multiarray" in f"{problem} {cause}".lower():
            remedy = "it was built for numpy 1: pip install 'numpy<2' 'opencv-python-headless<4.12'"
        return Probe(engine, False, version, bundle=smallest.file, problem=problem, remedy=remedy)


def _main(engine: str) -> None:
    with stdout_is_ours():
        found = _try(engine)
    print(json.dumps({name: getattr(found, name) for name in Probe.__dataclass_fields__}), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
