"""Make the bundles that the zoo ships, from the float sources, and the index that ranks them.

    python -m edge_training.release fer-yolo11n --data ../shared/data --work runs/release

Calibration on training faces, the gate on all of PublicTest. A bundle that fails its gate is not written, and the float
one of that engine is shipped instead. Latencies are measured afterwards in a process of their own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

from edge_quantize.build import Reference, build, measure_reference
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError, GateFailed
from edge_sdk.schema import to_plain
from edge_sdk.target import TARGETS, FloatModel
from edge_sdk.tasks import task_of
from edge_training.data.unpack import unpack


def release(model: str, data: Path, work: Path) -> list[Path]:
    """Build a model's bundles for every engine into the zoo; returns the files."""
    spec = zoo.spec(model)
    onnx = zoo.float_source(model)
    source = FloatModel(spec, onnx, onnx.with_suffix(".tflite"))
    for name in ("calibration", "public-test"):
        if not (work / name).exists():
            unpack(name, data, work / name)

    def stage(text: str, done: int, total: int) -> None:
        if done == total:
            print(f"  {text} done", file=sys.stderr, flush=True)

    reference = measure_reference(source, task_of(spec), work / "public-test", stage)
    return [_bundle(source, target, work, reference) for target in TARGETS]


def _bundle(source: FloatModel, target: str, work: Path, reference: Reference) -> Path:
    for recipe in ("int8", "fp32"):
        path = zoo.BUNDLES / f"{source.spec.name}.{target}-{recipe}.edge"
        try:
            bundle = build(
                source.onnx,
                spec=source.spec,
                engine=target,
                recipe=recipe,
                calibration=work / "calibration",
                evaluation=work / "public-test",
                output=path,
                tflite=source.tflite,
                reference=reference,
            )
        except GateFailed as error:
            print(f"{path.name}: {error.message}", file=sys.stderr)
            continue
        figures = {n: (m.reference, m.compiled) for n, m in bundle.manifest.gate.metrics.items()}
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, gate (float, compiled): {figures}")
        return path
    raise GateFailed(
        f"{source.spec.name}: no precision passes the gate on {target}", remedy="see above", report={}
    )


def write_index(model: str, paths: list[Path], onnx: Path) -> None:
    """Measure the bundles beside float onnxruntime and write ``index.json``, whole or not at all."""
    command = [
        sys.executable,
        "-m",
        "edge_benchmarks.speedup",
        "--json",
        "--reference",
        str(onnx),
        *map(str, paths),
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    measured = {row["bundle"]: row["relative_latency"] for row in json.loads(said)["rows"]}
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
            relative_latency={platform.machine(): round(measured[str(path)], 3)},
        )
        for path in paths
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
        paths = release(args.model, args.data, args.work)
        write_index(args.model, paths, zoo.float_source(args.model))
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(zoo.INDEX.read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
