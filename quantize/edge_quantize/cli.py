"""Verbs of this floor: ``build`` and ``evaluate``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from edge_quantize.build import build
from edge_quantize.data import digest
from edge_quantize.metrics import evaluator_of
from edge_quantize.search.auto import Candidate
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.cli_common import (
    Verb,
    engine_options,
    load_asked,
    print_gate,
    print_json,
    progress,
    shown_coverage,
    stdout_is_ours,
)
from edge_sdk.errors import InputError
from edge_sdk.host import BuildRequest
from edge_sdk.profile import default_recipe
from edge_sdk.schema import to_plain


def register(verb: Verb) -> None:
    """Add the verbs."""
    sub = verb("build", _build, "quantize, compile, gate and bundle a float network")
    sub.add_argument("model", metavar="MODEL", nargs="?", help="zoo name: whose spec the network follows")
    sub.add_argument(
        "--spec", type=Path, metavar="FILE", help="TOML of a network of your own (docs/bring-your-own.md)"
    )
    sub.add_argument(
        "--onnx", type=Path, metavar="FILE", help="float network (default: MODEL's, in a checkout)"
    )
    sub.add_argument("--tflite", type=Path, metavar="FILE", help="float TFLite (default: beside the ONNX)")
    sub.add_argument(
        "--quantized",
        type=Path,
        metavar="FILE",
        help="network fine-tuned for int8, explicit QDQ, for int8-qat",
    )
    sub.add_argument("--target", required=True, metavar="NAME", help="engine, or board profile")
    sub.add_argument(
        "--recipe",
        metavar="NAME",
        help="recipe, .toml file, or auto: the fastest here that passes (default: what the board's profile says; "
        "int8 for an engine)",
    )
    sub.add_argument(
        "--waive", metavar="REASON", help="write the bundle even if its gate fails; shown at every load"
    )
    sub.add_argument(
        "--latency-budget",
        type=float,
        metavar="R",
        help="int8-mixed: at most this share of the float network's time (default: 1)",
    )
    sub.add_argument(
        "--report", type=Path, metavar="FILE.json", help="what each block loses in int8; drawn in FILE.png"
    )
    sub.add_argument("--calibration", type=Path, metavar="PATH", help="folder of pictures")
    sub.add_argument(
        "--evaluation", type=Path, required=True, metavar="PATH", help="folder of labelled pictures"
    )
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.edge", help="bundle to write")

    sub = verb("evaluate", _evaluate, "measure a bundle on labelled pictures, with intervals")
    sub.add_argument("bundle", metavar="BUNDLE", help=".edge file or zoo name")
    sub.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder of labelled pictures")
    sub.add_argument("--limit", type=int, metavar="N", help="N pictures, evenly spaced over the set")
    engine_options(sub)


def _build(args: argparse.Namespace) -> int:
    if (args.model is None) == (args.spec is None):
        raise InputError("build needs either a MODEL or a --spec", remedy="name a zoo model, or --spec FILE")
    if args.spec is not None and args.onnx is None:
        raise InputError("--spec describes a network that --onnx names", remedy="add --onnx FILE")
    scored: list[Any] = []
    try:
        with progress() as stage, stdout_is_ours():
            bundle = build(_request(args, stage, scored.extend))
    finally:
        # Also when nothing passed: then it says why. JSON on stdout stays one document.
        if scored and not (args.json and sys.exc_info()[0] is None):
            print_candidates(scored, sys.stderr if args.json else sys.stdout)
    if args.json:
        rows = {"candidates": [to_plain(row) for row in scored]} if scored else {}
        print_json({"bundle": str(args.output), **_summary(bundle), **rows})
        return 0
    manifest = bundle.manifest
    size = args.output.stat().st_size / 1e6
    print(f"wrote {args.output}: {manifest.target} {manifest.recipe.name}, {size:.1f} MB")
    if manifest.calibration and manifest.calibration.coverage:
        print(
            f"calibrated on {manifest.calibration.items} pictures: {shown_coverage(manifest.calibration.coverage)}"
        )
    if manifest.recipe.keep_float:
        print(f"left in float: {', '.join(manifest.recipe.keep_float)}")
    print_gate(bundle)
    if args.report is not None:
        print(f"report: {args.report}, drawn in {args.report.with_suffix('.png')}")
    if args.waive and manifest.gate.waiver is None:
        print("the gate passed: the waiver was not needed and is not stored")
    return 0


def _request(
    args: argparse.Namespace,
    stage: Callable[[str, int, int], None],
    scored: Callable[[Sequence[Any]], None],
) -> BuildRequest:
    return BuildRequest(
        onnx=args.onnx or zoo.float_source(args.model),
        target=args.target,
        recipe=args.recipe or default_recipe(args.target),
        evaluation=args.evaluation,
        output=args.output,
        model=args.model,
        spec=args.spec,
        calibration=args.calibration,
        tflite=args.tflite,
        quantized=args.quantized,
        waive=args.waive,
        latency_budget=args.latency_budget,
        report=args.report,
        stage=stage,
        scored=scored,
    )


def print_candidates(candidates: Sequence[Candidate], to: TextIO) -> None:
    """Print what every recipe of a search scored.

    Args:
        candidates: one row each.
        to: text stream; a terminal's width is used.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("recipe", "outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("MB", "time / float"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("compiled - float, and its bounds; or why not", overflow="fold")
    for c in candidates:
        figures = [
            f"{n} {m.compiled - m.reference:+.4f} ({m.low or 0:+.4f} .. {m.high or 0:+.4f})"
            for n, m in (c.metrics or {}).items()
        ]
        ratio = "-" if c.relative_latency is None else f"{c.relative_latency:.2f}"
        size = f"{c.bytes / 1e6:.1f}" if c.bytes else "-"
        table.add_row(c.recipe, c.outcome, size, ratio, c.reason or "\n".join(figures))
    Console(file=to, width=None if to.isatty() else 120, highlight=False, color_system=None).print(table)


