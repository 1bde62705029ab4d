"""The standing campaign: every target, in turn, in processes of their own, for a number of minutes.

    make fuzz MINUTES=60

Uses atheris (coverage-guided) where it is installed, else seeded mutations of the same seeds. What it finds is
written to ``tests/fuzz/corpus/TARGET/``, which the tests run again for ever. Ends with 1 if anything was found.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
MAX_LENGTH = 200_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="of each worker (default: 10)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--engine", choices=("atheris", "mutations"), help="default: atheris if installed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    has = importlib.util.find_spec("atheris") is not None
    engine = args.engine or ("atheris" if has else "mutations")
    if args.target:
        return _one(args.target, args.seconds, args.seed, engine)
    return _campaign(args, engine)


def _campaign(args: argparse.Namespace, engine: str) -> int:
    from fuzz.targets import TARGETS

    seconds = 60 * args.minutes * args.workers / len(TARGETS)
    waiting = [(name, args.seed + turn) for turn in range(args.workers) for name in TARGETS]
    each = seconds / args.workers
    running: list[tuple[str, subprocess.Popen[str]]] = []
    done: dict[str, int] = dict.fromkeys(TARGETS, 0)
    found: list[str] = []
    started = time.monotonic()
    while waiting or running:
        while waiting and len(running) < args.workers:
            name, seed = waiting.pop(0)
            words = ["--target", name, "--seconds", str(each), "--seed", str(seed), "--engine", engine]
            process = subprocess.Popen(
                [sys.executable, "-m", "fuzz", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            running.append((name, process))
        name, process = running.pop(0)
        said, _ = process.communicate()
        lines = said.splitlines()
        counts = [int(m[1]) for line in lines if (m := re.search(r"(?:Done|executed) (\d+)", line))]
        done[name] += max(counts, default=0)
        found += [f"{name}: {line}" for line in lines if "FAULT" in line]
        if process.returncode not in (0, 1) and not any("FAULT" in line for line in lines):
            found.append(f"{name}: the process ended with {process.returncode}: {' | '.join(lines[-3:])}")
        if sys.stderr.isatty():
            print(f"{name}: {done[name]:,} executions", file=sys.stderr)
    minutes = (time.monotonic() - started) / 60
    report = {
        "engine": engine,
        "workers": args.workers,
        "minutes": round(minutes, 1),
        "executions": done,
        "found": found,
    }
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(f"{engine}, {args.workers} workers, {minutes:.1f} minutes, {sum(done.values()):,} executions")
        for name, count in done.items():
            print(f"  {name:<14}{count:>12,}")
        print("\n".join(found) or "nothing was found")
    return 1 if found else 0


def _one(name: str, seconds: float, seed: int, engine: str) -> int:
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["edge_sdk", "edge_quantize", "edge_benchmarks"]):
            from fuzz.targets import TARGETS, fault_of, seeds
    else:
        from fuzz.targets import TARGETS, fault_of, seeds
    target, known = TARGETS[name], set[str]()

    def check(data: bytes) -> None:
        fault = fault_of(target, data)
        if fault is None:
            return
        where = fault.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        key = f"{type(fault).__name__} at {where.tb_frame.f_code.co_name if where else '?'}"
        if key not in known:  # one file per kind of fault
            known.add(key)
            folder = CORPUS / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / hashlib.sha256(data).hexdigest()[:16]
            path.write_bytes(data)
            print(f"FAULT {key}: {str(fault)[:200]!r} in {path.relative_to(HERE)}", flush=True)

    if engine == "mutations":
        from fuzz.mutate import mutated

        rng, given, count = random.Random(seed), seeds(), 0
        everything = [s for many in given.values() for s in many]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            check(mutated(rng.choice(given[name]), rng, everything)[:MAX_LENGTH])
            count += 1
        print(f"executed {count}")
        return 1 if known else 0
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds()[name]):
            (Path(folder) / f"seed-{number}").write_bytes(data)
        options = [f"-max_total_time={max(1, int(seconds))}", f"-seed={seed + 1}", f"-max_len={MAX_LENGTH}"]
        options += ["-rss_limit_mb=4096", "-timeout=30"]
        atheris.Setup([sys.argv[0], *options, folder], check)
        atheris.Fuzz()
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
