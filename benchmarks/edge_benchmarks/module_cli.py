"""Command line of ``python -m edge_benchmarks.NAME``: arguments, error lines and exit codes as in ``edge-sdk``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError, InputError
from edge_sdk.selection import names_a_file, open_shipped
from edge_sdk.target import available_targets

DEFAULT_MODEL = "fer-yolo11n"


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as its help and knows ``--json``.

    Args:
        name: of the module.
        text: its docstring.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m edge_benchmarks.{name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="print JSON for a program to read")
    return made


def add_bundles(to: argparse.ArgumentParser) -> None:
    """Add the positional argument ``BUNDLE...``; without it, the default model's bundles that can run here are taken."""
    to.add_argument(
        "bundles",
        nargs="*",
        metavar="BUNDLE",
        default=[DEFAULT_MODEL],
        help=f".edge files or zoo names (default: {DEFAULT_MODEL})",
    )


def expand(names: Sequence[str | Path]) -> list[Path]:
    """Paths of bundle files; a zoo name stands for all its shipped bundles whose engine is installed here.

    Raises:
        InputError: no such model, or none of its bundles can run here.
        BundleError: a shipped bundle is damaged, or not the one that the zoo's index names.
    """
    paths: list[Path] = []
    installed = available_targets()
    for name in names:
        if names_a_file(name):
            paths.append(Path(name))
            continue
        found = [b for b in zoo.bundles(str(name)) if b.target in installed]
        if not found:
            raise InputError(
                f"no shipped bundle of {name} can run here",
                remedy="name an .edge file, or install an engine: pip install 'face-edge-sdk[onnxruntime]'",
            )
        for shipped in found:
            open_shipped(shipped)
            paths.append(shipped.path)
    return paths


def label(path: Path) -> dict[str, str]:
    """The columns that name a bundle in a table: its path, model, target and precision."""
    manifest = Bundle.open(path).manifest
    return {
        "bundle": str(path),
        "name": manifest.spec.name,
        "target": manifest.target,
        "precision": manifest.recipe.precision,
    }


def positive(text: str) -> int:
    """Read an argument that counts something: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def run_main(work: Callable[[], int]) -> int:
    """Run a command's work and return its exit code; an error is two lines on stderr and its own exit code."""
    try:
        return work()
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
