"""The file of ``build --report``: how much noise each block adds in int8, and a search's steps, as JSON and drawn."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from edge_quantize.search.mixed import Search, noise
from edge_quantize.workbench import Workbench
from edge_sdk.errors import InputError, MissingDependency
from edge_sdk.files import write_atomically
from edge_sdk.reporting import import_matplotlib
from edge_sdk.schema import to_plain
from edge_sdk.spec import Recipe
from edge_sdk.target import Target


def check(path: Path, recipe: Recipe) -> None:
    """Refuse before a build what ``write`` could not do after it.

    Args:
        path: of the JSON file.
        recipe: of the build.

    Raises:
        InputError: no such folder, no ``.json``, or a recipe that quantizes no activation.
        MissingDependency: matplotlib is not installed.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"no folder for {path}", remedy="make it first: nothing was built")
    if path.suffix != ".json":
        raise InputError(
            f"the report {path} is no .json file", remedy="name it NAME.json; NAME.png goes beside it"
        )
    if not recipe.calibrated:
        raise InputError(
            f"recipe {recipe.name} quantizes no activation: there is nothing to report",
            remedy="leave --report out, or use int8 or int8-mixed",
        )
    try:
        import_matplotlib()
    except ImportError as error:
        raise MissingDependency(
            f"matplotlib cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error


def write(bench: Workbench, target: Target, recipe: Recipe, found: Search, path: Path) -> None:
    """Write the report, and its picture beside it, each whole or not at all.

    Blocks are measured if the build did not have to.

    Args:
        bench: the network and its pictures.
        target: that was compiled for.
        recipe: that was asked for.
        found: how the search went; takes the blocks' noise where it has none.
        path: of the JSON file; the picture is beside it and ends in ``.png``.

    Raises:
        InputError: the folder is not writable or full.
    """
    if not found.noise:
        found.noise = noise(bench, target, recipe)
    plain: dict[str, Any] = {
        "model": bench.model.spec.name,
        "target": target.name,
        "recipe": recipe.name,
        "blocks": [
            {"block": r.block, "operators": r.operators, "noise": r.noise, "outputs": dict(r.outputs)}
            for r in found.noise
        ],
        "search": {
            "latency_budget": found.budget,
            "start": dict(found.start),
            "steps": [to_plain(step) for step in found.steps],
            "keep_float": list(found.keep_float),
            "passed": found.passed,
        }
        if found.steps or found.start
        else None,
    }
    write_atomically(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")
    write_atomically(path.with_suffix(".png"), _drawn(plain, found))


def _drawn(plain: dict[str, Any], found: Search) -> bytes:
    """The picture, PNG."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [step for step in found.steps if step.after is not None]
    height = 1.6 + 0.26 * len(found.noise) + (1.0 + 0.3 * len(steps) if steps else 0)
    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [len(found.noise), len(steps)] if steps else [1]
    axes = figure.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    figure.suptitle(f"{plain['model']} on {plain['target']}, {plain['recipe']}")

    top = axes[0]
    rows = found.noise[::-1]
    kept = set(found.keep_float)
    colours = ["tab:orange" if row.block in kept else "tab:blue" for row in rows]
    floor = min((row.noise for row in rows if row.noise > 0), default=1e-12)
    top.barh([row.block for row in rows], [max(row.noise, floor) for row in rows], color=colours)
    top.set_xscale("log")
    top.set_xlabel("noise of the answers with only this block in int8 (share of their power)", fontsize=8)
    top.tick_params(axis="y", labelsize=8)
    if any(row.block in kept for row in rows):
        top.set_title("orange: left in float by the search", fontsize=9, loc="right")

    if steps:
        bottom = axes[1]
        colour = {"kept": "tab:orange", "not faster": "tab:gray", "over budget": "tab:red"}
        for index, step in enumerate(steps[::-1]):
            assert step.before is not None
            bottom.plot([step.before, step.after], [index, index], color="lightgray", zorder=1)
            bottom.plot(step.before, index, "|", color="black", markersize=10)
            bottom.plot(step.after, index, "o", color=colour[step.outcome])
        shown = [
            f"{' + '.join(s.left_in_float) if len(s.left_in_float) < 3 else 'all of these'} ({s.outcome})"
            for s in steps[::-1]
        ]
        bottom.set_yticks(range(len(steps)), shown, fontsize=8)
        bottom.axvline(found.budget, color="tab:red", linewidth=0.8, linestyle="--")
        bottom.set_xlabel(
            "time / float on this engine: | before, o with these in float, dashed: budget", fontsize=8
        )
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
