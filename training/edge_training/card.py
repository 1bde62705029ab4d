"""The figures of a model card: the float network and every shipped bundle on the test sets, and the curves.

    python -m edge_training.card fer-yolo11n --data ../shared/data --work runs/release

Test sets are read once, when the weights are final. Tables go to standard output as Markdown; the picture beside the
card, ``edge_sdk/zoo/NAME.png``, shows the shipped bundle that is fastest here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize import classification, detection, liveness
from edge_quantize.build import REFERENCE_RECIPE, REFERENCE_TARGET
from edge_quantize.data import LabelledPicture, read_labelled
from edge_quantize.gate import examine
from edge_quantize.recipe import read_recipe
from edge_quantize.report import METRICS, Report
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError
from edge_sdk.spec import ModelSpec
from edge_sdk.target import FloatModel, LoadOptions, Session, find_target
from edge_sdk.tasks import ClassificationTask, DetectionTask, LivenessTask, task_of
from edge_training.data.unpack import unpack
from edge_training.export import float_source
from edge_training.probes import agreement, found_by_size, found_in_scenes, jitter
from edge_training.release import folder_of
from edge_training.stages.student import SIZES

TEST_SETS: Mapping[str, Mapping[str, tuple[str, dict[str, Any]]]] = {
    "detection": {
        "all": ("private-test", {}),
        "without duplicates": ("private-test", {"without_duplicates": True}),
    },
    "classification": {f"{size} px": ("private-test", {"face": size}) for size in SIZES},
    "liveness": {"test": ("pad-test", {})},
}

DRAWN = {"detection": "all", "classification": "48 px", "liveness": "test"}
"""The set of each task that the picture is of."""


def sessions(spec: ModelSpec, work: Path) -> dict[str, Session]:
    """The float network in onnxruntime, then every shipped bundle, by name of the column."""
    onnx = float_source(spec.name, work)
    target = find_target(REFERENCE_TARGET)
    artifact = target.compile(FloatModel(spec, onnx), recipe=read_recipe(REFERENCE_RECIPE), calibration=())
    found = {"float": target.load(artifact, spec, options=LoadOptions())}
    for shipped in zoo.bundles(spec.name):
        bundle = Bundle.open(shipped.path)
        loaded = find_target(shipped.target).load(bundle.artifact, spec, options=LoadOptions())
        found[f"{shipped.target} {shipped.precision}"] = loaded
    return found


def table(columns: Mapping[str, Report], names: Sequence[str]) -> str:
    """Markdown: a row a metric, a column a network, each with its interval."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = (
            f"{(m := r.metrics[name]).value:.3f} ({m.low:.3f} .. {m.high:.3f})" for r in columns.values()
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def confusion(report: Report, columns: Sequence[str], rows: Sequence[str]) -> str:
    """Markdown: rows are the labels, columns the answers."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row, counts in zip(rows, report.confusion, strict=True):
        lines.append(f"| {row} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def draw(spec: ModelSpec, session: Session, items: Sequence[LabelledPicture], path: Path) -> None:
    """What a table cannot show: precision against recall, or errors against each other, and the confusion."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    task = task_of(spec)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    if isinstance(task, DetectionTask):
        ranked, truths = detection.answers(session, task, items)
        classes = [item.classes for item in items]
        report = detection.evaluate(ranked, truths, classes, spec.labels)
        for index, label in enumerate(spec.labels):
            found = detection.matches_of(ranked, truths, classes, index)
            hits = np.cumsum(found.hit[0])
            left.plot(hits / found.faces.sum(), hits / np.arange(1, len(hits) + 1), label=label)
        left.set(xlabel="recall", ylabel="precision", title="at IoU 0.5", xlim=(0, 1), ylim=(0, 1))
        answers: Sequence[str] = [*spec.labels, "not found"]
        rows: Sequence[str] = spec.labels
    elif isinstance(task, LivenessTask):
        scores, groups = liveness.scores(session, task, items)
        report = liveness.evaluate(scores, groups, task.decision.threshold)
        genuine, names = np.array(groups) == "bona_fide", np.array(groups)
        for name in report.per_class:
            apcer, bpcer = liveness.det(scores, genuine, names == name, np.ones(len(scores)))
            left.plot(apcer.clip(1e-4), bpcer.clip(1e-4), label=name)
        left.set(
            xlabel="APCER", ylabel="BPCER", title="detection error trade-off", xscale="log", yscale="log"
        )
        answers, rows = spec.labels, ["bona fide", *report.per_class]
    else:
        assert isinstance(task, ClassificationTask)
        report = classification.evaluate(*classification.answers(session, task, items), spec.labels)
        left.bar(spec.labels, [report.score_of(label) for label in spec.labels])
        left.set(ylabel="recall", ylim=(0, 1), title="by class")
        answers = rows = spec.labels
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize=8)
    left.grid(alpha=0.3)
    shares = np.array(report.confusion, float)
    shares /= shares.sum(1, keepdims=True).clip(1)
    right.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    right.set_xticks(range(len(answers)), answers, rotation=30, ha="right")
    right.set_yticks(range(len(rows)), rows)
    right.set(xlabel="answer", ylabel="label", title="confusion, shares of each label")
    for (y, x), share in np.ndenumerate(shares):
        right.text(
            x,
            y,
            f"{share:.2f}",
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
            fontsize=8,
        )
    figure.suptitle(f"{spec.name}, {len(items)} test pictures")
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.card", description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=zoo.NAMES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked pictures")
    args = parser.parse_args(argv)
    try:
        spec = zoo.spec(args.model)
        loaded = sessions(spec, args.work)
        fastest = list(loaded)[1] if len(loaded) > 1 else "float"
        for title, (name, settings) in TEST_SETS[spec.task].items():
            folder = args.work / folder_of(name, settings)
            if not folder.exists():
                unpack(name, args.data, folder, **settings)
            items = read_labelled(folder, spec.labels)
            reports = {name: examine(session, task_of(spec), items) for name, session in loaded.items()}
            print(f"\n{title}, {len(items)} pictures\n\n" + table(reports, METRICS[spec.task]))
            floats = reports["float"]
            print("\n" + ", ".join(f"{label} {floats.score_of(label):.3f}" for label in floats.per_class))
            if spec.task == "detection":
                print("\n" + confusion(floats, [*spec.labels, "not found"], spec.labels))
            elif spec.task == "liveness":
                print("\n" + confusion(floats, spec.labels, ["bona fide", *floats.per_class]))
            else:
                print("\n" + confusion(floats, spec.labels, spec.labels))
            if title == DRAWN[spec.task]:
                draw(spec, loaded[fastest], items, zoo.BUNDLES.parent / f"{spec.name}.png")
        if len(loaded) == 1:
            return 0  # what follows looks at a shipped bundle
        if spec.task == "detection":
            if not (args.work / "scenes").exists():
                unpack("scenes", args.data, args.work / "scenes")
            print("\nscenes: " + found_in_scenes(spec.name, args.data, args.work / "scenes"))
            print("\nby size of face\n\n" + found_by_size(spec.name, args.data))
            print("\nreal photographs\n\n" + agreement(spec.name, args.data))
        elif spec.task == "liveness":
            print("\nboxes off by up to a tenth\n\n" + jitter(spec.name, args.data))
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
