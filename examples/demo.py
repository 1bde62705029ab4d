"""What `make demo` runs: name a face, build int8 bundles for every engine, hold them against float, compare latencies.

Needs the float sources in training/weights and scikit-image, whose wheel brings a public-domain portrait (NASA's
Eileen Collins), other photographs, and 100 small grey faces. No labels are needed: the float network's own answers are
the truth here, so the last column says how often a bundle agrees with it. That shows what compiling changed, not how
good the network is; accuracy on labelled faces is in the model card.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data

import edge_sdk as edge
from edge_benchmarks import scenarios
from edge_benchmarks.report import Run
from edge_quantize.recipe import read_recipe
from edge_sdk import zoo
from edge_sdk.draw import annotate
from edge_sdk.target import LoadOptions, SourceModel
from edge_sdk.tasks import task_of

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "demo-output"
FLOAT = ROOT / "training" / "weights" / "fer-yolo11n.onnx"
TARGETS = ("onnxruntime", "openvino", "tflite")
MODEL = "fer-yolo11n"
CALIBRATION, EVALUATION = 64, 96
BENCH_SECONDS = 10.0  # enough frames for a 99th percentile


def main() -> int:
    """Run the demo; returns the exit code."""
    OUTPUT.mkdir(exist_ok=True)
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - started:5.1f} s] {text}", flush=True)

    portrait = skimage.data.astronaut()
    with edge.load(MODEL) as model:
        found = model(portrait)
        say(f"{model.info.name} on {model.info.target} {model.info.precision}: {model.info.chosen}")
    for face in found:
        say(f"a face at {face.box.round().astype(int).tolist()}: {face.label} ({face.score:.2f})")
    picture = OUTPUT / "astronaut.png"
    edge.write_image(picture, annotate(portrait, found))
    say(f"annotated picture: {picture.relative_to(ROOT)}")

    work = Path(tempfile.mkdtemp(dir=OUTPUT))
    try:
        rows = compare(work, say)
    finally:
        shutil.rmtree(work)
    print()
    print(table(rows))
    print(f"\nbundles: {OUTPUT.relative_to(ROOT)}/*.edge    total {time.perf_counter() - started:.0f} s")
    return 0 if len(found) else 1


class Row(NamedTuple):
    """One line of the table."""

    target: str
    precision: str
    run: Run
    agreement: float


def compare(work: Path, say: Callable[[str], None]) -> list[Row]:
    """Build, gate and time every target; the float network in onnxruntime is the yardstick."""
    rng = np.random.default_rng(0)
    write_scenes(work / "calibration", CALIBRATION, rng)
    write_scenes(work / "evaluation" / "images", EVALUATION, rng)
    faces = label_by_float(work / "evaluation")
    say(f"made {CALIBRATION} calibration and {EVALUATION} evaluation pictures; float finds {faces} faces")
    built = []
    for target, precision in (("onnxruntime", "fp32"), *((t, "int8") for t in TARGETS)):
        path = OUTPUT / f"{MODEL}.{target}-{precision}.edge"
        gate = build(target, precision, work, path).manifest.gate
        say(f"built {path.name}, {path.stat().st_size / 1e6:.1f} MB, gate passed")
        built.append((target, precision, path, gate.metrics["accuracy"].compiled))
    rows = []
    for target, precision, path, agreement in built:
        rows.append(Row(target, precision, scenarios.run(path, duration_s=BENCH_SECONDS), agreement))
        say(f"timed {target} {precision}")
    return rows


def build(target: str, precision: str, work: Path, path: Path) -> edge.Bundle:
    """One bundle, gated by its agreement with float on the demo's pictures."""
    recipe = work / f"{precision}.toml"
    calibration = CALIBRATION if precision == "int8" else 0
    # Some hundred faces whose labels are another network's answers: near ties flip, so the limits are wide.
    recipe.write_text(
        f'name = "demo-{precision}"\nprecision = "{precision}"\ncalibration_items = {calibration}\n'
        "[gate.max_drop]\naccuracy = 0.15\nface_recall = 0.15\n"
    )
    with quiet():
        return edge.build(
            FLOAT,
            model=MODEL,
            target=target,
            recipe=recipe,
            calibration=work / "calibration",
            evaluation=work / "evaluation",
            output=path,
        )


