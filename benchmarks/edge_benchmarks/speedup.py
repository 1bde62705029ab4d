"""How long each bundle's engine takes, as a share of onnxruntime fp32's time.

All engines are loaded into one process with the same number of threads. In each round every engine runs once on the
same letterboxed frame, in an order that changes, so that what disturbs the machine disturbs all of them alike. A figure
is the median of the engine's infer, divided by the reference's; pre- and postprocessing are not in it. Idle threads of
onnxruntime do not spin (our sessions switch it off); the other engines keep their vendors' defaults.

With ``--baseline`` the shares are held against limits, on one thread (unless ``--threads`` says otherwise) and of
processor time instead of wall time: a busy machine, as continuous integration has, takes turns away from a process, but
hardly changes how much processing an inference needs. It fails only if the whole 95 % interval lies beyond the limit.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_benchmarks import module_cli
from edge_benchmarks.system_under_test import network_inputs
from edge_quantize.recipe import read_recipe
from edge_sdk import zoo
from edge_sdk.bundle import SUFFIX, Bundle
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_json
from edge_sdk.spec import ModelSpec
from edge_sdk.target import Artifact, LoadOptions, Session, SourceModel, find_target
from edge_sdk.tasks import task_of
from edge_sdk.timing import now_ns, take_turns
from edge_sdk.trust import admit

REFERENCE = ("onnxruntime", "fp32")
DEFAULT_ONNX = Path("training/weights/fer-yolo11n.onnx")
INPUTS = 16
DRAWS = 1000


@dataclass(frozen=True)
class RelativeLatency:
    """An engine's latency as a share of the reference's.

    Attributes:
        median_ms: median latency of the engine in milliseconds.
        share: the engine's median over the reference's; below 1 is faster than the reference.
        low: lower end of its 95 % interval, by bootstrap over rounds, since a round's disturbance hits all engines.
        high: upper end of the same interval.
    """

    median_ms: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Limit:
    """A relative latency's usual value on this kind of machine, and the highest that is allowed."""

    usual: float
    limit: float


@dataclass(frozen=True)
class Baseline:
    """Limits for one kind of machine.

    Attributes:
        machine: architecture.
        cpu_flags: that the processor must have, as /proc/cpuinfo names them; int8 is slow without them.
        shares: ``"model target precision"`` to its limit.
    """

    machine: str
    cpu_flags: tuple[str, ...]
    shares: Mapping[str, Limit]


def relative_latencies(
    paths: Sequence[str | Path],
    *,
    reference: str | Path | None = None,
    threads: int | None = None,
    rounds: int = 200,
    clock: Callable[[], int] = now_ns,
) -> tuple[float, dict[str | Path, RelativeLatency]]:
    """Latency of each bundle's engine as a share of onnxruntime fp32's, in the same rounds.

    Args:
        paths: bundles of networks with the same input.
        reference: an onnxruntime fp32 bundle, or the float ONNX file; None takes such a bundle among ``paths``,
            else ``training/weights/fer-yolo11n.onnx``.
        threads: number of threads of every engine.
        rounds: number of rounds; each engine runs once in each.
        clock: returns nanoseconds.

    Returns:
        Median milliseconds of the reference, and each of ``paths``, as given, to its share.

    Raises:
        InputError: a file is missing, the reference is another bundle, or inputs differ.
        EdgeError: what loading an engine raises.
    """
    bundles = {path: Bundle.open(path) for path in paths}
    for bundle in bundles.values():
        admit(bundle)
    spec, artifact, twin = _reference(reference, bundles)
    options = LoadOptions(threads=threads)
    with ExitStack() as stack:
        sessions: dict[str | Path | None, Session] = {}
        for path, bundle in bundles.items():
            if bundle.manifest.spec.inputs != spec.inputs:
                theirs, ours = ([t.shape for t in s.inputs] for s in (bundle.manifest.spec, spec))
                raise InputError(
                    f"{path} takes {theirs}, the reference {ours}",
                    remedy="compare bundles of one model",
                )
            target = find_target(bundle.manifest.target)
            sessions[path] = target.load(bundle.artifact, bundle.manifest.spec, options=options)
            stack.callback(sessions[path].close)
        if twin is None:
            sessions[None] = find_target(REFERENCE[0]).load(artifact, spec, options=options)
            stack.callback(sessions[None].close)
        inputs = network_inputs(task_of(spec), INPUTS)
        taken = take_turns({name: s.infer for name, s in sessions.items()}, inputs, rounds, clock)
    # A reference that is among the bundles is itself: 1.00, not a second engine and its noise.
    base = taken[twin]
    drawn = np.random.default_rng(0).integers(0, rounds, (DRAWS, rounds))
    base_medians = np.median(base[drawn], axis=1)
    found = {}
    for path in paths:
        low, high = np.percentile(np.median(taken[path][drawn], axis=1) / base_medians, (2.5, 97.5))
        middle = float(np.median(taken[path]))
        found[path] = RelativeLatency(middle / 1e6, middle / float(np.median(base)), float(low), float(high))
    return float(np.median(base)) / 1e6, found


