"""Virtual environments of the peers, and the networks that they export: made once, and again when they change."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_benchmarks.child_process import run_program
from edge_benchmarks.footprint import build_wheel, size
from edge_benchmarks.frames import frame_set
from edge_sdk.errors import InputError, MissingDependency
from edge_sdk.files import check_private_folder, open_private, write_atomically
from edge_sdk.image import Image, write_image
from peers.catalogue import REPOSITORY, WORKERS, Catalogue, Environment, Peer
from peers.processes import clean_environment

SIDE = 320
WEIGHTS = REPOSITORY / "training" / "weights" / "fer-yolo11n.safetensors"
EXPORTER = WORKERS / "export_ultralytics.py"
EXPORTING = "ultralytics"
MARKER = "made.json"
INSTALL_S, EXPORT_S = 1800.0, 900.0

Log = Callable[[str], None]


class Environments:
    """A folder of environments.

    Args:
        root: the folder; it is made.
        catalogue: what may lie in it.
        log: called with a line of text when something that takes minutes begins.
    """

    def __init__(self, root: Path, catalogue: Catalogue, log: Log) -> None:
        self.root, self.catalogue, self._log = root.resolve(), catalogue, log
        self._wheel: Path | None = None

    def prepare(self, peers: Sequence[Peer], faces: Sequence[Image]) -> dict[str, str]:
        """Make what is missing or has changed.

        Args:
            peers: that will run.
            faces: pictures that an int8 export is calibrated on, beside the drawn frames.

        Returns:
            Name of each peer that cannot run, and why; the others can.

        Raises:
            InputError: the folder is not this user's alone.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        failed: dict[str, str] = {}
        # What is installed here is run: nobody else may put anything into it.
        check_private_folder(self.root, "name another with --environments")
        with os.fdopen(open_private(self.root / "lock", os.O_RDWR | os.O_CREAT), "r+b") as lock:
            # Two that make the same folder at once would each delete what the other has made.
            fcntl.flock(lock, fcntl.LOCK_EX)
            for peer in peers:
                try:
                    self._environment(peer.environment)
                    if peer.network.startswith("@made/"):
                        # The exporter lives in its author's environment, whoever runs the network.
                        self._environment(EXPORTING)
                        self._networks(faces)
                except MissingDependency as error:
                    failed[peer.name] = error.message
        return failed

    def python(self, peer: Peer) -> Path:
        """The peer's interpreter."""
        return self.root / peer.environment / "bin" / "python"

    def installed_mb(self, peer: Peer) -> float:
        """Megabytes of site-packages that this peer needs, without pip and compiled files."""
        sizes: Mapping[str, float] = json.loads((self.root / peer.environment / MARKER).read_text())[
            "megabytes"
        ]
        return sizes["requirements"] + (sizes[peer.engine] if peer.engine else 0.0)

    @property
    def made(self) -> Path:
        """Folder of the networks that a peer exported."""
        return self.root / "networks"

    def _environment(self, name: str) -> None:
        asked = self.catalogue.environments[name]
        folder = self.root / name
        ours = any("@wheel" in requirement for requirement in asked.requirements)
        state = {
            "requirements": list(asked.requirements),
            "engines": list(asked.engines),
            "tools": list(asked.tools),
            "python": sys.version.split()[0],
            "wheel": _sha256(self._built_wheel()) if ours else None,
        }
        marked = _marked(folder / MARKER)
        if marked == state:
            return
        if marked is not None and {**marked, "wheel": state["wheel"]} == state:
            self._reinstall_wheel(folder, state)
            return
        self._log(f"making environment {name}")
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-I", "-m", "venv", str(folder)], f"environment {name}", INSTALL_S)
        sizes = self._install(name, folder, asked)
        # Written last: without it, the environment is not whole.
        write_atomically(folder / MARKER, json.dumps({**state, "megabytes": sizes}))

    def _reinstall_wheel(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Put this checkout's wheel into an environment that has everything else."""
        (folder / MARKER).unlink()
        arguments = [
            *_pip(folder),
            "--no-compile",
            "--no-deps",
            "--force-reinstall",
            str(self._built_wheel()),
        ]
        _run(arguments, f"environment {folder.name}", INSTALL_S)
        sizes = {"requirements": size(_packages(folder)) / 1e6}
        write_atomically(folder / MARKER, json.dumps({**state, "megabytes": sizes}))

    def _install(self, name: str, folder: Path, asked: Environment) -> dict[str, float]:
        """Install in steps; megabytes of each."""
        steps = [("requirements", list(asked.requirements))]
        steps += [(engine, [engine]) for engine in asked.engines]
        steps += [("tools", list(asked.tools))] if asked.tools else []
        sizes: dict[str, float] = {}
        before = 0.0
        for step, requirements in steps:
            given = [
                r.replace("@wheel", str(self._built_wheel())) if "@wheel" in r else r for r in requirements
            ]
            _run([*_pip(folder), "--no-compile", *given], f"environment {name}", INSTALL_S)
            after = size(_packages(folder)) / 1e6
            sizes[step], before = after - before, after
        return sizes

    def _built_wheel(self) -> Path:
        """This checkout's wheel; equal sources give equal bytes."""
        if self._wheel is None:
            self._log("building the wheel")
            folder = self.root / "wheel"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self._wheel = build_wheel(REPOSITORY, folder)
        return self._wheel

    def _networks(self, faces: Sequence[Image]) -> None:
        pictures = [*frame_set().images, *faces]
        digest = hashlib.sha256(EXPORTER.read_bytes() + WEIGHTS.read_bytes())
        for picture in pictures:
            digest.update(picture.tobytes())
        state = {"sha256": digest.hexdigest()}
        if _marked(self.made / MARKER) == state:
            return
        self._log("exporting our weights with Ultralytics")
        shutil.rmtree(self.made, ignore_errors=True)
        shown = self.made / "pictures"
        shown.mkdir(parents=True)
        for index, picture in enumerate(pictures):
            write_image(shown / f"{index:04d}.png", picture)
        python = self.root / EXPORTING / "bin" / "python"
        _run([str(python), str(EXPORTER), str(WEIGHTS), str(shown), str(self.made)], "the export", EXPORT_S)
        shutil.rmtree(shown)
        write_atomically(self.made / MARKER, json.dumps(state))


def _marked(marker: Path) -> dict[str, Any] | None:
    """State of an environment as its marker file records it, without the sizes; None without a marker."""
    try:
        found = json.loads(marker.read_text())
    except (OSError, ValueError):
        return None
    return {k: v for k, v in found.items() if k != "megabytes"} if isinstance(found, dict) else None


def _pip(folder: Path) -> list[str]:
    return [str(folder / "bin" / "python"), "-I", "-m", "pip", "-q", "--disable-pip-version-check", "install"]


def _packages(folder: Path) -> Path:
    (packages,) = folder.glob("lib/python*/site-packages")
    return packages


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(arguments: list[str], what: str, limit_s: float) -> None:
    """Run a command in silence, in an environment that knows nothing of ours."""
    problem = run_program(arguments, timeout_s=limit_s, environment=clean_environment())
    if problem is not None:
        raise MissingDependency(f"{what} {problem}", remedy=f"try it: {' '.join(arguments)}")


def require_repository() -> None:
    """Raise InputError unless this is a checkout with the float weights."""
    if not WEIGHTS.is_file():
        raise InputError(f"no {WEIGHTS}", remedy="run it in a checkout of the repository")
