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

from edge_quantize.classification import box_of
from edge_quantize.data import BONA_FIDE, LabelledPicture, digest, read_labelled, read_pictures, sha256
from edge_sdk.bundle import Coverage, DataDigest
from edge_sdk.errors import CalibrationFailed, InputError
from edge_sdk.image import Image
from edge_sdk.sources.files import PICTURES
from edge_sdk.spec import LIVENESS_LABELS, Recipe
from edge_sdk.target import Session
from edge_sdk.tasks import AnyTask, DetectionTask
from edge_sdk.tensors import Array

T = TypeVar("T")

MIN_ITEMS = 16
MIN_PER_CLASS = 2
BLANK = 2.0
"""Grey levels: pictures whose own contrast, and its spread over the set, stay below this show nothing."""
SAME = 2.0
"""Grey levels of mean difference between two thumbnails, below which they are the same picture again."""
_THUMB = 16


@dataclass(frozen=True)
class CalibrationSet:
    """Input tensors in the order in which calibration sees them, and what is recorded of them."""

    tensors: tuple[Array, ...]
    digest: DataDigest


def calibration_set(
    folder: str | Path | None,
    recipe: Recipe,
    task: AnyTask,
    held_out: Sequence[LabelledPicture],
    reference: Session,
) -> CalibrationSet | None:
    """Choose, read, check and describe the pictures that a recipe calibrates on.

    Args:
        folder: of pictures, in any layout; labelled, each class is represented alike.
        recipe: says how many; None is returned where it calibrates nothing.
        task: whose preprocess makes the tensors, the same that runs on the device.
        held_out: the gate's pictures, none of which may calibrate.
        reference: session of the float network, which finds a detector's faces.

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
    items, per_class = _choose(Path(folder), recipe.calibration_items, task.spec.labels)
    chosen = [item.path for item in items]
    _check_held_out(chosen, held_out)
    tensors, face_sizes = list[Array](), list[float]()
    for item, image in read_pictures(items):
        pixels, sizes = _prepare(task, item, image, reference)
        tensors.append(pixels)
        face_sizes += sizes
    _check_content(tensors, Path(folder))
    grey = np.stack([t.mean(axis=-1, dtype=np.float32).ravel() for t in tensors])
    coverage = Coverage(
        brightness=_percentiles(grey.mean(1)),
        contrast=_percentiles(grey.std(1)),
        face_size=_percentiles(face_sizes) if face_sizes else None,
        per_class=per_class,
    )
    return CalibrationSet(tuple(tensors), replace(digest(chosen), coverage=coverage))


def calibration_pictures(folder: Path, count: int) -> list[Path]:
    """``count`` pictures, evenly spaced over a folder of any layout in name order; all if it has fewer.

    Raises:
        CalibrationFailed: no pictures.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    if not paths:
        raise CalibrationFailed(
            f"no pictures in {folder}", remedy="give a folder of pictures like those of the device"
        )
    return _spaced(paths, count)


def _choose(
    folder: Path, count: int, labels: Sequence[str]
) -> tuple[list[LabelledPicture], dict[str, int] | None]:
    """The pictures, and how many faces of each class they show where the folder says so."""
    everything = calibration_pictures(folder, 10**9)
    if len(everything) < min(MIN_ITEMS, count):
        raise CalibrationFailed(
            f"{folder} has {len(everything)} pictures: ranges from fewer than {min(MIN_ITEMS, count)} are chance",
            remedy="give more pictures like the device's",
        )
    if not _is_labelled(folder, labels):
        whole, unknown = np.array([[0.0, 0.0, 1.0, 1.0]]), np.zeros(0, np.int64)
        return [LabelledPicture(path, whole, unknown) for path in _spaced(everything, count)], None
    items = read_labelled(folder, labels)
    if items[0].group:
        groups = sorted({item.group for item in items})
        by_group = [[item for item in items if item.group == group] for group in groups]
        # Each class the same number; what a small one lacks, the large ones give.
        taken, left = [], min(count, len(items))
        for rank, members in enumerate(sorted(by_group, key=len)):
            share = _spaced(members, left // (len(by_group) - rank))
            taken += share
            left -= len(share)
        items = sorted(taken, key=lambda item: item.path)
    else:
        items = _spaced(items, count)
    seen = np.concatenate([item.classes for item in items])
    per_class = {label: int((seen == index).sum()) for index, label in enumerate(labels)}
    if few := [label for label, faces in per_class.items() if faces < MIN_PER_CLASS]:
        raise CalibrationFailed(
            f"{folder} shows {per_class[few[0]]} faces of {few[0]!r} among {len(items)} pictures, at least "
            f"{MIN_PER_CLASS} of every class are needed",
            remedy="add pictures of it, or give an unlabelled folder if the device sees none either",
        )
    return items, per_class


def _is_labelled(folder: Path, labels: Sequence[str]) -> bool:
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        return True
    folders = {p.name for p in folder.iterdir() if p.is_dir()}
    if tuple(labels) == LIVENESS_LABELS:
        return BONA_FIDE in folders
    return bool(folders) and folders <= set(labels)


def _spaced(values: list[T], count: int) -> list[T]:
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


def _prepare(
    task: AnyTask, item: LabelledPicture, image: Image, reference: Session
) -> tuple[Array, list[float]]:
    """The input tensor, and the pixels of the faces' sides: those the network sees, or the crop is made from."""
    if not isinstance(task, DetectionTask):
        box = box_of(item, image) if len(item.boxes) == 1 else None
        sides = image.shape[:2] if box is None else (box[2] - box[0], box[3] - box[1])
        return task.preprocess(image, "rgb", box)[0].copy(), [float(min(sides))]
    pixels, transform = task.preprocess(image)
    pixels = pixels.copy()
    found = task.postprocess(reference.infer(pixels), transform)
    boxes = transform.to_canvas(found.boxes)
    return pixels, np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).tolist()


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
    """How many pictures are left when those that look like an earlier one are taken away."""
    kept: list[npt.NDArray[np.float32]] = []
    for tensor in tensors:
        thumb = _thumbnail(tensor)
        if not kept or float(np.abs(np.stack(kept) - thumb).mean(axis=(1, 2, 3)).min()) >= SAME:
            kept.append(thumb)
    return len(kept)


def _thumbnail(tensor: Array) -> npt.NDArray[np.float32]:
    """(16, 16, 3) means of an input tensor's cells, what does not fill a cell left out."""
    _, height, width, _ = tensor.shape
    rows, columns = min(_THUMB, height), min(_THUMB, width)
    high, wide = height // rows, width // columns
    cells = tensor[0, : rows * high, : columns * wide].reshape(rows, high, columns, wide, 3)
    thumb: npt.NDArray[np.float32] = cells.mean(axis=(1, 3), dtype=np.float32)
    return thumb


def _percentiles(values: Any) -> tuple[float, ...]:
    return tuple(round(float(v), 1) for v in np.percentile(values, [5, 50, 95]))
