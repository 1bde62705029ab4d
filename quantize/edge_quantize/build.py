"""From a float network to a bundle: calibrate, compile, gate, write; nothing is written before the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_quantize.recipe import read_recipe
from edge_quantize.search import auto, mixed, noise_report
from edge_quantize.user_spec import adapted
from edge_quantize.workbench import Workbench, source_model
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import GateFailed, InputError
from edge_sdk.host import AUTO, BuildRequest
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Target, engine_of, find_target


def build(request: BuildRequest) -> Bundle:
    """Quantize, compile, gate and write one bundle.

    Args:
        request: everything that is asked for; with recipe ``"auto"``, every recipe that fits the target is tried, and
            the one that runs fastest here among those that pass is kept (:func:`edge_quantize.search.auto.search`).

    Returns:
        The bundle that was written.

    Raises:
        EdgeError: as :func:`edge_sdk.host.build` says; nothing is written.
    """
    target = find_target(engine_of(request.target))
    recipe = None if request.recipe == AUTO else read_recipe(request.recipe)
    _check_output(request.output)
    if recipe is not None:
        _check_together(request, recipe)
    with workbench(request) as bench:
        bundle = _made(bench, target, recipe, request)
        bench.write(bundle, request.output)
    return bundle


@contextmanager
def workbench(request: BuildRequest) -> Iterator[Workbench]:
    """The network and the pictures of a request, read and checked, while the context lasts.

    Raises:
        InputError: a file is missing or unreadable, or a graph and the spec differ.
    """
    with _network(request) as (onnx, spec):
        model = source_model(spec, onnx, tflite=request.tflite, quantized=request.quantized)
        yield Workbench(
            model, calibration=request.calibration, evaluation=request.evaluation, stage=request.stage
        )


@contextmanager
def _network(request: BuildRequest) -> Iterator[tuple[Path, ModelSpec]]:
    """The graph with the spec's tensors, and the spec."""
    if request.spec is None:
        yield request.onnx, zoo.spec(str(request.model))
        return
    with adapted(request.onnx, request.spec) as network:
        yield network


def _made(bench: Workbench, target: Target, recipe: Recipe | None, request: BuildRequest) -> Bundle:
    """The gated bundle, not written, of a recipe; None stands for whichever is fastest."""
    if recipe is None:
        return _fastest(bench, target, request)
    budget = mixed.BUDGET if request.latency_budget is None else request.latency_budget
    found = mixed.Search(budget=budget)
    try:
        return mixed.bundle(bench, target, recipe, waive=request.waive, found=found)
    finally:
        # Also, and above all, when the gate fails.
        if request.report is not None:
            noise_report.write(bench, target, recipe, found, request.report)


def _fastest(bench: Workbench, target: Target, request: BuildRequest) -> Bundle:
    bundle, candidates = auto.search(bench, target)
    request.scored(candidates)
    if bundle is None:
        shown = "; ".join(f"{c.recipe}: {c.reason}" for c in candidates)
        raise GateFailed(
            f"no recipe passes on {target.name}: {shown}",
            remedy="see what each lost; fine-tune for int8, or accept a loss with --waive and a named recipe",
            report={c.recipe: c.reason for c in candidates},
        )
    return bundle


def _check_output(output: Path) -> None:
    """Refuse a file that could not be written in the end (InputError)."""
    if not output.absolute().parent.is_dir():
        raise InputError(f"no folder for {output}", remedy="make it first: nothing was built")


def _check_together(request: BuildRequest, recipe: Recipe) -> None:
    """Refuse what a recipe has no use for, before any work begins (InputError)."""
    if request.quantized is not None and not recipe.trained:
        raise InputError(
            f"recipe {recipe.name} quantizes the float network: a quantized graph is not for it",
            remedy="use recipe int8-qat, or leave --quantized out",
        )
    if request.report is not None:
        noise_report.check(request.report, recipe)
