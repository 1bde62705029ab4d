"""The fastest that passes: every recipe that fits a target, gated, and timed against float in one interleaved run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_quantize import mixed
from edge_quantize.build import Stage, Workbench, check_output, float_session, silent
from edge_quantize.recipe import read_recipe
from edge_quantize.sensitivity import by, quietest
from edge_sdk.bundle import Bundle, GateMetric
from edge_sdk.errors import CompileFailed, GateFailed, UnsupportedRecipe
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import LoadOptions, Session, Target, find_target
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
        recipe: its name.
        outcome: ``chosen``, ``slower``, ``failed`` (its gate) or ``unfit`` (for the target).
        reason: of ``failed`` and ``unfit``.
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


def build(
    onnx: str | Path,
    *,
    spec: ModelSpec,
    engine: str,
    calibration: str | Path | None,
    evaluation: str | Path,
    output: str | Path,
    tflite: str | Path | None = None,
    quantized: str | Path | None = None,
    stage: Stage = silent,
    scored: Callable[[Sequence[Candidate]], None] = lambda candidates: None,
) -> Bundle:
    """Write the bundle of the recipe that runs fastest here among those that pass; see :func:`search`.

    Args:
        onnx: and the others as in :func:`edge_quantize.build.build`.
        spec: of the network.
        engine: name of the target.
        calibration: folder of pictures.
        evaluation: folder of labelled pictures.
        output: file to write.
        tflite: float TFLite file.
        quantized: explicit QDQ graph of the network fine-tuned for int8, which is then tried too.
        stage: progress.
        scored: called with what every recipe scored, also before GateFailed.
    """
    target = find_target(engine)
    check_output(output)
    bench = Workbench(
        onnx,
        spec=spec,
        calibration=calibration,
        evaluation=evaluation,
        tflite=tflite,
        quantized=quantized,
        stage=stage,
    )
    bundle, candidates = search(bench, target)
    scored(candidates)
    if bundle is None:
        shown = "; ".join(f"{c.recipe}: {c.reason}" for c in candidates)
        raise GateFailed(
            f"no recipe passes on {target.name}: {shown}",
            remedy="see what each lost; fine-tune for int8, or accept a loss with --waive and a named recipe",
            report={c.recipe: c.reason for c in candidates},
        )
    bench.write(bundle, output)
    return bundle


def search(bench: Workbench, target: Target) -> tuple[Bundle | None, tuple[Candidate, ...]]:
    """Build by every recipe that fits a target, and choose.

    Returns:
        The bundle, not written, None if nothing passes; and what each recipe scored, in the order of trying.

    Raises:
        EdgeError: what concerns all recipes alike, such as a calibration set that cannot be used.
    """
    passed: dict[str, Bundle] = {}
    lost: dict[str, Candidate] = {}

    def attempt(recipe: Recipe) -> None:
        build_one = mixed.bundle if recipe.precision == "int8-mixed" else Workbench.bundle
        try:
            passed[recipe.name] = build_one(bench, target, recipe)
        except (UnsupportedRecipe, CompileFailed) as error:
            lost[recipe.name] = Candidate(recipe.name, "unfit", error.message)
        except GateFailed as error:
            lost[recipe.name] = Candidate(recipe.name, "failed", error.message)

    recipes = [read_recipe(n) for n in (RECIPES if bench.model.quantized is None else (TRAINED, *RECIPES))]
    recipes = [_by_quietest(bench, target, r) if r.calibrated else r for r in recipes]
    for recipe in recipes:
        attempt(recipe)
    (plain,) = (r for r in recipes if r.calibrated)
    partly = by(read_recipe(MIXED), plain.method)
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


def _by_quietest(bench: Workbench, target: Target, recipe: Recipe) -> Recipe:
    """The recipe by the method that suits the network; unchanged where no method can be followed."""
    calibration = bench.tensors(recipe)
    try:
        return quietest(
            bench.model, target, recipe, calibration, runner=bench.runner(target), stage=bench.stage
        )
    except (UnsupportedRecipe, CompileFailed):
        return recipe  # trying it will say why


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
    """Each bundle's median time divided by float onnxruntime's, all in turn; empty if they cannot run here."""
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
