"""Recipes: how a network is made smaller.

A name is ``PRECISION[-tensor][-METHOD][-sym|-asym]``, such as ``int8``, ``int8-percentile`` or ``int8-tensor-mse-sym``:
one TOML file per precision in ``recipes/``, of which a variant changes what the name says. A user's own recipe is a TOML
file of the same form.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from edge_quantize.metrics import gated
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml
from edge_sdk.spec import Method, Recipe

FOLDER = Path(__file__).parent / "recipes"
GRAMMAR = "PRECISION[-tensor][-mse|-percentile|-entropy][-sym|-asym]"
_VARIANT = re.compile(
    r"(?P<granularity>-tensor)?(?P<method>-mse|-percentile|-entropy)?(?P<symmetric>-sym|-asym)?"
)


def names() -> tuple[str, ...]:
    """The recipes that come with the SDK, without their variants."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.toml")))


def read_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by name, or from the user's own TOML file.

    Raises:
        InputError: no such recipe, or the file breaks the schema.
    """
    path, variant = Path(name_or_path), dict[str, Any]()
    if path.suffix != ".toml":
        stem, variant = _parse(str(name_or_path))
        path = FOLDER / f"{stem}.toml"
    try:
        recipe = from_plain(Recipe, read_toml(path), path.name)
    except ManifestInvalid as error:
        raise InputError(error.message, remedy="mend the recipe") from error
    if variant:
        recipe = dataclasses.replace(recipe, name=str(name_or_path), **variant)
    problem = _problem(recipe)
    if problem:
        raise InputError(f"{path.name}: {problem}", remedy="mend the recipe")
    return recipe


def by_method(recipe: Recipe, method: Method) -> Recipe:
    """The recipe with another method to find ranges, which its name then says."""
    if method == recipe.method:
        return recipe
    return dataclasses.replace(recipe, name=f"{recipe.name}-{method}", method=method)


def float_of(recipe: Recipe) -> Recipe:
    """The recipe that leaves everything in float, with the same gate."""
    return Recipe(name="fp32", precision="fp32", calibration_items=0, gate=recipe.gate)


def _parse(name: str) -> tuple[str, dict[str, Any]]:
    """The file's stem, and the fields that the rest of the name changes."""
    for stem in sorted(names(), key=len, reverse=True):
        if name == stem:
            return stem, {}
        found = _VARIANT.fullmatch(name.removeprefix(stem)) if name.startswith(f"{stem}-") else None
        if found:
            parts: dict[str, Any] = {key: part[1:] for key, part in found.groupdict().items() if part}
            if "symmetric" in parts:
                parts["symmetric"] = parts["symmetric"] == "sym"
            return stem, parts
    raise InputError(
        f"no recipe {name!r}",
        remedy=f"use one of {', '.join(names())}, a variant ({GRAMMAR}), or the path of a .toml file",
    )


def _problem(recipe: Recipe) -> str | None:
    """What a recipe cannot mean: found here, not at the end of a long build."""
    if recipe.calibration_items < 0 or (recipe.calibration_items > 0) != recipe.calibrated:
        return (
            f"calibration_items is {recipe.calibration_items}; "
            "at least 1 for int8 and int8-mixed, 0 for what quantizes no activation or brings its ranges"
        )
    weights = recipe.precision.startswith("int8") and not recipe.trained
    for name, default, meant in (
        ("granularity", "channel", weights),
        ("method", "minmax", recipe.calibrated or (recipe.trained and recipe.precision == "int8")),
        ("symmetric", None, recipe.calibrated),
        ("keep_float", (), weights),
    ):
        if not meant and getattr(recipe, name) != default:
            return f"{name} means nothing for {'trained ranges' if recipe.trained else recipe.precision}"
    if not 0.5 <= recipe.gate.confidence < 1:
        return f"gate.confidence is {recipe.gate.confidence}, expected 0.5 to 1, such as 0.95"
    if not recipe.gate.max_drop:
        return "gate.max_drop is empty: nothing ships without a gate"
    known = gated()
    for name, drop in recipe.gate.max_drop.items():
        if name not in known:
            return f"no gate can limit {name!r}; use {', '.join(sorted(known))}"
        if not 0 < drop < 1:
            return f"gate.max_drop.{name} is {drop}, expected a fraction above 0: no set shows that nothing is lost"
    return None
