"""Verbs of this floor: ``bench``, ``compare`` and ``sweep``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge_benchmarks import compare, module_cli, render_html, render_text, report, scenarios, suite, sweep
from edge_benchmarks.report import Failure, Run
from edge_benchmarks.suite import Cell
from edge_sdk.cli_common import Verb, print_json, progress
from edge_sdk.errors import InputError
from edge_sdk.files import write_atomically
from edge_sdk.selection import find_bundle


def register(verb: Verb) -> None:
    """Add the verbs."""
    sub = verb("bench", _bench, "measure latency on this device, end to end and by stage")
    sub.add_argument("bundle", nargs="*", metavar="BUNDLE", help=".edge files or zoo names")
    sub.add_argument("--suite", type=Path, metavar="FILE", help="a matrix of measurements, TOML")
    sub.add_argument("--scenario", default="single-stream", metavar="S", help=", ".join(scenarios.SCENARIOS))
    sub.add_argument("--duration", type=float, metavar="SEC", help="default: 10; sustained: 900")
    sub.add_argument("--fps", type=float, metavar="F", help="paced: the camera's rate (default: 30)")
    sub.add_argument(
        "--drop",
        choices=("latest", "none"),
        help="paced: skip frames there is no time for (default), or queue them",
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
    sub.add_argument("--size", metavar="WxH", help="scale the pictures to a camera's resolution")
    sub.add_argument("--repeat", type=int, default=1, metavar="N", help="measure in N fresh processes")
    sub.add_argument(
        "--governor-as-shipped", action="store_true", help="a moving clock is no reason against the run"
    )
    sub.add_argument("--energy", action="store_true", help="read what the machine draws, where it can say")
    sub.add_argument("--meter", type=Path, metavar="CSV", help="log of an external meter: time, watts")
    sub.add_argument(
        "--idle",
        type=float,
        default=30.0,
        metavar="SEC",
        help="idle seconds before the run, for net energy (default: 30)",
    )
    sub.add_argument("--memory", action="store_true", help="peak memory too, in a process of its own")
    sub.add_argument("--roofline", action="store_true", help="the engine's own peak too")
    sub.add_argument("--data", type=Path, metavar="PATH", help="measure accuracy on labelled pictures too")
    sub.add_argument(
        "-o", "--output", type=Path, metavar="RUN.json", help="write runs with every sample there"
    )
    sub.add_argument("--html", type=Path, metavar="RUN.html", help="write one self-contained page there")
    sub.add_argument("--markdown", type=Path, metavar="RUN.md", help="write a table for a repository there")

    sub = verb("sweep", _sweep, "build, gate and bench models x targets x recipes, many at once, resumable")
    sub.add_argument("suite", type=Path, metavar="SUITE.toml", help="a suite with a table [build]")
    sub.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="keeps every cell's result"
    )
    sub.add_argument("--executor", choices=("local", "dask", "ray"), default="local", help="default: local")
    sub.add_argument("--scheduler", metavar="ADDRESS", help="of a running cluster, such as tcp://host:8786")
    sub.add_argument("--workers", type=int, default=2, metavar="N", help="cells at once here (default: 2)")

    sub = verb("compare", _compare, "hold one benchmark against another; 1 if it is a regression")
    sub.add_argument("base", type=Path, metavar="BASE.json", help="runs to compare with, from bench -o")
    sub.add_argument("other", type=Path, metavar="RUN.json", help="runs that may have become worse")
    sub.add_argument(
        "--fail-if",
        action="append",
        metavar="RULE",
        help=f"what is a regression: {compare.GRAMMAR} "
        f"(default: {' and '.join(compare.DEFAULT_RULES)}); may be given again".replace("%", "%%"),
    )
    sub.add_argument(
        "--across", default="", metavar="FIELD,...", help="fields of the environment that may differ"
    )


def _bench(args: argparse.Namespace) -> int:
    for path in (args.output, args.html, args.markdown):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"no folder for {path}", remedy="make it first: nothing was measured")
    options = scenarios.Options(
        device=args.device,
        threads=args.threads,
        frames=args.frames,
        size=None if args.size is None else suite.size(args.size),
        as_shipped=args.governor_as_shipped,
        energy=args.energy,
        meter=args.meter,
        idle_s=args.idle,
        memory=args.memory,
        roofline=args.roofline,
        data=args.data,
        engine_cache=not args.no_engine_cache,
    )
    planned, missing, repeat = _plan(args, options)
    if not 1 <= repeat <= 100:
        raise InputError(f"--repeat must be 1 to 100, got {repeat}", remedy="5 is usual")

    def keep(runs: Sequence[Run], failures: Sequence[Failure]) -> None:
        if args.output is not None:
            report.save(runs, args.output, failures)

    with progress() as stage:
        runs, failures, code = suite.run(planned, repeat=repeat, progress=stage, keep=keep, failures=missing)
    keep(runs, failures)
    if args.html is not None:
        write_atomically(args.html, render_html.page(runs, failures, title=_title(args)))
    if args.markdown is not None:
        write_atomically(args.markdown, render_text.markdown(runs, failures))
    if args.json:
        print_json([run.to_dict() for run in runs])
    else:
        print(render_text.table(runs, failures))
    return code


def _plan(args: argparse.Namespace, options: scenarios.Options) -> tuple[list[Cell], list[Failure], int]:
    """The measurements to make, those that cannot be made here, and how many times each is repeated."""
    if args.suite is not None:
        if args.bundle:
            raise InputError("a suite names its own bundles", remedy="leave BUNDLE or --suite out")
        asked = suite.read_suite(args.suite)
        planned, missing = suite.cells(asked, args.suite.parent, options)
        return planned, missing, args.repeat if args.repeat != 1 else asked.repeat
    scenario = scenarios.named_scenario(
        args.scenario,
        duration_s=args.duration,
        fps=args.fps,
        drop=args.drop,
        streams=args.streams,
        processes=args.processes,
        page_cache=args.page_cache,
    )
    scenarios.check(scenario, options)
    bundles = args.bundle or [module_cli.DEFAULT_MODEL]
    for bundle in bundles:
        # A wrong name at the end of a list should not wait for what stands before it.
        find_bundle(bundle)
    return [Cell(bundle, scenario, options) for bundle in bundles], [], args.repeat


def _title(args: argparse.Namespace) -> str:
    measured = ", ".join(args.bundle) or module_cli.DEFAULT_MODEL
    return f"Benchmark: {args.suite.stem if args.suite is not None else measured}"


def _compare(args: argparse.Namespace) -> int:
    rules = [compare.parse_rule(rule) for rule in args.fail_if or compare.DEFAULT_RULES]
    across = [name for name in args.across.split(",") if name]
    found = compare.compare(report.read(args.base), report.read(args.other), rules=rules, across=across)
    if args.json:
        print_json(compare.to_dict(found))
    else:
        print(compare.table(found))
    # A rule that somebody wrote down and that could not be judged has not been kept.
    if args.fail_if and found.unjudged and not found.regressions:
        raise InputError(f"cannot judge {found.unjudged[0]}", remedy="measure longer, or leave the rule out")
    return 1 if found.regressions else 0


def _sweep(args: argparse.Namespace) -> int:
    if args.workers < 1:
        raise InputError(f"--workers must be at least 1, got {args.workers}", remedy="try 2")
    if args.scheduler is not None and args.executor == "local":
        raise InputError("--scheduler is a cluster's", remedy="add --executor dask or ray")
    plan = sweep.read_plan(args.suite)
    executor: sweep.Executor = sweep.Local(args.workers)
    if args.executor == "dask":
        executor = sweep.Dask(args.workers, args.scheduler)
    elif args.executor == "ray":
        executor = sweep.Ray(args.workers, args.scheduler)
    with progress() as stage:
        records = sweep.sweep(plan, args.output, executor, progress=stage)
    if args.json:
        print_json(records)
    else:
        print(sweep.table(records))
    return 0 if all(record["status"] == "ok" for record in records) else 1
