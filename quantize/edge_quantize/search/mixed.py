"""Mixed precision: what to leave in float so that a network is faster, and so that its gate passes.

Two greedy searches, one after the other. Kinds of operators are left in float where that is *faster* on this machine: an
int8 softmax or product of two activations can cost more than it saves. Then, while the gate fails, the blocks whose
quantization harms the answers most (``edge_quantize.search.sensitivity``) go back to float, each unless the network
would then be slower than the budget allows. Noise powers add up, so a round leaves in float what makes half of the noise
that is left: a gate is thousands of pictures, and a block alone seldom decides it. Every latency is measured, all of a
comparison in turns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from edge_quantize.graph import blocks
from edge_quantize.recipe import float_of
from edge_quantize.search import sensitivity
from edge_quantize.search.sensitivity import ITEMS, BlockNoise
from edge_quantize.workbench import Workbench
from edge_sdk.bundle import Bundle
from edge_sdk.engine_cache import default_cache
from edge_sdk.errors import GateFailed
from edge_sdk.spec import Recipe
from edge_sdk.target import Artifact, LoadOptions, Target, is_installed
from edge_sdk.timing import take_turns

BUDGET = 1.0
"""Of the float network's time on the same engine: what is slower than float has no reason to be quantized."""
FASTER = 0.97
"""Of the time before: less gain is noise."""
ROUNDS = 100

_VIEWS = frozenset(
    (
        "Cast",
        "Transpose",
        "Reshape",
        "Flatten",
        "Identity",
        "Squeeze",
        "Unsqueeze",
        "Gather",
        "Split",
        "Slice",
    )
)
"""Kinds that compute nothing: float or not, they follow their neighbours."""
_MOVERS = _VIEWS | {"Concat", "MaxPool", "Resize", "Pad"}
"""Kinds that copy values: worth a trial alone, for they may have to bring inputs to one scale, but not in pairs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried.

    Attributes:
        left_in_float: names that were added.
        reason: ``faster`` or ``accuracy``.
        outcome: ``kept``, ``not faster``, ``over budget``, or ``no difference`` (the engine's tools made the same file).
        before: time before, divided by the float network's; None where it cannot be measured here.
        after: time with these in float, likewise.
        metrics: the gate's figures with what is in float by then; empty where the gate did not run.
    """

    left_in_float: tuple[str, ...]
    reason: str
    outcome: str
    before: float | None
    after: float | None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass
class Search:
    """How a search went; filled as it goes, so that a failed one can be read too."""

    budget: float = BUDGET
    start: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The gate's figures of what was fastest, before any block went back to float."""
    steps: list[Step] = dataclasses.field(default_factory=list)
    noise: list[BlockNoise] = dataclasses.field(default_factory=list)
    keep_float: tuple[str, ...] = ()
    passed: bool = False


def bundle(
    bench: Workbench, target: Target, recipe: Recipe, *, waive: str | None = None, found: Search | None = None
) -> Bundle:
    """A gated bundle, not written; where the recipe leaves open what stays in float, that is searched for.

    Args:
        bench: the network and its pictures.
        target: to compile for.
        recipe: to compile by.
        waive: as :meth:`Workbench.bundle` takes it: accepts what a search ends with.
        found: takes how a search went.

    Raises:
        GateFailed: as of the two ways; its report names the blocks that harm most.
    """
    open_ended = recipe.precision == "int8-mixed" and not recipe.keep_float
    found = Search() if found is None else found
    try:
        if not open_ended:
            return bench.bundle(target, recipe, waive=waive)
        return search(bench, target, recipe, found)
    except GateFailed as error:
        if open_ended and waive:
            return bench.bundle(target, dataclasses.replace(recipe, keep_float=found.keep_float), waive=waive)
        if not recipe.calibrated:
            raise
        rows = found.noise or noise(bench, target, recipe)
        found.noise = rows
        raise GateFailed(
            f"{error.message}; most harmful in int8: {sensitivity.shown(rows)}",
            remedy=error.remedy,
            report={**error.report, "blocks": {row.block: row.noise for row in rows}},
        ) from error


def search(bench: Workbench, target: Target, recipe: Recipe, found: Search) -> Bundle:
    """Find what to leave in float.

    Args:
        bench: the network and its pictures.
        target: to compile for; where it cannot run on this machine, no latency is known and none limits.
        recipe: of precision ``int8-mixed`` without ``keep_float``.
        found: with the budget; filled.

    Returns:
        The bundle of the first combination that passes, its recipe naming what is in float; not written.

    Raises:
        GateFailed: nothing within the budget passes; its report has the steps.
    """
    timer = Timer(bench, target, recipe) if is_installed(target) else None
    if timer:
        found.keep_float = faster(bench, timer, found)
    left: list[BlockNoise] | None = None
    while True:
        try:
            made = bench.bundle(target, dataclasses.replace(recipe, keep_float=found.keep_float))
        except GateFailed as error:
            _note(found, _figures(error))
            if left is None:
                found.noise = noise(bench, target, recipe)
                left = list(found.noise)
            if not _next_blocks(bench, timer, found, left):
                raise _failed(error, found) from error
        else:
            found.passed = True
            _note(found, {name: m.compiled for name, m in made.manifest.gate.metrics.items()})
            return made


def quicker(bench: Workbench, target: Target, recipe: Recipe) -> Recipe | None:
    """The recipe with those kinds of operators in float that are faster so here; None if there are none.

    Args:
        bench: the network and its pictures.
        target: to compile for.
        recipe: of precision ``int8-mixed``.
    """
    if not is_installed(target):
        return None
    kept = faster(bench, Timer(bench, target, recipe), Search())
    return dataclasses.replace(recipe, keep_float=kept) if kept else None


