"""The figures of a model card: the float network and every shipped bundle on the test sets, and the curves.

    python -m edge_training.card fer-yolo11n --data ../shared/data --work runs/release

Test sets are used once, when the weights are final. Tables go to standard output as Markdown; the picture beside the
card, ``edge_sdk/zoo/NAME.png``, shows the shipped bundle that is fastest on this machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_quantize.data import LabelledPicture
from edge_quantize.gate import examine
from edge_quantize.metrics import evaluator_of
from edge_quantize.recipe import read_recipe
from edge_quantize.report import Report
from edge_quantize.workbench import REFERENCE_RECIPE, REFERENCE_TARGET
from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError
from edge_sdk.files import replacing
from edge_sdk.reporting import import_matplotlib
from edge_sdk.spec import ModelSpec
from edge_sdk.target import LoadOptions, Session, SourceModel, find_target
from edge_sdk.tasks import task_of
from edge_training.card_sections import SECTIONS
from edge_training.data.unpack import unpack
from edge_training.export import float_source
from edge_training.release import folder_of


def sessions(spec: ModelSpec, work: Path) -> dict[str, Session]:
    """The float network in onnxruntime, then every shipped bundle, by the title of its column in the card.

    Args:
        spec: of the zoo model.
        work: folder for a float file that has to be made from weights.
    """
    onnx = float_source(spec.name, work)
    target = find_target(REFERENCE_TARGET)
    artifact = target.compile(SourceModel(spec, onnx), recipe=read_recipe(REFERENCE_RECIPE))
    found = {"float": target.load(artifact, spec, options=LoadOptions())}
    for shipped in zoo.bundles(spec.name):
        bundle = Bundle.open(shipped.path)
        loaded = find_target(shipped.target).load(bundle.artifact, spec, options=LoadOptions())
        found[f"{shipped.target} {shipped.precision}"] = loaded
    return found


def table(columns: Mapping[str, Report], names: Sequence[str]) -> str:
    """Markdown: a row per metric and a column per network; every value with its confidence interval."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = (
            f"{(m := r.metrics[name]).value:.3f} ({m.low:.3f} .. {m.high:.3f})" for r in columns.values()
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def confusion(report: Report, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Markdown: counts of pictures; rows are the labels, columns the answers."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row, counts in zip(rows, report.confusion, strict=True):
        lines.append(f"| {row} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def draw(spec: ModelSpec, session: Session, items: Sequence[LabelledPicture], path: Path) -> None:
    """Draw the card's picture: the task's curve, and the confusion as shares of each label.

    Args:
        spec: of the zoo model.
        session: network that is evaluated.
        items: test pictures.
        path: PNG file to write.
    """
    import_matplotlib()
    import matplotlib.pyplot as plt

    section = SECTIONS[spec.task]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    report = section.plot(left, spec, session, items)
    rows, answers = section.confusion_names(spec, report)
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
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100)


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
        section, evaluator = SECTIONS[spec.task], evaluator_of(spec.task)
        for title, (name, settings) in section.test_sets.items():
            folder = args.work / folder_of(name, settings)
            if not folder.exists():
                unpack(name, args.data, folder, **settings)
            items = evaluator.read_labelled(folder, spec.labels)
            reports = {name: examine(session, task_of(spec), items) for name, session in loaded.items()}
            print(f"\n{title}, {len(items)} pictures\n\n" + table(reports, evaluator.metrics))
            floats = reports["float"]
            print("\n" + ", ".join(f"{label} {floats.score_of(label):.3f}" for label in floats.per_class))
            print("\n" + confusion(floats, *section.confusion_names(spec, floats)))
            if title == section.drawn:
                draw(spec, loaded[fastest], items, zoo.BUNDLES.parent / f"{spec.name}.png")
        if len(loaded) == 1:
            return 0  # what follows looks at a shipped bundle
        for title, markdown in section.robustness(spec.name, args.data, args.work).items():
            print(f"\n{title}\n\n{markdown}")
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
