"""Size of an installation: the wheel, and each extra in a fresh virtual environment.

The wheel is built with ``python -m build`` from the repository's root, or taken with ``--wheel``. For each extra, pip
installs the wheel with it into an empty environment; what counts is the size of all files in site-packages, without
pip and setuptools and without compiled .pyc files, and how many distributions it took. This downloads every engine and
takes minutes: it is never run by the tests.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_benchmarks import child_process, module_cli
from edge_sdk.child import command
from edge_sdk.errors import InputError

EXTRAS = ("onnxruntime", "openvino", "tflite", "tflite-runtime", "host", "train")
TIMEOUT_S = 3600.0
"""Of one step: an extra may download gigabytes."""

NOT_OURS = ("pip", "setuptools", "_distutils_hack", "pkg_resources")


def build_wheel(root: Path, into: Path) -> Path:
    """Build the project's wheel.

    Raises:
        InputError: ``root`` is no project, or the build fails.
    """
    if not (root / "pyproject.toml").is_file():
        raise InputError(
            f"no pyproject.toml in {root}", remedy="run it from the repository's root, or give --wheel"
        )
    _run(
        command(("-m", "build", "--wheel", "--outdir", str(into), str(root))),
        "the wheel cannot be built",
    )
    (wheel,) = into.glob("*.whl")
    return wheel


def installed(wheel: Path, extra: str, folder: Path, python: str = sys.executable) -> dict[str, Any]:
    """Megabytes and number of distributions in a fresh environment with the wheel and one extra.

    Raises:
        InputError: pip cannot install it, for example because the engine has no wheel for this Python.
    """
    place = folder / extra
    _run([python, "-I", "-m", "venv", str(place)], "no virtual environment can be made")
    pip = [str(place / "bin" / "python"), "-I", "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    _run([*pip, "--no-compile", f"{wheel.resolve()}[{extra}]"], f"extra {extra} cannot be installed")
    (packages,) = place.glob("lib/python*/site-packages")
    return {"extra": extra, "installed_mb": size(packages) / 1e6, "distributions": distributions(packages)}


def size(packages: Path) -> int:
    """Bytes of all files below a site-packages folder, without pip's own and without compiled .pyc."""
    return sum(
        path.lstat().st_size
        for path in packages.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not _not_ours(path.relative_to(packages).parts[0])
    )


def distributions(packages: Path) -> int:
    """Installed distributions, without pip's own."""
    return sum(not _not_ours(path.name) for path in packages.glob("*.dist-info"))


def _not_ours(name: str) -> bool:
    return name.split("-")[0] in NOT_OURS


def _run(arguments: list[str], what: str) -> None:
    problem = child_process.run_program(arguments, timeout_s=TIMEOUT_S)
    if problem is not None:
        raise InputError(f"{what}: the command {problem}", remedy=f"try it: {' '.join(arguments)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = module_cli.parser("footprint", __doc__)
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="measure this one instead of building it")
    parser.add_argument("--python", default=sys.executable, metavar="EXE", help="interpreter to install for")
    parser.add_argument("--wheel-only", action="store_true", help="install nothing")
    parser.add_argument(
        "extras", nargs="*", default=list(EXTRAS), metavar="EXTRA", help=f"default: {' '.join(EXTRAS)}"
    )
    return module_cli.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = args.wheel or build_wheel(Path.cwd(), folder)
        if not wheel.is_file():
            raise InputError(f"no wheel {wheel}", remedy="check the path")
        wheel_mb = wheel.stat().st_size / 1e6
        rows = []
        for extra in () if args.wheel_only else args.extras:
            try:
                rows.append(installed(wheel, extra, folder, args.python))
            except InputError as error:
                # One engine without a wheel for this Python says nothing about the others.
                rows.append(
                    {"extra": extra, "installed_mb": None, "distributions": None, "error": error.message}
                )
    if args.json:
        print(json.dumps({"wheel": wheel.name, "wheel_mb": wheel_mb, "extras": rows}, indent=2))
        return 0
    print(f"{wheel.name}: {wheel_mb:.2f} MB")
    for row in rows:
        if row["installed_mb"] is None:
            print(f"  [{row['extra']}]: unknown: {row['error']}")
        else:
            print(
                f"  {'[' + row['extra'] + ']':<18}{row['installed_mb']:>9.1f} MB{row['distributions']:>5} distributions"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
