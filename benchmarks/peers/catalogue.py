"""The table of peers and their environments, as ``peers.toml`` states it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml

FOLDER = Path(__file__).parent
WORKERS = FOLDER / "workers"
REPOSITORY = FOLDER.parents[1]


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        requirements: for pip; ``@wheel`` is the project's wheel.
        engines: installed on top one by one, so that the size with each is known.
        tools: installed last; they export networks and count for nothing.
    """

    requirements: tuple[str, ...]
    engines: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """Software that answers frames.

    Attributes:
        name: short, for options and files.
        title: for the table.
        environment: that it runs in.
        worker: file in ``workers/``.
        network: a zoo name for ours; else a path that starts with ``@made``, ``@repository`` or ``@data``, or empty if
            the peer carries its own.
        engine: of the environment's, that it uses.
        ours: whether the goals are held against it.
    """

    name: str
    title: str
    environment: str
    worker: str
    network: str
    engine: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Catalogue:
    """Everything that may be compared."""

    environments: dict[str, Environment]
    peers: tuple[Peer, ...]

    def chosen(self, names: list[str] | None) -> tuple[Peer, ...]:
        """The peers of these names in the table's order; all for None.

        Raises:
            InputError: a name that is not in the table.
        """
        known = [peer.name for peer in self.peers]
        for name in names or ():
            if name not in known:
                raise InputError(f"no peer {name!r}", remedy=f"use some of {', '.join(known)}")
        return tuple(peer for peer in self.peers if names is None or peer.name in names)


def read(path: Path = FOLDER / "peers.toml") -> Catalogue:
    """Read the table.

    Raises:
        InputError: a key, environment or worker is wrong.
    """
    plain: dict[str, Any] = dict(read_toml(path))
    try:
        found = Catalogue(
            {
                name: from_plain(Environment, table, f"environments.{name}")
                for name, table in plain["environments"].items()
            },
            tuple(from_plain(Peer, table, f"peers[{i}]") for i, table in enumerate(plain["peers"])),
        )
    except (ManifestInvalid, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error}", remedy="mend the table") from error
    for peer in found.peers:
        environment = found.environments.get(peer.environment)
        if environment is None or (peer.engine and peer.engine not in environment.engines):
            raise InputError(
                f"{path}: peer {peer.name} names environment {peer.environment!r} with engine {peer.engine!r}",
                remedy="name an environment of the table and one of its engines",
            )
        if not (WORKERS / peer.worker).is_file():
            raise InputError(f"{path}: no worker {peer.worker}", remedy=f"name a file in {WORKERS}")
    return found
