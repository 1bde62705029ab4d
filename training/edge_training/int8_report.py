"""What int8 costs in accuracy and saves in time: every model on every engine, with paired bounds of the difference.

    python -m edge_training.int8_report fer-yolo11n --data ../shared/data --work runs/release

Float and int8 are compared on the gate's set. Latency is the engine's median divided by float onnxruntime's, over 100
rounds in turn. TensorRT's graph runs in onnxruntime here, so its latency says nothing about a board and is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge_quantize.gate import check_alive, examine, paired_bounds, passes
from edge_quantize.recipe import read_recipe
from edge_quantize.search.auto import ROUNDS
from edge_quantize.workbench import Workbench, float_session, runner_of
from edge_sdk import zoo
from edge_sdk.bundle import GateMetric
from edge_sdk.cli_common import stdout_is_ours
from edge_sdk.errors import EdgeError, GateFailed
from edge_sdk.spec import Recipe
from edge_sdk.target import Target, find_target
from edge_sdk.timing import take_turns
from edge_training.release import TARGETS, workbench


@dataclass(frozen=True)
class Comparison:
    """One model, float and int8, on one engine.

    Attributes:
        model: zoo name.
        engine: target that it was compiled for.
        recipe: name of the recipe.
        ran_in: engine that ran it here.
        problem: what is wrong with an output that is constant or saturated; metrics are empty then. Else empty.
        metrics: name to the float value, the int8 value, the allowed fall and the bounds of the difference.
        passed: name of a metric to whether its limit was shown to hold.
        megabytes: size of the artifact.
        relative_latency: divided by float onnxruntime's; None where another engine stood in.
    """

    model: str
    engine: str
    recipe: str
    ran_in: str
    problem: str
    metrics: Mapping[str, GateMetric]
    passed: Mapping[str, bool]
    megabytes: float
    relative_latency: float | None


def compare(bench: Workbench, target: Target, recipe: Recipe) -> Comparison:
    """Compile, evaluate and time a model, whether or not it passes its gate.

    Args:
        bench: the model with its calibration and evaluation sets.
        target: engine to compile for.
        recipe: how to quantize.
    """
    artifact, runner = bench.compile(target, recipe), runner_of(target)
    session = bench.load(target, artifact)
    metrics, passed, problem = dict[str, GateMetric](), dict[str, bool](), ""
    ratio = None
    try:
        with float_session(bench.model) as float_network:
            if runner is target:
                calls = {"float": float_network.infer, "int8": session.infer}
                taken = take_turns(calls, bench.probes(), ROUNDS)
                ratio = float(np.median(taken["int8"]) / np.median(taken["float"]))
        try:
            check_alive(session, bench.probes(), bench.reference.probes)
        except GateFailed as error:
            problem = error.message
        else:
            before, after = bench.reference.report, examine(session, bench.task, bench.items)
            names = [n for n in sorted(recipe.gate.max_drop) if n in before.metrics]
            bounds = paired_bounds(before, after, names, recipe.gate.confidence)
            assert after.sample is not None, "made by examine"
            for n in names:
                values = (before.metrics[n].value, after.metrics[n].value)
                metrics[n] = GateMetric(*values, recipe.gate.max_drop[n], *bounds[n])
                passed[n] = passes(n, metrics[n], after.sample.counts[n], recipe.gate.confidence)
    finally:
        session.close()
    size = sum(map(len, artifact.files.values())) / 1e6
    name = bench.model.spec.name
    return Comparison(name, target.name, recipe.name, runner.name, problem, metrics, passed, size, ratio)


_COLUMNS = (
    "model", "engine", "metric", "float", "int8", "difference (bounds)", "allowed", "passes", "time / float", "MB",
)  # fmt: skip


def markdown_header() -> str:
    """Markdown: the table's first two lines. Every bound holds by itself at the recipe's confidence."""
    return "| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|"


def markdown_rows(r: Comparison) -> str:
    """Markdown: a line per metric, or one with the problem."""
    ratio = "n/a" if r.relative_latency is None else f"{r.relative_latency:.2f}"
    engine = r.engine if r.engine == r.ran_in else f"{r.engine} (in {r.ran_in})"
    tail = f"{ratio} | {r.megabytes:.1f} |"
    if r.problem:
        return f"| {r.model} | {engine} | {r.problem} | | | | | no | {tail}"
    return "\n".join(
        f"| {r.model} | {engine} | {name} | {m.reference:.4f} | {m.compiled:.4f} | "
        f"{m.compiled - m.reference:+.4f} ({m.low or 0:+.4f} .. {m.high or 0:+.4f}) | {m.max_drop:g} | "
        f"{'yes' if r.passed[name] else 'no'} | {tail}"
        for name, m in r.metrics.items()
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.int8_report", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(zoo.NAMES), metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked pictures")
    parser.add_argument("--recipe", default="int8", metavar="NAME", help="default: int8")
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")
    args = parser.parse_args(argv)
    rows = []
    try:
        recipe = read_recipe(args.recipe)
        if not args.json:
            print(markdown_header(), flush=True)
        for model in args.models:
            bench = workbench(model, args.data, args.work)
            for engine in (*TARGETS, "tensorrt"):
                with stdout_is_ours():
                    rows.append(compare(bench, find_target(engine), recipe))
                if not args.json:
                    print(markdown_rows(rows[-1]), flush=True)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps([asdict(r) for r in rows], indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