def read_baseline(path: Path) -> Baseline:
    """Read a file of limits.

    Raises:
        InputError: it cannot be read, or is not a file of limits.
    """
    try:
        return from_plain(Baseline, read_json(path, "file of limits"), path.name)
    except ManifestInvalid as error:
        raise InputError(
            f"cannot read {path}: {error.message}", remedy="name a file of benchmarks/baselines"
        ) from error


def mismatch(baseline: Baseline, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Why a baseline says nothing about this machine; None if it does."""
    if platform.machine() != baseline.machine:
        return f"it is for {baseline.machine}, this is {platform.machine()}"
    try:
        has = set(cpuinfo.read_text().split())
    except OSError:
        return "/proc/cpuinfo cannot be read"
    missing = [flag for flag in baseline.cpu_flags if flag not in has]
    return f"this processor has no {', '.join(missing)}" if missing else None


def exceeded(baseline: Baseline, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each bundle whose whole interval lies beyond its limit."""
    found = []
    for row in rows:
        limit = baseline.shares.get(f"{row['name']} {row['target']} {row['precision']}")
        if limit is not None and row["low"] > limit.limit:
            found.append(
                f"{row['name']} {row['target']} {row['precision']} takes {row['relative_latency']:.2f} "
                f"({row['low']:.2f} to {row['high']:.2f}) of the reference's time; usual is {limit.usual:.2f}, "
                f"at most {limit.limit:.2f} is allowed"
            )
    return found


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
        admit(bundle)
        if _kind(bundle) != REFERENCE:
            raise InputError(
                f"{reference} is {' '.join(_kind(bundle))}, the reference must be {' '.join(REFERENCE)}",
                remedy="name another bundle, or the float ONNX file",
            )
        twin = next((p for p, b in bundles.items() if b.sha256 == bundle.sha256), None)
        return bundle.manifest.spec, bundle.artifact, twin
    if not Path(reference).is_file():
        raise InputError(f"no reference {reference}", remedy="give --reference an .edge or .onnx file")
    spec = next(iter(bundles.values())).manifest.spec if bundles else zoo.spec(module_cli.DEFAULT_MODEL)
    model = SourceModel(spec, Path(reference))
    artifact = find_target(REFERENCE[0]).compile(model, recipe=read_recipe(REFERENCE[1]))
    return spec, artifact, None


def _kind(bundle: Bundle) -> tuple[str, str]:
    return bundle.manifest.target, bundle.manifest.recipe.precision


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = module_cli.parser("speedup", __doc__)
    module_cli.add_bundles(parser)
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="onnxruntime fp32 .edge, or float .onnx"
    )
    parser.add_argument("--threads", type=module_cli.positive, metavar="N", help="of every engine")
    parser.add_argument("--rounds", type=module_cli.positive, default=200, metavar="N", help="default: 200")
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="limits of the shares; 1 if one is broken"
    )
    return module_cli.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    baseline = None if args.baseline is None else read_baseline(args.baseline)
    paths = module_cli.expand(args.bundles)
    threads, clock = args.threads, now_ns
    if baseline is not None:
        threads, clock = threads or 1, time.process_time_ns
    reference_ms, taken = relative_latencies(
        paths, reference=args.reference, threads=threads, rounds=args.rounds, clock=clock
    )
    rows: list[dict[str, Any]] = [
        {
            **module_cli.label(p),
            "median_ms": taken[p].median_ms,
            "relative_latency": taken[p].share,
            "low": taken[p].low,
            "high": taken[p].high,
        }
        for p in paths
    ]
    other = None if baseline is None else mismatch(baseline)
    broken = exceeded(baseline, rows) if baseline is not None and other is None else []
    if args.json:
        print(
            json.dumps(
                {"reference_ms": reference_ms, "rounds": args.rounds, "rows": rows, "beyond": broken},
                indent=2,
            )
        )
        return 1 if broken else 0
    print(
        f"{'engine, median of ' + str(args.rounds):<28}{'ms':>9}{'relative':>10}{'95 % interval':>17}{'speed-up':>10}"
    )
    print(f"{'onnxruntime-fp32 (reference)':<28}{reference_ms:>9.2f}{1:>10.2f}{'':>17}{1:>9.2f}x")
    for row in rows:
        name = f"{row['target']}-{row['precision']}"
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        share = row["relative_latency"]
        print(f"{name:<28}{row['median_ms']:>9.2f}{share:>10.2f}{interval:>17}{1 / share:>9.2f}x")
    if other is not None:
        print(f"not held against {args.baseline.name}: {other}")
    for sentence in broken:
        print(f"BEYOND {sentence}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
