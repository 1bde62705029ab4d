"""The stages of a training, found by the ``kind`` that a recipe gives; each kind is a module of this package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edge_sdk.errors import InputError
from edge_training import checkpoint
from edge_training.networks import CLASSIFIERS, DETECTORS
from edge_training.stages.base import Setting, Stage, Teacher

KINDS: Mapping[str, tuple[str, ...]] = {
    "classifier": tuple(CLASSIFIERS),
    "detector": tuple(DETECTORS),
    "student": ("gmenet",),
    "liveness": ("padnet",),
    "distil": ("minifas",),
    "judgeable": ("minifas",),
    "qat": tuple(CLASSIFIERS),
}
"""Kind of a stage to the networks that it can train. Its module has a function ``stage`` that makes one."""

NETWORKS = tuple(dict.fromkeys(network for networks in KINDS.values() for network in networks))


def stages_of(
    recipe: Mapping[str, Any], data: Path, folder: Path = Path(), own_faces: Path | None = None
) -> list[Stage]:
    """The stages that a recipe names, in order.

    Args:
        recipe: the tables of its file.
        data: folder with the training data.
        folder: that the recipe lies in; paths in it are relative to this folder.
        own_faces: folder of labelled crops in place of FER2013.

    Raises:
        InputError: an unknown network, stage kind or key, a network that a stage cannot train, or data or a teacher
            that cannot be read.
    """
    network = recipe.get("network")
    if network not in NETWORKS:
        raise InputError(
            f"unknown network {network!r} in the recipe", remedy=f"known networks: {', '.join(NETWORKS)}"
        )
    teacher = teacher_of(recipe["teacher"], folder) if "teacher" in recipe else None
    setting = Setting(network, data, int(recipe.get("seed", 1)), teacher, own_faces)
    stages = [_stage(table, setting) for table in recipe.get("stage", [])]
    if not stages:
        kinds = [kind for kind, networks in KINDS.items() if network in networks]
        raise InputError("the recipe has no [[stage]]", remedy=f"add one with kind = {kinds[0]!r}")
    return stages


def _stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    options = dict(table)
    kind = options.pop("kind", None)
    if setting.network not in KINDS.get(str(kind), ()):
        fitting = [name for name, networks in KINDS.items() if setting.network in networks]
        raise InputError(
            f"{setting.network} has no stage of kind {kind!r}", remedy=f"use {' or '.join(fitting)}"
        )
    if isinstance(inner := options.get("pictures"), Mapping):
        # A stage whose batches another one shows; its labels do not matter, so it needs no teacher.
        options["pictures"] = _stage(inner, replace(setting, teacher=None))
    # Imported when it is used: torchao, for qat, takes seconds.
    stage: Stage = importlib.import_module(f"{__name__}.{kind}").stage(options, setting)
    return stage


def teacher_of(tables: Any, folder: Path) -> Teacher:
    """The ensemble that a recipe's ``[[teacher]]`` tables name."""
    if not isinstance(tables, list):
        raise InputError("[teacher] in the recipe", remedy="write [[teacher]], one for each of them")
    return Teacher(*(_member(table, folder) for table in tables))


def _member(table: Mapping[str, Any], folder: Path) -> tuple[nn.Module, int]:
    """A trained classifier and the side in pixels of the crops that it takes."""
    if set(table) != {"network", "weights", "side"} or table["network"] not in CLASSIFIERS:
        raise InputError(
            f"[[teacher]] with {dict(table)} in the recipe",
            remedy=f"give network ({', '.join(CLASSIFIERS)}), weights (a file, from the recipe's folder) and side",
        )
    network, weights = CLASSIFIERS[table["network"]](0.0), folder / table["weights"]
    tensors, _ = checkpoint.load(weights)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{weights} is not of a {table['network']}: {error}", remedy="name its network in [[teacher]]"
        ) from error
    return network, int(table["side"])
