"""Calibration sets: which pictures activation ranges are made from, and whether they can be trusted.

A set must have ``MIN_ITEMS`` pictures, and where it is labelled ``MIN_PER_CLASS`` of every class; most of it must not be
the same picture again. What it covers is reported beside the gate's figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edge_quantize.data import LabelledPicture, digest, read_pictures, sha256
from edge_quantize.metrics import Evaluator, evaluator_of
from edge_sdk.bundle import Coverage, DataDigest
from edge_sdk.errors import CalibrationFailed, InputError
from edge_sdk.files import entries
from edge_sdk.sources.files import PICTURES
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.state import State
from edge_sdk.target import Session
from edge_sdk.tasks import Task
from edge_sdk.tensors import Array, Tensors

T = TypeVar("T")

MIN_ITEMS = 16
MIN_PER_CLASS = 2
BLANK = 2.0
"""Grey levels: pictures whose own contrast, and its spread over the set, stay below this show nothing."""
SAME = 2.0
"""Grey levels of mean difference between two thumbnails, below which they are the same picture again."""
STEPS = 4
"""Steps of a recurrent network on each picture: what it remembers has other ranges than the zeros at the start."""
_THUMB = 16


@dataclass(frozen=True)
class CalibrationSet:
    """What ranges are made from.

    Attributes:
        frames: all inputs by name, in the order in which calibration sees them; one per picture, or ``STEPS`` per
            picture of a recurrent network, whose state is then among the inputs.
        digest: of the pictures, and what they show.
    """

    frames: tuple[Tensors, ...]
    digest: DataDigest


def calibration_set(
    folder: str | Path | None,
    recipe: Recipe,
    task: Task,
    held_out: Sequence[LabelledPicture],
    reference: Session,
) -> CalibrationSet | None:
    """Choose, read, check and describe the pictures that a recipe calibrates on.

    Args:
        folder: of pictures, in any layout; labelled, each class is represented alike.
        recipe: says how many; None is returned where it calibrates nothing.
        task: whose preprocess makes the inputs, the same that runs on the device.
        held_out: the gate's pictures, none of which may calibrate.
        reference: session of the float network: it finds faces, and what a recurrent network remembers.

    Raises:
        InputError: no folder, or an unreadable picture.
        CalibrationFailed: too few pictures, blank ones, mostly the same one again, or ones that the gate holds out.
    """
    if not recipe.calibrated:
        return None
    if folder is None:
        raise InputError(
            f"recipe {recipe.name} needs calibration pictures",
            remedy="give --calibration a folder of pictures like the device's",
        )
    spec, evaluator = task.spec, evaluator_of(task.spec.task)
    items, per_class = _choose(Path(folder), recipe.calibration_items, spec.labels, evaluator)
    chosen = [item.path for item in items]
    _check_held_out(chosen, held_out)
    frames, shown, face_sizes = list[Tensors](), list[Array](), list[float]()
    for item, image in read_pictures(items):
        made, sizes = evaluator.calibration_inputs(task, item, image, reference)
        inputs = {name: array.copy() for name, array in made.items()}
        frames += _steps(spec, inputs, reference)
        face_sizes += sizes
        if spec.pixels is not None:
            shown.append(inputs[spec.pixels.name])
    brightness: tuple[float, ...] = ()
    contrast: tuple[float, ...] = ()
    if shown:
        _check_content(shown, Path(folder))
        grey = np.stack([pixels.mean(axis=-1, dtype=np.float32).ravel() for pixels in shown])
        brightness, contrast = _percentiles(grey.mean(1)), _percentiles(grey.std(1))
    coverage = Coverage(
        brightness=brightness,
        contrast=contrast,
        face_size=_percentiles(face_sizes) if face_sizes else None,
        per_class=per_class,
    )
    return CalibrationSet(tuple(frames), replace(digest(chosen), coverage=coverage))


def _steps(spec: ModelSpec, inputs: Tensors, reference: Session) -> list[Tensors]:
    """The inputs of each step on one picture: themselves, or beside what the float network remembers by then."""
    if not spec.state:
        return [inputs]
    state, frames = State(spec), list[Tensors]()
    for _ in range(STEPS):
        frames.append({**inputs, **{name: array.copy() for name, array in state.tensors.items()}})
        state.update(reference.infer(frames[-1]))
    return frames


def calibration_pictures(folder: Path, count: int) -> list[Path]:
    """``count`` pictures, evenly spaced over a folder of any layout in name order; all if it has fewer.

    Raises:
        CalibrationFailed: no pictures.
    """
    paths = [
        p for p in (entries(folder, below=True) if folder.is_dir() else ()) if p.suffix.lower() in PICTURES
    ]
    if not paths:
        raise CalibrationFailed(
            f"no pictures in {folder}", remedy="give a folder of pictures like those of the device"
        )
    return evenly(paths, count)


def _choose(
    folder: Path, count: int, labels: Sequence[str], evaluator: Evaluator
) -> tuple[list[LabelledPicture], dict[str, int] | None]:
    """The pictures, and how many faces of each class they show where the folder says so."""
    everything = calibration_pictures(folder, 10**9)
    if len(everything) < min(MIN_ITEMS, count):
        raise CalibrationFailed(
            f"{folder} has {len(everything)} pictures: ranges from fewer than {min(MIN_ITEMS, count)} are chance",
            remedy="give more pictures like the device's",
        )
    if not evaluator.is_labelled(folder, labels):
        whole, unknown = np.array([[0.0, 0.0, 1.0, 1.0]]), np.zeros(0, np.int64)
        return [LabelledPicture(path, whole, unknown) for path in evenly(everything, count)], None
    items = evaluator.read_labelled(folder, labels)
    if items[0].group:
        groups = sorted({item.group for item in items})
        by_group = [[item for item in items if item.group == group] for group in groups]
        # Each class the same number; what a small one lacks, the large ones give.
        taken, left = [], min(count, len(items))
        for rank, members in enumerate(sorted(by_group, key=len)):
            share = evenly(members, left // (len(by_group) - rank))
            taken += share
            left -= len(share)
        items = sorted(taken, key=lambda item: item.path)
    else:
        items = evenly(items, count)
    seen = np.concatenate([item.classes for item in items])
    per_class = {label: int((seen == index).sum()) for index, label in enumerate(labels)}
    if few := [label for label, faces in per_class.items() if faces < MIN_PER_CLASS]:
        raise CalibrationFailed(
            f"{folder} shows {per_class[few[0]]} faces of {few[0]!r} among {len(items)} pictures, at least "
            f"{MIN_PER_CLASS} of every class are needed",
            remedy="add pictures of it, or give an unlabelled folder if the device sees none either",
        )
    return items, per_class


def evenly(values: list[T], count: int) -> list[T]:
    """``count`` of the values, evenly spaced from the first to the last; all if there are fewer."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]