def _evaluate(args: argparse.Namespace) -> int:
    with load_asked(args) as model:
        evaluator = evaluator_of(model.spec.task)
        items = evaluator.read_labelled(args.data, model.spec.labels)
        if args.limit is not None:
            if args.limit < 1:
                raise InputError(
                    f"--limit must be at least 1, got {args.limit}", remedy="leave it out for all"
                )
            count = min(args.limit, len(items))
            items = [items[i * len(items) // count] for i in range(count)]
        with progress() as stage:
            report = evaluator.examine(model.session, model.task, items, lambda d, t: stage("evaluate", d, t))
        seen = digest([item.path for item in items])
    if args.json:
        print_json(
            {
                "bundle": args.bundle,
                "data": {"path": str(args.data), "items": seen.items, "sha256": seen.sha256},
                **to_plain(dataclasses.replace(report, sample=None)),
            }
        )
        return 0
    print(f"{args.bundle} on {seen.items} pictures of {args.data}, 95 % intervals")
    for name, metric in report.metrics.items():
        print(f"  {name:<10}{metric.value:>8.4f}   {metric.low:.4f} .. {metric.high:.4f}")
    for label, figures in report.per_class.items():
        figure = next(iter(figures))
        print(f"  {label:<10}{figures[figure]:>8.4f}   {figure} of {figures['faces']:.0f} faces")
    return 0


def _summary(bundle: Bundle) -> dict[str, Any]:
    return {
        "sha256": bundle.sha256,
        "target": bundle.manifest.target,
        "precision": bundle.manifest.recipe.precision,
        "recipe": to_plain(bundle.manifest.recipe),
        "calibration": to_plain(bundle.manifest.calibration),
        "gate": to_plain(bundle.manifest.gate),
    }
