"""The wheels that a board without internet needs, collected on a machine that has it, with their hashes.

pip resolves for the board's Python, architecture and C library; only wheels are taken, since a board has no compiler to
count on. Conditions of requirements (``python_version < "3.11"``) pip judges by the Python that it runs under: collect
with the board's own version where a package has such conditions.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import edge_sdk
from edge_sdk.child import command
from edge_sdk.errors import InputError, MissingDependency
from edge_sdk.profile import Profile

DISTRIBUTION = "face-edge-sdk"
_OLDEST_MANYLINUX = 17
_TAIL = 3


@dataclass(frozen=True)
class Wheel:
    """One file of a wheelhouse.

    Attributes:
        file: its name.
        name: of the distribution.
        version: of it.
        sha256: of the file.
        bytes: of the file.
    """

    file: str
    name: str
    version: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Wheelhouse:
    """What was collected for one Python.

    Attributes:
        python: version, such as ``"3.11"``.
        requirements: file with one pinned, hashed line per wheel.
        wheels: of it.
        install: command for the board, beside the folder.
    """

    python: str
    requirements: Path
    wheels: tuple[Wheel, ...]
    install: str


def collect(
    profile: Profile,
    folder: Path,
    *,
    extra: str | None = None,
    pythons: Sequence[str] = (),
    wheel: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[Wheelhouse]:
    """Collect the wheels of face-edge-sdk and of a board's engine.

    Args:
        profile: of the board.
        folder: to make; it may exist if it is empty.
        extra: of face-edge-sdk; None takes the profile's.
        pythons: versions on the board; empty takes the profile's.
        wheel: of face-edge-sdk; None builds it from the checkout.
        progress: called with (stage, done, of).

    Returns:
        One wheelhouse per Python; all lie in ``folder``, which appears only when it is whole.

    Raises:
        InputError: the folder is not empty, the profile says too little, or a package has no wheel for this board.
        MissingDependency: pip is not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder", remedy="name another one")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"no folder for {folder}", remedy="make it first")
    if profile.machine is None or profile.glibc is None or not (pythons or profile.pythons):
        raise InputError(
            f"profile {profile.name} does not say machine, glibc and pythons, by which wheels are chosen",
            remedy="add them to the profile, or take the profile of a board",
        )
    extra = extra or profile.extra
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f"{folder.name}.partial") as name:
        partial = Path(name) / "wheelhouse"
        partial.mkdir()
        ours = wheel or _build_wheel(Path(name))
        asked = f"{ours.resolve()}[{extra}]" if extra else str(ours.resolve())
        versions = tuple(pythons or profile.pythons)
        houses = []
        for done, python in enumerate(versions):
            progress(f"wheels for Python {python}", done, len(versions))
            taken = _download(asked, profile, python, Path(name) / python)
            for path in taken:
                shutil.copy2(path, partial)
            houses.append(_house(taken, profile, python, partial, folder))
        partial.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    return houses


def platform_arguments(profile: Profile, python: str) -> list[str]:
    """Pip's options for wheels that run on a board: its architecture, C library and Python."""
    _, minor = map(int, str(profile.glibc).split("."))
    compact = python.replace(".", "")
    chosen = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for abi in (f"cp{compact}", "abi3", "none"):
        chosen += ["--abi", abi]
    for number in range(minor, _OLDEST_MANYLINUX - 1, -1):
        chosen += ["--platform", f"manylinux_2_{number}_{profile.machine}"]
    return [*chosen, "--platform", f"manylinux2014_{profile.machine}"]


def _build_wheel(folder: Path) -> Path:
    root = Path(edge_sdk.__file__).parents[1]
    if not (root / "pyproject.toml").is_file():
        raise InputError(
            f"{DISTRIBUTION} is installed here without its checkout, from which its wheel would be built",
            remedy="give the wheel with --wheel",
        )
    _pip("wheel", "--no-deps", "-w", str(folder), str(root))
    (built,) = folder.glob("*.whl")
    return built


def _download(asked: str, profile: Profile, python: str, folder: Path) -> list[Path]:
    _pip("download", *platform_arguments(profile, python), "-d", str(folder), asked)
    return sorted(folder.glob("*.whl"))


def _house(taken: Sequence[Path], profile: Profile, python: str, partial: Path, folder: Path) -> Wheelhouse:
    wheels = tuple(_described(path) for path in taken)
    file = f"requirements-{python}.txt"
    install = f"pip install --no-index --find-links {folder.name} --require-hashes -r {folder.name}/{file}"
    lines = [f"# {profile.title}, Python {python}", f"# {install}"]
    lines += [f"{w.name}=={w.version} --hash=sha256:{w.sha256}" for w in wheels]
    (partial / file).write_text("\n".join(lines) + "\n")
    return Wheelhouse(python, folder / file, wheels, install)


def _described(path: Path) -> Wheel:
    name, version = path.name.split("-")[:2]
    data = path.read_bytes()
    return Wheel(
        path.name, name.replace("_", "-").lower(), version, hashlib.sha256(data).hexdigest(), len(data)
    )


def _pip(*arguments: str) -> None:
    pip = command(("-m", "pip", "--disable-pip-version-check", "-q", *arguments))
    done = subprocess.run(pip, capture_output=True, text=True, check=False)  # our own pip
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    if "No module named pip" in done.stderr:
        raise MissingDependency("pip is not installed", remedy="python -m ensurepip")
    raise InputError(
        f"pip {arguments[0]} failed: {' '.join(said[:_TAIL])}",
        remedy="read what it says: a package without a wheel for this board needs another Python or engine",
    )
