"""What is taught in each stage of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from edge_sdk import zoo
from edge_sdk.errors import InputError
from edge_training import checkpoint
from edge_training.data import fer2013
from edge_training.networks import CLASSIFIERS, DETECTORS, of_model
from edge_training.stages.classifier import ClassifierOptions, ClassifierStage
from edge_training.stages.common import Teacher
from edge_training.stages.detector import DetectorOptions, DetectorStage
from edge_training.stages.distil import DistilOptions, DistilStage
from edge_training.stages.judgeable import JudgeableOptions, JudgeableStage
from edge_training.stages.liveness import LivenessOptions, LivenessStage
from edge_training.stages.student import StudentOptions, StudentStage
from edge_training.train import Stage

NETWORKS = (*CLASSIFIERS, "padnet", "minifas")


def stages_of(recipe: Mapping[str, Any], data: Path, place: Path = Path()) -> list[Stage]:
    """The stages that a recipe names, in order.

    Args:
        recipe: its tables.
        data: folder with the training data.
        place: the recipe's folder; its teacher's weights are named from there.

    Raises:
        InputError: an unknown network, stage kind or key, a network that a stage cannot teach, or data or a teacher
            that cannot be read.
    """
    network = recipe.get("network")
    if network not in NETWORKS:
        raise InputError(
            f"unknown network {network!r} in the recipe", remedy=f"known networks: {', '.join(NETWORKS)}"
        )
    seed = int(recipe.get("seed", 1))
    stages: list[Stage] = []
    if network == "padnet":
        for table in recipe.get("stage", []):
            options = {key: value for key, value in table.items() if key != "kind"}
            stages.append(LivenessStage(options_of(LivenessOptions, options), data, seed))
    elif network == "minifas":
        for table in recipe.get("stage", []):
            options = {key: value for key, value in table.items() if key != "kind"}
            if table.get("kind") == "judgeable":
                stages.append(JudgeableStage(options_of(JudgeableOptions, options), data, seed))
            else:
                stages.append(DistilStage(options_of(DistilOptions, options), data, seed))
    else:
        stages = _expression_stages(recipe, network, data, seed, place)
    if not stages:
        raise InputError("the recipe has no [[stage]]", remedy="add one with kind = 'classifier'")
    return stages


def _expression_stages(
    recipe: Mapping[str, Any], network: str, data: Path, seed: int, place: Path
) -> list[Stage]:
    teacher = _teacher(recipe["teacher"], place) if "teacher" in recipe else None
    faces = fer2013.read(data / "fer2013")
    return [
        _expression_stage(table, network, faces, data, seed, teacher) for table in recipe.get("stage", [])
    ]


def _teacher(tables: Any, place: Path) -> Teacher:
    """The classifiers that a recipe's ``[[teacher]]`` tables name: each a network, its weights, and the side it sees."""
    if not isinstance(tables, list):
        raise InputError("[teacher] in the recipe", remedy="write [[teacher]], one for each of them")
    return Teacher(*(_member(table, place) for table in tables))


def _member(table: Mapping[str, Any], place: Path) -> tuple[nn.Module, int]:
    if set(table) != {"network", "weights", "side"} or table["network"] not in CLASSIFIERS:
        raise InputError(
            f"[[teacher]] with {dict(table)} in the recipe",
            remedy=f"give network ({', '.join(CLASSIFIERS)}), weights (a file, from the recipe's folder) and side",
        )
    network, weights = CLASSIFIERS[table["network"]](0.0), place / table["weights"]
    tensors, _ = checkpoint.load(weights)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{weights} is not of a {table['network']}: {error}", remedy="name its network in [[teacher]]"
        ) from error
    return network, int(table["side"])


def _expression_stage(
    table: Mapping[str, Any],
    network: str,
    faces: fer2013.Fer2013,
    data: Path,
    seed: int,
    teacher: Teacher | None = None,
) -> Stage:
    options = dict(table)
    kind = options.pop("kind", None)
    if kind == "classifier":
        return ClassifierStage(options_of(ClassifierOptions, options), network, faces, seed, teacher)
    if kind == "detector" and network in DETECTORS:
        return DetectorStage(options_of(DetectorOptions, options), network, faces, data, seed, teacher)
    if kind == "student" and network == "gmenet":
        return StudentStage(options_of(StudentOptions, options), faces, seed, teacher)
    if kind == "qat":
        # torchao takes seconds to import and complains about extensions of other platforms.
        from edge_training.stages.qat import QatOptions, QatStage

        model, shown = options.pop("model", None), options.pop("pictures", None)
        if model not in zoo.NAMES or not isinstance(shown, dict):
            raise InputError(
                f"a qat stage with model {model!r} and pictures {shown!r}",
                remedy=f"model is one of {', '.join(zoo.NAMES)}, pictures the table of the stage whose it takes",
            )
        pictures = _expression_stage(shown, network, faces, data, seed)
        if isinstance(pictures, DetectorStage):
            pictures.network(None)  # makes what its scenes are composed of
        return QatStage(
            options_of(QatOptions, options), lambda: of_model(model), zoo.spec(model), pictures.batches
        )
    raise InputError(
        f"{network} has no stage of kind {kind!r}",
        remedy="use classifier, detector (for a YOLO), student (for gmenet) or qat",
    )


def options_of(cls: type[Any], table: Mapping[str, Any]) -> Any:
    """A stage's options from its table.

    Raises:
        InputError: an unknown key, or values that contradict each other.
    """
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(table) - known):
        raise InputError(
            f"unknown key {unknown[0]!r} in the recipe's stage",
            remedy=f"known keys: {', '.join(sorted(known))}",
        )
    return cls(**table)
