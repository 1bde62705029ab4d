"""Verbs of this floor: ``build`` and ``evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_quantize import data, gate
from edge_sdk import zoo
from edge_sdk.build import build
from edge_sdk.bundle import Bundle
from edge_sdk.errors import InputError
from edge_sdk.profile import default_recipe
from edge_sdk.schema import to_plain
from edge_sdk.terminal import (
    Verb,
    engine_options,
    load_asked,
    print_gate,
    print_json,
    progress,
    stdout_is_ours,
)


def register(verb: Verb) -> None:
    """Add the verbs."""
    sub = verb("build", _build, "quantize, compile, gate and bundle a float network")
    sub.add_argument("model", metavar="MODEL", nargs="?", help="zoo name: whose spec the network follows")
    sub.add_argument(
        "--spec", type=Path, metavar="FILE", help="TOML of a network of your own (docs/bring-your-own.md)"
    )
    sub.add_argument("--onnx", type=Path, metavar="FILE", help="float network (default: a checkout's own)")
    sub.add_argument("--tflite", type=Path, metavar="FILE", help="float TFLite (default: beside the ONNX)")
    sub.add_argument("--target", required=True, metavar="NAME", help="engine, or board profile")
    sub.add_argument(
        "--recipe",
        metavar="NAME",
        help="recipe or .toml file (default: the first precision of the board's profile; int8 for an engine)",
    )
    sub.add_argument("--calibration", type=Path, metavar="PATH", help="folder of pictures")
    sub.add_argument(
        "--evaluation", type=Path, required=True, metavar="PATH", help="folder of labelled pictures"
    )
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.edge")

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
    with progress() as stage, stdout_is_ours():
        bundle = build(
            args.onnx or zoo.float_source(args.model),
            model=args.model,
            spec=args.spec,
            target=args.target,
            recipe=args.recipe or default_recipe(args.target),
            calibration=args.calibration,
            evaluation=args.evaluation,
            output=args.output,
            tflite=args.tflite,
            stage=stage,
        )
    if args.json:
        print_json({"bundle": str(args.output), **_summary(bundle)})
    else:
        print(f"wrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB)")
        print_gate(bundle)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    with load_asked(args) as model:
        items = data.read_labelled(args.data, model.spec.labels)
        if args.limit is not None:
            if args.limit < 1:
                raise InputError(
                    f"--limit must be at least 1, got {args.limit}", remedy="leave it out for all"
                )
            count = min(args.limit, len(items))
            items = [items[i * len(items) // count] for i in range(count)]
        with progress() as stage:
            report = gate.examine(model.session, model.task, items, lambda d, t: stage("evaluate", d, t))
        digest = data.digest([item.path for item in items])
    if args.json:
        print_json(
            {
                "bundle": args.bundle,
                "data": {"path": str(args.data), "items": digest.items, "sha256": digest.sha256},
                **to_plain(report),
            }
        )
        return 0
    print(f"{args.bundle} on {digest.items} pictures of {args.data}, 95 % intervals")
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
        "gate": to_plain(bundle.manifest.gate),
    }
