"""Boards, one TOML file each: which engine, which recipe, how many threads, what to install.

The shipped ones lie in the floor above (``edge_targets/profiles``) and are found by name; a user's own is named by its
path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml

SUFFIX = ".toml"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of board is, and how it is used best.

    Attributes:
        name: of the file without its suffix.
        title: what its maker calls it.
        engine: target that serves it best.
        recipe: that a build follows where none is named.
        install: command for the board's shell.
        machine: architecture, such as ``"aarch64"``; None: any.
        extra: of face-edge-sdk, which brings the engine; None: the board's system image brings it.
        pythons: versions (``"3.11"``) of the board's system images.
        glibc: lowest version of the C library in these images: wheels that ask for a higher one cannot run.
        threads: of the engine; None: as many as there are cores, at most 4.
        device: of the engine; None: its processor.
        boards: what the device tree calls them: any of these words in a board's model means this profile.
        families: of machines without such words that it fits (see :mod:`edge_sdk.host_info`).
    """

    name: str
    title: str
    engine: str
    install: str
    recipe: str = "int8"
    machine: str | None = None
    extra: str | None = None
    pythons: tuple[str, ...] = ()
    glibc: str | None = None
    threads: int | None = None
    device: str | None = None
    boards: tuple[str, ...] = ()
    families: tuple[str, ...] = ()


def profile_names() -> tuple[str, ...]:
    """The profiles that come with the SDK."""
    return tuple(sorted(p.stem for p in _folder().glob(f"*{SUFFIX}")))


def is_profile(name: str | Path) -> bool:
    """Whether this names a shipped profile, or is the path of a profile's file."""
    return str(name).endswith(SUFFIX) or str(name) in profile_names()


def default_recipe(target: str) -> str:
    """The recipe for a target where none is asked for: a board's own, such as fp16 on Jetson; else int8.

    Raises:
        InputError: the profile breaks its schema.
    """
    return read_profile(target).recipe if is_profile(target) else "int8"


def read_profile(name_or_path: str | Path) -> Profile:
    """A shipped profile by name, or the user's own from a TOML file.

    Raises:
        InputError: no such profile, or the file breaks the schema.
        MissingDependency: Python 3.10 without tomli.
    """
    path = Path(name_or_path)
    if path.suffix != SUFFIX:
        if str(name_or_path) not in profile_names():
            raise InputError(
                f"no profile {str(name_or_path)!r}",
                remedy=f"use one of {', '.join(profile_names())}, or the path of a .toml file",
            )
        path = _folder() / f"{name_or_path}{SUFFIX}"
    try:
        profile = from_plain(Profile, read_toml(path), path.name)
    except ManifestInvalid as error:
        raise InputError(error.message, remedy="mend the profile: docs/devices.md lists its keys") from error
    if problem := _problem(profile, path.stem):
        raise InputError(f"{path.name}: {problem}", remedy="mend the profile: docs/devices.md lists its keys")
    return profile


def _problem(profile: Profile, stem: str) -> str | None:
    if profile.name != stem:
        return f"name is {profile.name!r}, the file is called {stem!r}"
    if profile.threads is not None and profile.threads < 1:
        return f"threads is {profile.threads}, expected at least 1"
    versions = [("pythons", v) for v in profile.pythons] + [("glibc", v) for v in (profile.glibc,) if v]
    for name, version in versions:
        major, _, minor = version.partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            return f"{name} holds {version!r}, expected a version such as '3.11'"
    return None


def _folder() -> Path:
    from importlib.resources import files  # slow to import, and only who asks for a profile needs it

    return Path(str(files("edge_targets") / "profiles"))
