"""Many short students of one teacher: a table of accuracy by face size, with mean and spread over seeds.

    make ablation-gmenet DATA=../shared/data

Resumable: a finished cell is read from its log, an interrupted one goes on from its last epoch. Figures are of the last
epoch's averaged weights on PublicTest; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import tomllib
import torch

from edge_sdk.errors import EdgeError, InputError
from edge_training import checkpoint
from edge_training.data import fer2013
from edge_training.stages import options_of
from edge_training.stages.student import SIZES, StudentOptions, StudentStage
from edge_training.train import fit


def run(
    recipe_file: Path, teacher: Path, data: Path, work: Path, *, device: str
) -> dict[str, list[dict[str, float]]]:
    """Train every cell with every seed.

    Returns:
        Cell to the figures of its last epoch, a seed each.

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
    named: dict[str, StudentOptions] = {}
    for cell in cells:
        settings = {**recipe.get("student", {}), **cell}
        name = str(settings.pop("name", "unnamed"))
        named[name] = options_of(StudentOptions, settings)
    if len(named) != len(cells):
        raise InputError(f"{recipe_file} has two cells of one name", remedy="name them apart")
    weights, _ = checkpoint.load(teacher)
    faces = fer2013.read(data / "fer2013")
    found: dict[str, list[dict[str, float]]] = {}
    for name, options in named.items():
        for seed in recipe["seeds"]:
            place = work / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            place.mkdir(parents=True, exist_ok=True)
            fit(StudentStage(options, faces, int(seed)), place, weights, device)
            last = json.loads((place / "student.jsonl").read_text().splitlines()[-1])
            found.setdefault(name, []).append({key: last[key] for key in (*_COLUMNS, "uar")})
    return found


_COLUMNS = tuple(f"accuracy_{size}" for size in SIZES)


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row a cell, a column a size, mean and standard deviation over seeds in percent."""
    lines = [
        "| | " + " | ".join(f"{size} px" for size in SIZES) + " | seeds |",
        "|---" * (len(SIZES) + 2) + "|",
    ]
    for name, figures in found.items():
        cells = []
        for column in _COLUMNS:
            values = [100 * f[column] for f in figures]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(figures)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.ablate", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--teacher", type=Path, required=True, help="checkpoint of the recipe's first stage")
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
