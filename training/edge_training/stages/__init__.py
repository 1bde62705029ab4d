"""What is taught in each stage of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_sdk.errors import InputError
from edge_training.data import fer2013
from edge_training.networks import CLASSIFIERS, DETECTORS
from edge_training.stages.classifier import ClassifierOptions, ClassifierStage
from edge_training.stages.detector import DetectorOptions, DetectorStage
from edge_training.stages.liveness import LivenessOptions, LivenessStage
from edge_training.stages.student import StudentOptions, StudentStage
from edge_training.train import Stage

NETWORKS = (*CLASSIFIERS, "padnet")


def stages_of(recipe: Mapping[str, Any], data: Path) -> list[Stage]:
    """The stages that a recipe names, in order.

    Raises:
        InputError: an unknown network, stage kind or key, a network that a stage cannot teach, or data that cannot be
            read.
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
    else:
        stages = _expression_stages(recipe, network, data, seed)
    if not stages:
        raise InputError("the recipe has no [[stage]]", remedy="add one with kind = 'classifier'")
    return stages


def _expression_stages(recipe: Mapping[str, Any], network: str, data: Path, seed: int) -> list[Stage]:
    faces = fer2013.read(data / "fer2013")
    stages: list[Stage] = []
    for table in recipe.get("stage", []):
        options = dict(table)
        kind = options.pop("kind", None)
        if kind == "classifier":
            stages.append(ClassifierStage(options_of(ClassifierOptions, options), network, faces, seed))
        elif kind == "detector" and network in DETECTORS:
            stages.append(DetectorStage(options_of(DetectorOptions, options), network, faces, data, seed))
        elif kind == "student" and network == "gmenet":
            stages.append(StudentStage(options_of(StudentOptions, options), faces, seed))
        else:
            raise InputError(
                f"{network} has no stage of kind {kind!r}",
                remedy="use classifier, detector (for a YOLO) or student (for gmenet)",
            )
    return stages


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
