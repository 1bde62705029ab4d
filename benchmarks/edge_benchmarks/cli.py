"""Verbs of this floor: ``bench``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from edge_benchmarks import report, scenarios
from edge_sdk.errors import InputError
from edge_sdk.terminal import Verb, print_json, progress


def register(verb: Verb) -> None:
    """Add the verbs."""
    sub = verb("bench", _bench, "measure latency on this device, end to end and by stage")
    sub.add_argument("bundle", nargs="+", metavar="BUNDLE", help=".edge files or zoo names")
    sub.add_argument("--scenario", default="single-stream", metavar="S", help="default: single-stream")
    sub.add_argument("--duration", type=float, default=10.0, metavar="SEC", help="default: 10")
    sub.add_argument("--threads", type=int, metavar="N", help="of the engine")
    sub.add_argument("-o", "--output", type=Path, metavar="RUN.json", help="write the whole run there")


def _bench(args: argparse.Namespace) -> int:
    if args.output is not None and not args.output.absolute().parent.is_dir():
        raise InputError(f"no folder for {args.output}", remedy="make it first: nothing was measured")
    runs = []
    with progress() as stage:
        for bundle in args.bundle:
            said = partial(stage, f"bench {bundle}")
            run = scenarios.run(
                bundle,
                scenario=args.scenario,
                duration_s=args.duration,
                threads=args.threads,
                progress=said,
            )
            runs.append(run)
    if args.output is not None:
        report.save(runs, args.output)
    if args.json:
        print_json([run.to_dict() for run in runs])
    else:
        print(report.table(runs))
    return 0
