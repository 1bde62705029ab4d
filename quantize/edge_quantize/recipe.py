"""Recipes: how a network is made smaller, one TOML file each."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml
from edge_sdk.spec import Recipe

FOLDER = Path(__file__).parent / "recipes"


def names() -> tuple[str, ...]:
    """The recipes that come with the SDK."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.toml")))


def read_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by name, or from the user's own TOML file.

    Raises:
        InputError: no such recipe, or the file breaks the schema.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if str(name_or_path) not in names():
            raise InputError(
                f"no recipe {str(name_or_path)!r}",
                remedy=f"use one of {', '.join(names())}, or the path of a .toml file",
            )
        path = FOLDER / f"{name_or_path}.toml"
    try:
        return from_plain(Recipe, read_toml(path), path.name)
    except ManifestInvalid as error:
        raise InputError(error.message, remedy="mend the recipe") from error