def label_by_float(evaluation: Path) -> int:
    """Write what the float network sees as labels; returns how many faces."""
    spec = zoo.spec(MODEL)
    task, target = task_of(spec), edge.find_target("onnxruntime")
    artifact = target.compile(SourceModel(spec, FLOAT), recipe=read_recipe("fp32"))
    session = target.load(artifact, spec, options=LoadOptions())
    labels = evaluation / "labels"
    labels.mkdir()
    count = 0
    for path in sorted((evaluation / "images").iterdir()):
        image = edge.read_image(path)
        height, width = image.shape[:2]
        found = task.run(session, image)
        lines = []
        for box, class_id in zip(found.boxes, found.class_ids, strict=True):
            x1, y1, x2, y2 = box / (width, height, width, height)
            lines.append(f"{class_id} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n")
        (labels / f"{path.stem}.txt").write_text("".join(lines))
        count += len(lines)
    session.close()
    return count


def write_scenes(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Pictures of 480x360 with one to four faces on photographs without faces."""
    folder.mkdir(parents=True)
    photos = [getattr(skimage.data, n)() for n in ("coffee", "chelsea", "rocket", "hubble_deep_field")]
    photos += [
        cv2.cvtColor(getattr(skimage.data, n)(), cv2.COLOR_GRAY2RGB) for n in ("brick", "grass", "gravel")
    ]
    colour = skimage.data.astronaut()[0:200, 130:330]
    grey = (skimage.data.lfw_subset()[:100] * 255).astype(np.uint8)
    for index in range(count):
        photo = photos[rng.integers(len(photos))]
        scene = cv2.resize(photo, (480, 360))
        for quarter in rng.permutation(4)[: rng.integers(1, 5)]:
            face = colour
            if rng.random() < 0.6:
                face = cv2.cvtColor(grey[rng.integers(len(grey))], cv2.COLOR_GRAY2RGB)
            side = int(rng.integers(60, 150))
            face = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
            face = face[:, ::-1] if rng.random() < 0.5 else face
            x = int(240 * (quarter % 2) + rng.integers(0, 240 - side))
            y = int(180 * (quarter // 2) + rng.integers(0, 180 - side))
            scene[y : y + side, x : x + side] = cv2.convertScaleAbs(face, alpha=rng.uniform(0.7, 1.2))
        edge.write_image(folder / f"{index:03d}.png", scene)


def table(rows: list[Row]) -> str:
    """The demo's last word, at most 100 columns."""
    head = f"{'target':<13}{'precision':<11}{'p50 ms':>8}{'p90 ms':>8}{'p99 ms':>8}"
    head += f"{'speed-up':>10}{'agrees with float':>19}  verdict"
    lines = [head, "-" * len(head)]
    base = rows[0].run.ms("end_to_end", "p50")
    for row in rows:
        cells = [row.run.ms("end_to_end", p) for p in ("p50", "p90", "p99")]
        shown = "".join(f"{'n/a' if c is None else format(c, '.2f'):>8}" for c in cells)
        speed = f"{base / cells[0]:.2f}x" if base and cells[0] else "n/a"
        lines.append(
            f"{row.target:<13}{row.precision:<11}{shown}{speed:>10}{row.agreement:>19.1%}  {row.run.verdict}"
        )
    lines.append(
        "times: one 640x480 frame to faces, end to end; speed-up: p50 of onnxruntime fp32 over this row's"
    )
    reasons = sorted({reason for row in rows for reason in row.run.reasons})
    lines += [f"INVALID because: {reason}" for reason in reasons]
    return "\n".join(lines)


@contextmanager
def quiet() -> Iterator[None]:
    """Send what quantizers print, some of it from C++, to a log beside the bundles."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = (os.dup(1), os.dup(2))
    log = os.open(OUTPUT / "build.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


if __name__ == "__main__":
    raise SystemExit(main())
