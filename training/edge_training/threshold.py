"""The threshold from which on a liveness network's score means bona fide, which its spec then holds.

    python -m edge_training.threshold pad-minifasnet --data ../shared/data --work runs/release

It is chosen on the development presentations by the float network: the attack species that passes most often passes as
often as ``--apcer`` allows. The test set has no part in it, and quantized networks keep it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge_quantize.metrics import liveness
from edge_quantize.workbench import float_session
from edge_sdk import zoo
from edge_sdk.errors import EdgeError
from edge_sdk.tasks.liveness import LivenessTask
from edge_training.release import workbench

MODELS = tuple(name for name in zoo.NAMES if zoo.spec(name).task == "liveness")


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.threshold", description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked pictures")
    parser.add_argument(
        "--apcer", type=float, default=0.05, help="share of the worst species that may pass (default: 0.05)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")
    args = parser.parse_args(argv)
    try:
        bench = workbench(args.model, args.data, args.work)
        with float_session(bench.model) as session:
            found, groups = liveness.scores(session, LivenessTask(bench.model.spec), bench.items)
        threshold = liveness.threshold_at(found, groups, args.apcer)
        report = liveness.evaluate(found, groups, threshold)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    rates = {name: report.metrics[name].value for name in ("apcer_worst", "bpcer")}
    species = {name: figures["apcer"] for name, figures in report.per_class.items()}
    if args.json:
        print(json.dumps({"threshold": threshold, **rates, "apcer": species}, indent=2))
        return 0
    by_species = ", ".join(f"{name} {rate:.3f}" for name, rate in species.items())
    print(f"threshold {threshold:.4f}: APCER {by_species}; BPCER {rates['bpcer']:.3f}; {len(found)} pictures")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
