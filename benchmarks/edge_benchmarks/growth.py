"""What the memory of a process gains while a session answers many frames, each target in a fresh process.

The network is the small one of the contract suite, so that 100000 calls take seconds: what is looked for grows by the
call, not by the network. Resident set (VmRSS of /proc/self/status, Linux) after a tenth of the calls, when every pool
has its size, and at the end, for a canvas that is drawn anew (as preprocessing does) and for a new array each time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from edge_benchmarks import module_cli
from edge_sdk.errors import InputError
from edge_sdk.target import available_targets

CALLS = 100_000

_CHILD = """
import json, sys, tempfile, time
from pathlib import Path
from edge_sdk.target import find_target
from edge_sdk.terminal import stdout_is_ours
from edge_targets.conformance import Kit
from edge_targets.conformance_network import pixels
name, precision, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
answer = {"target": name, "precision": precision, "calls": calls}
with tempfile.TemporaryDirectory() as folder, stdout_is_ours():
    kit = Kit.build(find_target(name), precision, Path(folder))
    for kind in ("canvas", "new"):
        with kit.session() as session:
            canvas = pixels().copy()
            started = time.perf_counter()
            for call in range(calls):
                session.infer(canvas if kind == "canvas" else canvas.copy())
                if call + 1 == calls // 10:
                    early = resident()
            answer[f"{kind}_kb"] = resident() - early
            answer[f"{kind}_us"] = (time.perf_counter() - started) / calls * 1e6
print()
print(json.dumps(answer), flush=True)
"""


def measure(target: str, *, precision: str, calls: int) -> dict[str, Any]:
    """Kilobytes gained from a tenth of the calls to the last, and microseconds a call."""
    answer, _ = module_cli.ask_fresh_process(_CHILD, target, precision, str(calls))
    return answer


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
    print(f"{'':<16}{'same canvas':>14}{'new arrays':>14}{'us a call':>12}")
    for row in rows:
        print(f"{row['target']:<16}{row['canvas_kb']:>14}{row['new_kb']:>14}{row['canvas_us']:>12.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
