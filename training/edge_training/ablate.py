"""An ablation: one stage is trained once per variant and seed; a table shows mean and standard deviation over seeds.

    make ablation-gmenet DATA=../shared/data
    make pad-unseen DATA=../shared/data

The recipe's ``[[cell]]`` tables are the variants. A finished training is read from its log and an interrupted one
goes on from its last epoch. Figures are those of the last epoch's averaged weights on the validation set; no
epoch is chosen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib
import torch

from edge_sdk.errors import EdgeError, InputError
from edge_training import checkpoint
from edge_training.data import fer2013
from edge_training.data.attacks import SPECIES
from edge_training.data.augment import FACE_SIDES
from edge_training.stages.base import Stage, options_of
from edge_training.stages.liveness import LivenessOptions, LivenessStage
from edge_training.stages.student import StudentOptions, StudentStage
from edge_training.train import fit


@dataclass(frozen=True)
class Kind:
    """A kind of stage that can be varied.

    Attributes:
        options: dataclass of the stage's keys in a recipe.
        maker: from the data folder to a function that makes a stage of options and a seed.
        columns: title of a column to the name of the validation figure in it, 0 to 1.
        from_teacher: whether the stage starts from a teacher's weights.
    """

    options: type[Any]
    maker: Callable[[Path], Callable[[Any, int], Stage]]
    columns: Mapping[str, str]
    from_teacher: bool


def _students(data: Path) -> Callable[[Any, int], Stage]:
    faces = fer2013.read(data / "fer2013")
    return lambda options, seed: StudentStage(options, faces, seed)


def _liveness(data: Path) -> Callable[[Any, int], Stage]:
    return lambda options, seed: LivenessStage(options, data, seed)


KINDS: Mapping[str, Kind] = {
    "student": Kind(
        StudentOptions, _students, {f"{s} px": f"accuracy_{s}" for s in FACE_SIDES}, from_teacher=True
    ),
    "liveness": Kind(
        LivenessOptions,
        _liveness,
        {**{f"AUC {s}": f"auc_{s}" for s in SPECIES}, **{f"EER {s}": f"eer_{s}" for s in SPECIES}},
        from_teacher=False,
    ),
}


def run(
    recipe_file: Path, teacher: Path | None, data: Path, work: Path, *, device: str
) -> dict[str, list[dict[str, float]]]:
    """Train every variant with every seed.

    Args:
        recipe_file: ``seeds``, a table named after one of ``KINDS`` with the keys that all variants
            share, and ``[[cell]]`` tables with a name and the keys in which a variant differs.
        teacher: checkpoint that a student starts from; None for other stages.
        data: folder with the training data.
        work: folder for checkpoints and logs, made if missing.
        device: torch device name.

    Returns:
        Name of a variant to the figures of its last epoch by title, one dictionary per seed.

    Raises:
        InputError: the recipe, the teacher or the data cannot be used; nothing has been trained then.
    """
    try:
        recipe: dict[str, Any] = tomllib.loads(recipe_file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read {recipe_file}: {error}", remedy="mend the recipe") from error
    cells = recipe.get("cell", [])
    if not cells or not recipe.get("seeds"):
        raise InputError(f"{recipe_file} has no [[cell]] or no seeds", remedy="mend the recipe")
    named_kinds = [name for name in KINDS if name in recipe]
    if len(named_kinds) != 1:
        raise InputError(
            f"{recipe_file} has tables of {len(named_kinds)} stages",
            remedy=f"give one of [{'], ['.join(KINDS)}]",
        )
    kind = KINDS[named_kinds[0]]
    named: dict[str, Any] = {}
    for cell in cells:
        settings = {**recipe[named_kinds[0]], **cell}
        name = str(settings.pop("name", "unnamed"))
        named[name] = options_of(kind.options, settings)
    if len(named) != len(cells):
        raise InputError(f"{recipe_file} has two cells of one name", remedy="name them apart")
    if kind.from_teacher != (teacher is not None):
        raise InputError(
            f"a {named_kinds[0]} stage {'starts from' if kind.from_teacher else 'has no'} teacher",
            remedy="give --teacher" if kind.from_teacher else "leave --teacher out",
        )
    weights = None if teacher is None else checkpoint.load(teacher)[0]
    stage_of = kind.maker(data)
    found: dict[str, list[dict[str, float]]] = {}
    for name, options in named.items():
        for seed in recipe["seeds"]:
            place = work / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            place.mkdir(parents=True, exist_ok=True)
            stage = stage_of(options, int(seed))
            last = _last(place / f"{stage.name}.jsonl")
            if last is None or last["epoch"] < options.epochs:
                fit(stage, place, weights, device)
                last = _last(place / f"{stage.name}.jsonl")
            assert last is not None, "written by fit"
            found.setdefault(name, []).append({title: last[key] for title, key in kind.columns.items()})
    return found


def _last(log: Path) -> dict[str, Any] | None:
    """The last epoch's record, if there is one."""
    records = log.read_text().splitlines() if log.exists() else []
    return json.loads(records[-1]) if records else None


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row per variant and a column per figure, mean ± standard deviation over seeds in percent."""
    titles = list(next(iter(found.values()))[0])
    lines = [
        "| | " + " | ".join(titles) + " | seeds |",
        "|---" * (len(titles) + 2) + "|",
    ]
    for name, figures in found.items():
        cells = []
        for title in titles:
            values = [100 * f[title] for f in figures]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(figures)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.ablate", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--teacher", type=Path, help="checkpoint that students start from")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    try:
        print(table(run(args.recipe, args.teacher, args.data, args.work, device=args.device)))
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
