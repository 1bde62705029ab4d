"""Verbs of this floor: ``bench``."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path

from edge_benchmarks import report, scenarios, text
from edge_benchmarks.report import Failure, Run
from edge_sdk.errors import InputError
from edge_sdk.terminal import Verb, print_json, progress


def register(verb: Verb) -> None:
    """Add the verbs."""
    sub = verb("bench", _bench, "measure latency on this device, end to end and by stage")
    sub.add_argument("bundle", nargs="*", metavar="BUNDLE", help=".edge files or zoo names")
    sub.add_argument("--scenario", default="single-stream", metavar="S", help=", ".join(scenarios.SCENARIOS))
    sub.add_argument("--duration", type=float, metavar="SEC", help="default: 10; sustained: 900")
    sub.add_argument("--fps", type=float, metavar="F", help="paced: the camera's rate (default: 30)")
    sub.add_argument(
        "--drop",
        choices=("latest", "none"),
        help="paced: skip frames there is no time for (default), or queue",
    )
    sub.add_argument(
        "--streams", type=int, metavar="N", help="multi-stream, offline: models at once (default: 2)"
    )
    sub.add_argument("--processes", type=int, metavar="N", help="cold: fresh processes (default: 20)")
    sub.add_argument(
        "--page-cache", choices=("kept", "dropped"), help="cold: dropped needs root (default: kept)"
    )
    sub.add_argument("--no-engine-cache", action="store_true", help="cold: compile at every start")
    sub.add_argument("--device", metavar="D", help="where the engine must run, such as GPU")
    sub.add_argument("--threads", type=int, metavar="N", help="of each engine")
    sub.add_argument("--frames", type=Path, metavar="DIR", help="your own pictures instead of the drawn ones")
    sub.add_argument("--size", type=_size, metavar="WxH", help="scale the pictures to a camera's resolution")
    sub.add_argument(
        "--governor-as-shipped", action="store_true", help="a moving clock is no reason against the run"
    )
    sub.add_argument("--energy", action="store_true", help="read what the machine draws, where it can say")
    sub.add_argument("--meter", type=Path, metavar="CSV", help="log of an external meter: time, watts")
    sub.add_argument(
        "--idle", type=float, default=30.0, metavar="SEC", help="of idling before, for net energy"
    )
    sub.add_argument("--memory", action="store_true", help="peak memory too, in a process of its own")
    sub.add_argument("--roofline", action="store_true", help="the engine's own peak too")
    sub.add_argument(
        "--data", type=Path, metavar="PATH", help="measure accuracy on these labelled pictures too"
    )
    sub.add_argument(
        "-o", "--output", type=Path, metavar="RUN.json", help="write runs with every sample there"
    )


def _size(value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected WxH such as 1280x720, got {value!r}")
    return int(found[1]), int(found[2])


def _bench(args: argparse.Namespace) -> int:
    if args.output is not None and not args.output.absolute().parent.is_dir():
        raise InputError(f"no folder for {args.output}", remedy="make it first: nothing was measured")
    scenario = scenarios.described(
        args.scenario,
        duration_s=args.duration,
        fps=args.fps,
        drop=args.drop,
        streams=args.streams,
        processes=args.processes,
        page_cache=args.page_cache,
    )
    options = scenarios.Options(
        device=args.device,
        threads=args.threads,
        frames=args.frames,
        size=args.size,
        as_shipped=args.governor_as_shipped,
        energy=args.energy,
        meter=args.meter,
        idle_s=args.idle,
        memory=args.memory,
        roofline=args.roofline,
        data=args.data,
        engine_cache=not args.no_engine_cache,
    )
    scenarios.check(scenario, options)
    runs: list[Run] = []
    failures: list[Failure] = []
    code = 0
    with progress() as stage:
        for bundle in args.bundle:
            said = partial(stage, f"bench {bundle}")
            try:
                run = scenarios.run(bundle, scenario=scenario, options=options, progress=said)
            except KeyboardInterrupt:
                code = 130
                break
            runs.append(run)
            if run.incomplete is not None:
                code = 130 if run.incomplete == scenarios.INTERRUPTED else 3
                break
    if args.output is not None:
        report.save(runs, args.output, failures)
    if args.json:
        print_json([run.to_dict() for run in runs])
    else:
        print(text.table(runs, failures))
    return code