class Timer:
    """Times the network with some parts in float, relative to the network that is float throughout.

    Args:
        bench: the network and its pictures.
        target: whose engine is here.
        recipe: of precision ``int8-mixed``.
    """

    def __init__(self, bench: Workbench, target: Target, recipe: Recipe) -> None:
        self.bench, self.target = bench, target
        # Ranges change no latency: neither which pictures made them, nor how.
        self.recipe = dataclasses.replace(recipe, method="minmax")
        self.reference = bench.compile(target, float_of(recipe))

    def compile(self, keep_float: Sequence[str]) -> Artifact:
        """The network with these blocks and kinds of operators in float, its ranges from a few pictures."""
        recipe = dataclasses.replace(self.recipe, keep_float=tuple(keep_float))
        return self.bench.compile(self.target, recipe, items=ITEMS)

    def compare(self, before: Artifact, after: Artifact) -> tuple[float, float, bool]:
        """Median times of two divided by the float network's, all in turns; and whether the second is surely faster.

        Sure by the 95 % bound of the median of the paired ratios (an order statistic, whatever their distribution):
        other work on the machine widens it, and then nothing is called faster.
        """
        artifacts = {"float": self.reference, "before": before, "after": after}
        with ExitStack() as stack:
            sessions = {}
            for name, artifact in artifacts.items():
                session = self.target.load(artifact, self.bench.model.spec, options=LoadOptions())
                stack.callback(session.close)
                sessions[name] = session
            taken = take_turns({n: s.infer for n, s in sessions.items()}, self.bench.probes(), ROUNDS)
        paired = np.sort(taken["after"] / taken["before"])
        bound = paired[min(len(paired) - 1, math.ceil(len(paired) / 2 + 1.645 * math.sqrt(len(paired)) / 2))]
        medians = {name: float(np.median(times)) for name, times in taken.items()}
        return (
            medians["before"] / medians["float"],
            medians["after"] / medians["float"],
            bool(bound < FASTER),
        )


def candidates(operators: Sequence[blocks.Operator]) -> list[tuple[str, ...]]:
    """Kinds worth a trial: each that computes, each pair of which one feeds the other, and all of them together."""
    single = [kind for kind in blocks.kinds(operators) if kind not in _VIEWS]
    pairs = [pair for pair in blocks.neighbours(operators) if not set(pair) & _MOVERS]
    everything = [tuple(single)] if len(single) > 2 else []
    return [*((kind,) for kind in single), *pairs, *everything]


def faster(bench: Workbench, timer: Timer, found: Search) -> tuple[str, ...]:
    """Kinds that are faster in float, added one after the other while each makes it faster still."""
    current: tuple[str, ...] = ()
    made = timer.compile(current)
    tried = candidates(blocks.of_onnx(bench.model.onnx))
    for done, extra in enumerate(tried):
        bench.stage("search: faster in float", done, len(tried))
        if set(extra) <= set(current):
            continue
        keep = tuple(dict.fromkeys((*current, *extra)))
        artifact = timer.compile(keep)
        if artifact.files == made.files:
            found.steps.append(Step(extra, "faster", "no difference", None, None))
            continue
        before, after, gain = timer.compare(made, artifact)
        found.steps.append(Step(extra, "faster", "kept" if gain else "not faster", before, after))
        if gain:
            current, made = keep, artifact
    bench.stage("search: faster in float", len(tried), len(tried))
    return current


def noise(bench: Workbench, target: Target, recipe: Recipe) -> list[BlockNoise]:
    """What each block's quantization does to the answers, remembered in the engine cache.

    See :func:`edge_quantize.search.sensitivity.measure`.
    """
    return sensitivity.measure(bench, target, recipe, cache=default_cache())


def _next_blocks(bench: Workbench, timer: Timer | None, found: Search, left: list[BlockNoise]) -> bool:
    """Leave the most harmful blocks that the budget allows in float, until half of the noise is gone; False if none."""
    removed = 0.0
    while removed < sum(row.noise for row in left):
        row = left.pop(0)
        block = row.block
        keep = (*found.keep_float, block)
        before = after = None
        if timer:
            before, after, _ = timer.compare(timer.compile(found.keep_float), timer.compile(keep))
        fits = after is None or after <= found.budget
        found.steps.append(Step((block,), "accuracy", "kept" if fits else "over budget", before, after))
        if fits:
            found.keep_float = keep
            removed += row.noise
    return removed > 0


def _note(found: Search, metrics: Mapping[str, float]) -> None:
    """Put the gate's figures where they belong: with the last block that went back to float, or at the start."""
    if found.steps and found.steps[-1].reason == "accuracy":
        found.steps[-1] = dataclasses.replace(found.steps[-1], metrics=dict(metrics))
    else:
        found.start = dict(metrics)


def _figures(error: GateFailed) -> dict[str, float]:
    metrics = error.report.get("metrics", {})
    assert isinstance(metrics, Mapping)
    return {str(name): float(figures["compiled"]) for name, figures in metrics.items()}


def _failed(error: GateFailed, found: Search) -> GateFailed:
    kept = ", ".join(found.keep_float) or "nothing"
    slow = [name for s in found.steps if s.outcome == "over budget" for name in s.left_in_float]
    more = f"; {', '.join(slow)} would take longer than {found.budget:g} of float's time" if slow else ""
    return GateFailed(
        f"with {kept} in float, {error.message}{more}",
        remedy="allow more time (--latency-budget), fine-tune for int8, or use fp32",
        report={**error.report, "keep_float": list(found.keep_float)},
    )
