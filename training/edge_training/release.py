"""Build the bundles that the zoo ships, from the float sources, and the index that ranks them.

    python -m edge_training.release fer-yolo11n --data ../shared/data --work runs/release

Calibration uses training faces; the gate uses all of PublicTest, or the development presentations. For every engine the
recipes that fit it are tried and the fastest that passes is shipped, as ``edge-sdk build --recipe auto`` does for one.
The index's latencies are measured in a process of their own, all engines together.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_quantize.cli import print_candidates
from edge_quantize.search.auto import search
from edge_quantize.workbench import Workbench, source_model
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.child import command, environment
from edge_sdk.errors import EdgeError, GateFailed
from edge_sdk.files import write_atomically
from edge_sdk.schema import to_plain
from edge_sdk.target import find_target
from edge_training.data.unpack import unpack
from edge_training.export import float_source

Set = tuple[str, dict[str, Any]]
Sets = tuple[Set, Set]

_DETECTOR: Sets = (("calibration", {}), ("public-test", {}))
SETS: Mapping[str, Sets] = {
    "fer-yolo11n": _DETECTOR,
    "fer-yolo12n": _DETECTOR,
    "fer-gmenet": (("crops-calibration", {}), ("public-test", {"face": "mixed"})),
    "pad-minifasnet": (("pad-calibration", {}), ("pad-dev", {})),
}
"""Each model's calibration and evaluation sets: their names and settings (``data.unpack``)."""

TARGETS = ("onnxruntime", "openvino", "tflite")
"""What the zoo ships; bundles for TensorRT are built with ``make jetson``."""


def release(model: str, data: Path, work: Path, engines: Sequence[str] = TARGETS) -> None:
    """Build a model's bundles into the zoo, for every engine the fastest that passes, and write the index.

    An engine's bundle replaces the one before as soon as it is built and timed, so that an interrupted release keeps
    what it finished; bundles of other engines stay.

    Args:
        model: zoo name.
        data: data folder.
        work: folder for unpacked pictures.
        engines: names of the targets to build for.

    Raises:
        GateFailed: no recipe passes on an engine; its bundle of before stays.
    """
    bench = workbench(model, data, work)
    for engine in engines:
        bundle, candidates = search(bench, find_target(engine))
        print(f"\n{engine}", flush=True)
        print_candidates(candidates, sys.stdout)
        if bundle is None:
            raise GateFailed(
                f"{model}: no recipe passes the gate on {engine}", remedy="see the table above", report={}
            )
        ship(model, engine, bundle, bench.model.onnx)


def ship(model: str, engine: str, bundle: Bundle, onnx: Path) -> None:
    """Replace an engine's bundles of a model by this one, and write the index.

    All of the model's bundles are timed again, in one run, before anything is replaced.

    Args:
        model: zoo name.
        engine: name of the target.
        bundle: to ship.
        onnx: float network, whose latency the others are divided by.

    Raises:
        GateFailed: the bundle did not pass but was waived; nothing is replaced.
    """
    if (reason := bundle.manifest.gate.waiver) is not None:
        raise GateFailed(f"{model} on {engine} was waived: {reason}", remedy="ship what passed", report={})
    path = zoo.BUNDLES / f"{model}.{engine}-{bundle.manifest.recipe.precision}.edge"
    replaced = sorted(zoo.BUNDLES.glob(f"{model}.{engine}-*.edge"))
    others = sorted(set(zoo.BUNDLES.glob(f"{model}.*.edge")) - set(replaced))
    with tempfile.TemporaryDirectory(dir=zoo.BUNDLES, prefix=".release-") as folder:
        staged = Path(folder) / path.name
        bundle.write(staged)
        taken = latencies([*others, staged], onnx)
        staged.replace(path)
    write_index(model, {path if p == staged else p: latency for p, latency in taken.items()})
    # Last, so that the index never names what is gone.
    for old in replaced:
        if old != path:
            old.unlink()


def workbench(model: str, data: Path, work: Path) -> Workbench:
    """A model's float network with its calibration and evaluation sets, which are unpacked if they are not yet.

    Args:
        model: zoo name.
        data: data folder.
        work: folder for unpacked pictures and exported float files.
    """
    for name, settings in SETS[model]:
        if not (work / folder_of(name, settings)).exists():
            unpack(name, data, work / folder_of(name, settings), **settings)
    calibration, evaluation = (work / folder_of(*chosen) for chosen in SETS[model])

    def stage(text: str, done: int, total: int) -> None:
        if done == total:
            print(f"  {text} done", file=sys.stderr, flush=True)

    return Workbench(
        source_model(zoo.spec(model), float_source(model, work)),
        calibration=calibration,
        evaluation=evaluation,
        stage=stage,
    )


def folder_of(name: str, settings: Mapping[str, Any]) -> str:
    """Name of an unpacked set's folder: different sets or settings, different names."""
    return "-".join([name, *(str(value) for value in settings.values())])


def latencies(paths: list[Path], onnx: Path) -> dict[Path, float]:
    """Each bundle's latency divided by float onnxruntime's, all in one run."""
    module = ("-m", "edge_benchmarks.speedup", "--json", "--reference", str(onnx))
    started = command((*module, *map(str, paths)))
    done = subprocess.run(started, check=True, capture_output=True, text=True, env=environment())  # noqa: S603
    said = done.stdout
    measured = {row["bundle"]: row["relative_latency"] for row in json.loads(said)["rows"]}
    return {path: measured[str(path)] for path in paths}


def write_index(model: str, taken: Mapping[Path, float]) -> None:
    """Write ``index.json`` with a model's shipped bundles and their relative latencies, whole or not at all."""
    others = []
    if zoo.INDEX.exists():
        others = [b for b in json.loads(zoo.INDEX.read_text())["bundles"] if b["model"] != model]
    entries = [
        zoo.ZooBundle(
            file=path.name,
            model=model,
            target=(bundle := Bundle.open(path)).manifest.target,
            precision=bundle.manifest.recipe.precision,
            sha256=bundle.sha256,
            relative_latency={platform.machine(): round(latency, 3)},
        )
        for path, latency in sorted(taken.items())
    ]
    # By name, so that a release changes its own lines and no others.
    bundles = sorted([*others, *map(to_plain, entries)], key=lambda b: str(b["file"]))
    write_atomically(zoo.INDEX, json.dumps({"bundles": bundles}, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.release", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(zoo.NAMES), metavar="MODEL", help="default: all")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked pictures")
    parser.add_argument(
        "--engine", choices=TARGETS, action="append", help="this one alone, again for more (default: all)"
    )
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.models) - set(zoo.NAMES)):
        parser.error(f"unknown model {unknown[0]!r}; the zoo has {', '.join(zoo.NAMES)}")
    try:
        for model in args.models:
            release(model, args.data, args.work, args.engine or TARGETS)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(zoo.INDEX.read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
