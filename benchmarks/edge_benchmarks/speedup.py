"""How long each bundle's engine takes, as a share of onnxruntime fp32's time.

All engines are loaded into one process with the same number of threads, and take turns on the same letterboxed
frames: what disturbs the machine disturbs all of them alike. The order turns with every round. A figure is the median
of the engine's infer, divided by the reference's; pre- and postprocessing are not in it. onnxruntime's idle threads do
not spin (our sessions switch it off); the other engines keep their vendors' defaults.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edge_benchmarks import command
from edge_benchmarks.frames import frame_set
from edge_quantize.recipe import read_recipe
from edge_sdk import zoo
from edge_sdk.bundle import SUFFIX, Bundle
from edge_sdk.errors import InputError
from edge_sdk.spec import ModelSpec
from edge_sdk.target import Artifact, FloatModel, LoadOptions, Session, find_target
from edge_sdk.tasks import task_of
from edge_sdk.tensors import Array
from edge_sdk.timing import now_ns

REFERENCE = ("onnxruntime", "fp32")
DEFAULT_ONNX = Path("training/weights/fer-yolo11n.onnx")
INPUTS = 16
WARM_UP = 10


def relative_latency(
    paths: Sequence[str | Path],
    *,
    reference: str | Path | None = None,
    threads: int | None = None,
    rounds: int = 200,
) -> dict[str | Path, float]:
    """Median latency of each bundle's engine, divided by onnxruntime fp32's in the same rounds.

    Args:
        paths: bundles of networks with the same input.
        reference: an onnxruntime fp32 bundle, or the float ONNX file; None takes such a bundle among ``paths``,
            else ``training/weights/fer-yolo11n.onnx``.
        threads: of every engine.
        rounds: each engine runs once in each.

    Returns:
        Each of ``paths``, as given, to its share; below 1 is faster than the reference.

    Raises:
        InputError: a file is missing, the reference is another bundle, or inputs differ.
        EdgeError: what loading an engine raises.
    """
    taken = latencies(paths, reference=reference, threads=threads, rounds=rounds)
    return {path: taken[path] / taken[None] for path in paths}


def latencies(
    paths: Sequence[str | Path],
    *,
    reference: str | Path | None = None,
    threads: int | None = None,
    rounds: int = 200,
) -> dict[str | Path | None, float]:
    """Median milliseconds of each bundle's engine, and under None the reference's; see :func:`relative_latency`."""
    bundles = {path: Bundle.open(path) for path in paths}
    spec, artifact, twin = _reference(reference, bundles)
    options = LoadOptions(threads=threads)
    with ExitStack() as stack:
        sessions: dict[str | Path | None, Session] = {}
        for path, bundle in bundles.items():
            if bundle.manifest.spec.input != spec.input:
                raise InputError(
                    f"{path} takes {bundle.manifest.spec.input.shape}, the reference {spec.input.shape}",
                    remedy="compare bundles of one model",
                )
            target = find_target(bundle.manifest.target)
            sessions[path] = target.load(bundle.artifact, bundle.manifest.spec, options=options)
            stack.callback(sessions[path].close)
        if twin is None:
            sessions[None] = find_target(REFERENCE[0]).load(artifact, spec, options=options)
            stack.callback(sessions[None].close)
        task = task_of(spec)
        inputs = [task.preprocess(image)[0].copy() for image in frame_set().images[:INPUTS]]
        medians = take_turns(sessions, inputs, rounds)
    # A reference that is among the bundles is itself: 1.00, not a second engine and its noise.
    return medians if twin is None else {**medians, None: medians[twin]}


def take_turns(
    sessions: Mapping[str | Path | None, Session], inputs: Sequence[Array], rounds: int
) -> dict[str | Path | None, float]:
    """Median milliseconds of each session's ``infer``, turn about, the first of a round changing."""
    order = list(sessions)
    taken: dict[str | Path | None, list[int]] = {name: [] for name in order}
    for turn in range(WARM_UP + rounds):
        pixels = inputs[turn % len(inputs)]
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            before = now_ns()
            sessions[name].infer(pixels)
            if turn >= WARM_UP:
                taken[name].append(now_ns() - before)
    return {name: statistics.median(ns) / 1e6 for name, ns in taken.items()}


def _reference(
    reference: str | Path | None, bundles: Mapping[str | Path, Bundle]
) -> tuple[ModelSpec, Artifact, str | Path | None]:
    """Spec and artifact of the reference, and which of the bundles it is, if any."""
    if reference is None:
        for path, bundle in bundles.items():
            if _kind(bundle) == REFERENCE:
                return bundle.manifest.spec, bundle.artifact, path
        reference = DEFAULT_ONNX
    if str(reference).endswith(SUFFIX):
        bundle = Bundle.open(reference)
        if _kind(bundle) != REFERENCE:
            raise InputError(
                f"{reference} is {' '.join(_kind(bundle))}, the reference must be {' '.join(REFERENCE)}",
                remedy="name another bundle, or the float ONNX file",
            )
        twin = next((p for p, b in bundles.items() if b.sha256 == bundle.sha256), None)
        return bundle.manifest.spec, bundle.artifact, twin
    if not Path(reference).is_file():
        raise InputError(f"no reference {reference}", remedy="give --reference an .edge or .onnx file")
    spec = next(iter(bundles.values())).manifest.spec if bundles else zoo.spec(command.DEFAULT_MODEL)
    model = FloatModel(spec, Path(reference))
    artifact = find_target(REFERENCE[0]).compile(model, recipe=read_recipe(REFERENCE[1]), calibration=())
    return spec, artifact, None


def _kind(bundle: Bundle) -> tuple[str, str]:
    return bundle.manifest.target, bundle.manifest.recipe.precision


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command.parser("speedup", __doc__)
    command.add_bundles(parser)
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="onnxruntime fp32 .edge, or float .onnx"
    )
    parser.add_argument("--threads", type=command.positive, metavar="N", help="of every engine")
    parser.add_argument("--rounds", type=command.positive, default=200, metavar="N", help="default: 200")
    return command.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    paths = command.expand(args.bundles)
    taken = latencies(paths, reference=args.reference, threads=args.threads, rounds=args.rounds)
    rows: list[dict[str, Any]] = [
        {**command.label(p), "median_ms": taken[p], "relative_latency": taken[p] / taken[None]} for p in paths
    ]
    if args.json:
        print(json.dumps({"reference_ms": taken[None], "rounds": args.rounds, "rows": rows}, indent=2))
        return 0
    print(f"{'engine, median of ' + str(args.rounds):<28}{'ms':>9}{'relative':>10}{'speed-up':>10}")
    print(f"{'onnxruntime-fp32 (reference)':<28}{taken[None]:>9.2f}{1:>10.2f}{1:>9.2f}x")
    for row in rows:
        share = row["relative_latency"]
        print(
            f"{row['target'] + '-' + row['precision']:<28}{row['median_ms']:>9.2f}{share:>10.2f}{1 / share:>9.2f}x"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
