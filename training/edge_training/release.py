"""Make the bundles that the zoo ships, from the float sources, and the index that ranks them.

    python -m edge_training.release fer-yolo11n --data ../shared/data --work runs/release

Calibration on training faces, the gate on all of PublicTest, or on the development presentations. For every engine both
int8 and float are built; a bundle that fails its gate is not written, and of those that pass the faster one is shipped.
Latencies are measured in a process of their own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_quantize.build import Reference, build, measure_reference
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError, GateFailed
from edge_sdk.schema import to_plain
from edge_sdk.target import FloatModel
from edge_sdk.tasks import task_of
from edge_training.data.unpack import unpack

Set = tuple[str, dict[str, Any]]
Sets = tuple[Set, Set]

_DETECTOR: Sets = (("calibration", {}), ("public-test", {}))
SETS: Mapping[str, Sets] = {
    "fer-yolo11n": _DETECTOR,
    "fer-yolo12n": _DETECTOR,
    "fer-gmenet": (("crops-calibration", {}), ("public-test", {"face": "mixed"})),
    "pad-minifasnet": (("pad-calibration", {}), ("pad-dev", {})),
}
"""What each model is calibrated and gated on: names and settings of unpacked sets."""

TARGETS = ("onnxruntime", "openvino", "tflite")
"""What the zoo ships; bundles for TensorRT are built with ``make jetson``."""
RECIPES = ("int8", "fp32")


def release(model: str, data: Path, work: Path) -> None:
    """Build a model's bundles for every engine into the zoo, keep the faster one of each, and write the index.

    Raises:
        GateFailed: an engine has no bundle that passes.
    """
    spec = zoo.spec(model)
    onnx = zoo.float_source(model)
    source = FloatModel(spec, onnx, onnx.with_suffix(".tflite"))
    for name, settings in SETS[model]:
        if not (work / folder_of(name, settings)).exists():
            unpack(name, data, work / folder_of(name, settings), **settings)
    calibration, evaluation = (work / folder_of(*chosen) for chosen in SETS[model])

    def stage(text: str, done: int, total: int) -> None:
        if done == total:
            print(f"  {text} done", file=sys.stderr, flush=True)

    reference = measure_reference(source, task_of(spec), evaluation, stage)
    candidates = [
        path
        for target in TARGETS
        for recipe in RECIPES
        if (path := _bundle(source, target, recipe, calibration, evaluation, reference)) is not None
    ]
    taken = latencies(candidates, onnx)
    chosen: dict[str, Path] = {}
    for path in sorted(candidates, key=lambda path: taken[path]):
        target = Bundle.open(path).manifest.target
        if chosen.setdefault(target, path) is not path:
            print(f"{path.name} passed and is slower ({taken[path]:.2f}): not shipped", file=sys.stderr)
            path.unlink()
    if missing := set(TARGETS) - set(chosen):
        raise GateFailed(
            f"{model}: no precision passes the gate on {', '.join(sorted(missing))}",
            remedy="see above",
            report={},
        )
    write_index(model, {path: taken[path] for path in chosen.values()})


def folder_of(name: str, settings: Mapping[str, Any]) -> str:
    """Folder of an unpacked set: no two sets share one."""
    return "-".join([name, *(str(value) for value in settings.values())])


def _bundle(
    source: FloatModel, target: str, recipe: str, calibration: Path, evaluation: Path, reference: Reference
) -> Path | None:
    """Build one bundle into the zoo's folder; None if it fails its gate."""
    path = zoo.BUNDLES / f"{source.spec.name}.{target}-{recipe}.edge"
    try:
        bundle = build(
            source.onnx,
            spec=source.spec,
            engine=target,
            recipe=recipe,
            calibration=calibration,
            evaluation=evaluation,
            output=path,
            tflite=source.tflite,
            reference=reference,
        )
    except GateFailed as error:
        path.unlink(missing_ok=True)
        print(f"{path.name}: {error.message}", file=sys.stderr)
        return None
    figures = {n: (m.reference, m.compiled) for n, m in bundle.manifest.gate.metrics.items()}
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, gate (float, compiled): {figures}")
    return path


def latencies(paths: list[Path], onnx: Path) -> dict[Path, float]:
    """Each bundle's latency divided by float onnxruntime's, all in one run."""
    module = [sys.executable, "-m", "edge_benchmarks.speedup", "--json", "--reference", str(onnx)]
    command = [*module, *map(str, paths)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
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
    text = json.dumps({"bundles": [*others, *map(to_plain, entries)]}, indent=2) + "\n"
    partial = zoo.INDEX.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(zoo.INDEX)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.release", description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=zoo.NAMES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked pictures")
    args = parser.parse_args(argv)
    try:
        release(args.model, args.data, args.work)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(zoo.INDEX.read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
