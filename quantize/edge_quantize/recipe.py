"""Recipes: how a network is made smaller, one TOML file each."""

from __future__ import annotations

from pathlib import Path

from edge_quantize.report import METRICS
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
        recipe = from_plain(Recipe, read_toml(path), path.name)
    except ManifestInvalid as error:
        raise InputError(error.message, remedy="mend the recipe") from error
    problem = _problem(recipe)
    if problem:
        raise InputError(f"{path.name}: {problem}", remedy="mend the recipe")
    return recipe


def _problem(recipe: Recipe) -> str | None:
    """What a recipe cannot mean: found here, not at the end of a long build."""
    if recipe.calibration_items < 0 or (recipe.calibration_items == 0) != (recipe.precision == "fp32"):
        return f"calibration_items is {recipe.calibration_items}; 0 for fp32, at least 1 for int8"
    if not recipe.gate.max_drop:
        return "gate.max_drop is empty: nothing ships without a gate"
    for name, drop in recipe.gate.max_drop.items():
        if name not in (known := {m for names in METRICS.values() for m in names}):
            return f"nothing measures {name!r}; use {', '.join(sorted(known))}"
        if not 0 <= drop < 1:
            return f"gate.max_drop.{name} is {drop}, expected a fraction from 0 on"
    return None
