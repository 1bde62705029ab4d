"""The fastest that passes: every recipe that fits a target, gated, and timed against float in one interleaved run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from edge_quantize.recipe import by_method, read_recipe
from edge_quantize.search import mixed
from edge_quantize.search.sensitivity import quietest
from edge_quantize.workbench import Workbench, float_session
from edge_sdk.bundle import Bundle, GateMetric
from edge_sdk.errors import CompileFailed, GateFailed, UnsupportedRecipe
from edge_sdk.spec import Recipe
from edge_sdk.target import Artifact, LoadOptions, Session, Target
from edge_sdk.timing import take_turns

RECIPES = ("int8", "int8-wonly", "fp16", "fp32")
"""Tried always, the one that is expected to be fastest first; int8 by the method that suits the network."""
TRAINED = "int8-qat"
"""Tried where there is a quantized graph."""
PERCENTILE = "int8-percentile"
"""Tried where int8 can be made but does not pass."""
MIXED = "int8-mixed"
"""Tried where that does not pass either, and where int8 passes and would be faster; by int8's method."""
TIE = 0.03
"""Of the fastest's time: within it, the smaller file wins."""
ROUNDS = 100


@dataclass(frozen=True)
class Candidate:
    """One recipe of the search.

    Attributes:
        recipe: name of it.
        outcome: ``chosen``, ``slower``, ``failed`` (its gate failed) or ``unfit`` (the target cannot follow it).
        reason: why it is ``failed`` or ``unfit``; else empty.
        metrics: what its gate measured.
        bytes: of its artifact's files; 0 without one.
        relative_latency: median of its engine's time divided by float onnxruntime's; None where it was not measured.
    """

    recipe: str
    outcome: str
    reason: str = ""
    metrics: dict[str, GateMetric] | None = None
    bytes: int = 0
    relative_latency: float | None = None


def search(bench: Workbench, target: Target) -> tuple[Bundle | None, tuple[Candidate, ...]]:
    """Build by every recipe that fits a target, and choose.

    Args:
        bench: the network and its pictures.
        target: to compile for.

    Returns:
        The bundle, not written, None if nothing passes; and what each recipe scored, in the order of trying.

    Raises:
        EdgeError: what concerns all recipes alike, such as a calibration set that cannot be used.
    """
    passed: dict[str, Bundle] = {}
    lost: dict[str, Candidate] = {}

    def attempt(recipe: Recipe, artifact: Artifact | None = None) -> None:
        try:
            if recipe.precision == "int8-mixed":
                passed[recipe.name] = mixed.bundle(bench, target, recipe)
            else:
                passed[recipe.name] = bench.bundle(target, recipe, artifact=artifact)
        except (UnsupportedRecipe, CompileFailed) as error:
            lost[recipe.name] = Candidate(recipe.name, "unfit", error.message)
        except GateFailed as error:
            lost[recipe.name] = Candidate(recipe.name, "failed", error.message)

    recipes = [read_recipe(n) for n in (RECIPES if bench.model.quantized is None else (TRAINED, *RECIPES))]
    tried = [_by_quietest(bench, target, r) if r.calibrated else (r, None) for r in recipes]
    recipes = [recipe for recipe, _ in tried]
    while tried:  # each artifact is let go once it has had its turn
        attempt(*tried.pop(0))
    (plain,) = (r for r in recipes if r.calibrated)
    partly = by_method(read_recipe(MIXED), plain.method)
    if plain.name in passed:
        if quicker := mixed.quicker(bench, target, partly):
            attempt(quicker)
    elif lost[plain.name].outcome == "failed":
        attempt(read_recipe(PERCENTILE))
        if PERCENTILE not in passed:
            attempt(partly)
    ratios = relative_latency(bench, target, passed)
    sizes = {name: sum(len(data) for data in b.artifact.files.values()) for name, b in passed.items()}
    winner = choose(ratios, sizes) if passed else None
    for name, bundle in passed.items():
        outcome = "chosen" if name == winner else "slower"
        metrics = dict(bundle.manifest.gate.metrics)
        lost[name] = Candidate(name, outcome, "", metrics, sizes[name], ratios.get(name))
    order = [name for name in (*(r.name for r in recipes), PERCENTILE, partly.name) if name in lost]
    return None if winner is None else passed[winner], tuple(lost[name] for name in order)


def _by_quietest(bench: Workbench, target: Target, recipe: Recipe) -> tuple[Recipe, Artifact | None]:
    """The recipe by the method that suits the network, and what it makes; unchanged where none can be followed."""
    try:
        return quietest(bench, target, recipe)
    except (UnsupportedRecipe, CompileFailed):
        return recipe, None  # trying it will say why


def choose(ratios: dict[str, float], sizes: dict[str, int]) -> str:
    """The fastest; of those that are as fast within ``TIE``, the smallest; where nothing was measured, the first.

    Args:
        ratios: recipe to relative latency; empty where the target cannot run here.
        sizes: recipe to bytes, in the order of preference.
    """
    if not ratios:
        return next(iter(sizes))
    fastest = min(ratios.values())
    return min((n for n in ratios if ratios[n] <= fastest * (1 + TIE)), key=lambda n: (sizes[n], ratios[n]))


def relative_latency(bench: Workbench, target: Target, bundles: dict[str, Bundle]) -> dict[str, float]:
    """Each bundle's median time divided by float onnxruntime's, measured in turns; empty if they cannot run here.

    Args:
        bench: the network and its pictures.
        target: that the bundles are for.
        bundles: name of each recipe to what it made.
    """
    if any(b.manifest.gate.engine not in (None, target.name) for b in bundles.values()):
        return {}
    with ExitStack() as stack:
        sessions: dict[str, Session] = {"": stack.enter_context(float_session(bench.model))}
        for name, bundle in bundles.items():
            sessions[name] = target.load(bundle.artifact, bench.model.spec, options=LoadOptions())
            stack.callback(sessions[name].close)
        bench.stage("measure", 0, 1)
        taken = take_turns({name: s.infer for name, s in sessions.items()}, bench.probes(), ROUNDS)
        bench.stage("measure", 1, 1)
    return {name: float(np.median(taken[name]) / np.median(taken[""])) for name in bundles}
