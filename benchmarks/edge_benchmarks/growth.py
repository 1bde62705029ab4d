"""Memory growth: what a process gains while a session answers many frames, each target in a fresh process.

The network is the small one of the contract suite, so that 100000 calls take seconds: what is looked for grows with the
number of calls, not with the network. The resident set is read after a tenth of the calls, when every pool has its size,
and at the end: once with the same array at each call, as preprocessing gives it, and once with a new array each time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from edge_benchmarks import child_process, module_cli
from edge_sdk.errors import InputError
from edge_sdk.target import available_targets

CALLS = 100_000

TIMEOUT_S = 3600.0


def measure(target: str, *, precision: str, calls: int) -> dict[str, Any]:
    """Run ``edge_benchmarks.children.memory_growth`` for one target; its docstring says what the keys mean.

    Args:
        target: name of an installed engine.
        precision: recipe that the contract suite's network is compiled with.
        calls: number of calls, at least 10.

    Raises:
        LoadFailed: the process failed, or took longer than an hour.
    """
    return child_process.json_of("memory_growth", target, precision, str(calls), timeout_s=TIMEOUT_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = module_cli.parser("growth", __doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all whose engine is installed")
    parser.add_argument("--precision", default="fp32", metavar="P", help="of the network (default: fp32)")
    parser.add_argument(
        "--calls", type=module_cli.positive, default=CALLS, metavar="N", help=f"default: {CALLS}"
    )
    return module_cli.run_main(lambda: _print(parser.parse_args(argv)))


def _print(args: argparse.Namespace) -> int:
    if args.calls < 10:
        raise InputError(f"--calls is {args.calls}, expected at least 10", remedy="take more")
    targets = args.targets or available_targets()
    rows = [measure(t, precision=args.precision, calls=args.calls) for t in targets]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(
        f"growth of the resident set, kB, from call {args.calls // 10} to call {args.calls}, {args.precision}"
    )
    print(f"{'':<16}{'same canvas':>14}{'new arrays':>14}{'us per call':>12}")
    for row in rows:
        print(f"{row['target']:<16}{row['canvas_kb']:>14}{row['new_kb']:>14}{row['canvas_us']:>12.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
