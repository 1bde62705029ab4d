"""What the commands of this package share: arguments, error lines and exit codes as in ``edge-sdk``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_sdk import zoo
from edge_sdk.bundle import SUFFIX, Bundle
from edge_sdk.errors import EdgeError, InputError, LoadFailed
from edge_sdk.target import available_targets
from edge_sdk.timing import now_ns

DEFAULT_MODEL = "fer-yolo11n"


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring and knows ``--json``."""
    made = argparse.ArgumentParser(
        prog=f"python -m edge_benchmarks.{name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="print JSON for a program to read")
    return made


def add_bundles(to: argparse.ArgumentParser) -> None:
    """Bundles as positional arguments, by default those of the zoo model that can run here."""
    to.add_argument(
        "bundles",
        nargs="*",
        metavar="BUNDLE",
        default=[DEFAULT_MODEL],
        help=f".edge files or zoo names (default: {DEFAULT_MODEL})",
    )


def expand(names: Sequence[str | Path]) -> list[Path]:
    """Bundle files; a zoo name stands for all its shipped bundles whose engine is installed here.

    Raises:
        InputError: no such model, or none of its bundles can run here.
    """
    paths: list[Path] = []
    installed = available_targets()
    for name in names:
        if str(name).endswith(SUFFIX) or Path(name).is_file():
            paths.append(Path(name))
            continue
        found = [b.path for b in zoo.bundles(str(name)) if b.target in installed]
        if not found:
            raise InputError(
                f"no shipped bundle of {name} can run here",
                remedy="name an .edge file, or install an engine: pip install 'face-edge-sdk[onnxruntime]'",
            )
        paths += found
    return paths


def label(path: Path) -> dict[str, str]:
    """What a row of a table calls a bundle."""
    manifest = Bundle.open(path).manifest
    return {
        "bundle": str(path),
        "name": manifest.spec.name,
        "target": manifest.target,
        "precision": manifest.recipe.precision,
    }


def ask_fresh_process(code: str, *arguments: str) -> tuple[dict[str, Any], int]:
    """Run ``code`` in a new interpreter of the same environment, until it has printed a JSON object on one line.

    Returns:
        The object, and the nanoseconds from starting the process to the arrival of the line.

    Raises:
        LoadFailed: it failed, or printed none.
    """
    # A file, not a pipe, takes the engines' chatter: a full pipe nobody reads would stop the process.
    with tempfile.TemporaryFile("w+") as chatter:
        before = now_ns()
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=chatter, text=True
        ) as process:
            assert process.stdout is not None
            line = next((text for text in process.stdout if text.startswith("{")), None)
            taken = now_ns() - before
            process.stdout.read()  # what it says after the answer, so that its pipe never breaks
        chatter.seek(0)
        said = chatter.read().strip().splitlines()
    if process.returncode == 0 and line is not None:
        answer: dict[str, Any] = json.loads(line)
        return answer, taken
    raise LoadFailed(
        f"a fresh process failed ({process.returncode}): {said[-1] if said else 'it printed nothing'}",
        remedy="load the bundle in this process to see more",
    )


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def run_main(work: Callable[[], int]) -> int:
    """Run a command's work; errors go to stderr in two lines and become the exit code."""
    try:
        return work()
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