def _check_held_out(chosen: Sequence[Path], held_out: Sequence[LabelledPicture]) -> None:
    seen = {sha256(item.path): item.path for item in held_out}
    if both := [(path, seen[found]) for path in chosen if (found := sha256(path)) in seen]:
        ours, theirs = both[0]
        raise CalibrationFailed(
            f"{len(both)} of {len(chosen)} calibration pictures are in the evaluation set too, such as {ours} "
            f"({theirs}): the gate would measure what the ranges were made from",
            remedy="calibrate on other pictures than those the gate holds out",
        )


def _check_content(tensors: Sequence[Array], folder: Path) -> None:
    contrasts = [float(t.std(dtype=np.float32)) for t in tensors]
    if np.std(contrasts) + np.mean(contrasts) < BLANK:
        raise CalibrationFailed(
            f"the {len(tensors)} calibration pictures in {folder} are blank: ranges from them mean nothing",
            remedy="give real pictures",
        )
    repeated = len(tensors) - distinct(tensors)
    if 2 * repeated > len(tensors):
        raise CalibrationFailed(
            f"{repeated} of the {len(tensors)} calibration pictures in {folder} show what another one shows: "
            "ranges from one scene are no ranges",
            remedy="give different pictures: of a video, frames some seconds apart",
        )


def distinct(tensors: Sequence[Array]) -> int:
    """How many pictures are left when those that look like an earlier one are taken away.

    Args:
        tensors: (1, height, width, 3) pictures or (1, frames, height, width, 3) clips, uint8.
    """
    kept: list[npt.NDArray[np.float32]] = []
    for tensor in tensors:
        thumb = _thumbnail(tensor)
        if not kept or float(np.abs(np.stack(kept) - thumb).mean(axis=(1, 2, 3)).min()) >= SAME:
            kept.append(thumb)
    return len(kept)


def _thumbnail(tensor: Array) -> npt.NDArray[np.float32]:
    """(16, 16, 3) means of a picture's cells, or of a clip's mean picture; what does not fill a cell is left out."""
    picture = tensor[0] if tensor.ndim == 4 else tensor[0].mean(axis=0, dtype=np.float32)
    height, width, _ = picture.shape
    rows, columns = min(_THUMB, height), min(_THUMB, width)
    high, wide = height // rows, width // columns
    cells = picture[: rows * high, : columns * wide].reshape(rows, high, columns, wide, 3)
    thumb: npt.NDArray[np.float32] = cells.mean(axis=(1, 3), dtype=np.float32)
    return thumb


def _percentiles(values: Any) -> tuple[float, ...]:
    return tuple(round(float(v), 1) for v in np.percentile(values, [5, 50, 95]))
