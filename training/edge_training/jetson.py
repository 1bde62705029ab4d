"""Build every zoo model's bundles for Jetson boards from the float sources, gate them, and check them for TensorRT.

    python -m edge_training.jetson --data ../shared/data --work runs/jetson

They are not shipped: no board has run them yet. The gate runs the same ONNX in onnxruntime, and its result says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_quantize.recipe import read_recipe
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError, GateFailed
from edge_sdk.profile import read_profile
from edge_sdk.target import find_target
from edge_targets.tensorrt.check import check
from edge_training.release import workbench

PROFILE = "jetson-orin-nano"
RECIPES = ("fp16", "int8")


def bundles(model: str, data: Path, work: Path, recipes: tuple[str, ...] = RECIPES) -> list[Path]:
    """Build a model's bundles into ``work``; those that fail their gate are printed and left out.

    Args:
        model: zoo name.
        data: shared data folder.
        work: folder for unpacked pictures and the bundles.
        recipes: names or TOML files.

    Returns:
        The bundles that were written.
    """
    bench = workbench(model, data, work)
    made = []
    for recipe in recipes:
        path = work / f"{model}.tensorrt-{Path(recipe).stem}.edge"
        try:
            bundle = bench.bundle(find_target("tensorrt"), read_recipe(recipe))
        except GateFailed as error:
            path.unlink(missing_ok=True)
            print(f"{path.name}: {error.message}", file=sys.stderr)
            continue
        bench.write(bundle, path)
        gate = bundle.manifest.gate
        figures = ", ".join(f"{n} {m.reference:.4f} -> {m.compiled:.4f}" for n, m in gate.metrics.items())
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; gate, run by {gate.engine}: {figures}")
        made.append(path)
    return made


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.jetson", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", help="zoo names (default: all)")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked pictures and bundles")
    parser.add_argument("--recipe", action="append", help="name or TOML file (default: fp16, int8)")
    args = parser.parse_args(argv)
    failed = False
    try:
        for model in args.models or zoo.NAMES:
            made = bundles(model, args.data, args.work, tuple(args.recipe or RECIPES))
            failed |= not made
            for path in made:
                report = check(Bundle.open(path), read_profile(PROFILE))
                failed |= not report.passed
                print(f"{path.name}: check {'passed' if report.passed else 'FAILED'}")
                print(report)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
