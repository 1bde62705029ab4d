"""Pictures for calibration and evaluation, from a folder in one of the accepted layouts.

- ``DIR/LABEL/*.png``: face crops; the box is the whole picture (the protocol of the FER2013 and KDEF studies);
- ``DIR/images/*`` with ``DIR/labels/*.txt``: YOLO layout, lines of ``class cx cy w h`` as fractions;
- ``DIR/bona_fide/*`` with ``DIR/SPECIES/*`` for each attack species: every picture is a crop with the model's margin,
  or, with a ``DIR/boxes.csv`` (``file,x1,y1,x2,y2``, pixels), a frame with one face;
- a flat folder of pictures: calibration only.

Which of them a task takes is its evaluator's to say (``edge_quantize.metrics``).

Nothing is skipped silently: an unreadable or unlabelled file is an InputError that names it.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.bundle import DataDigest
from edge_sdk.errors import InputError
from edge_sdk.files import entries
from edge_sdk.image import Image, read_image
from edge_sdk.sources.files import PICTURES

BONA_FIDE = "bona_fide"
"""Folder of bona fide pictures; every other folder beside it is an attack species."""


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture file and the faces on it; an evaluator whose labels are something else has a subclass.

    Attributes:
        path: of the file.
        boxes: (N, 4) x1, y1, x2, y2 of each face, as fractions of width and height.
        classes: (N,) index of each face's class in the model's labels.
        group: name of the folder that it came from, in the layouts that have one: of an attack, its species.
    """

    path: Path
    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    group: str = ""


def read_labelled(folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
    """All pictures of a folder in YOLO layout or of class folders, in name order.

    Args:
        folder: of labelled pictures.
        labels: of the network, in the order of its outputs.

    Raises:
        InputError: the folder is missing, empty or in neither layout, or a label or class folder is wrong.
    """
    check_folder(folder)
    items = _yolo(folder, labels) if _is_yolo(folder) else _class_folders(folder, labels)
    return check_labelled(items, folder)


def read_presentations(folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
    """All pictures of a folder of bona fide presentations and attacks, in name order; or of one in YOLO layout.

    Args:
        folder: of labelled pictures.
        labels: of the network: what bona fide is called, then what an attack is.

    Raises:
        InputError: the folder is missing, empty or in neither layout, or a box is wrong.
    """
    check_folder(folder)
    items = _yolo(folder, labels) if _is_yolo(folder) else _presentations(folder)
    return check_labelled(items, folder)


def is_labelled(folder: Path, labels: Sequence[str]) -> bool:
    """Whether a folder that exists is in YOLO layout or has folders of the labels' names and no others."""
    folders = {p.name for p in entries(folder) if p.is_dir()}
    return ((folder / "labels").is_dir() and _is_yolo(folder)) or (bool(folders) and folders <= set(labels))


def is_presentations(folder: Path) -> bool:
    """Whether a folder that exists is in YOLO layout or has a folder of bona fide pictures."""
    return ((folder / "labels").is_dir() and _is_yolo(folder)) or (folder / BONA_FIDE).is_dir()


def check_folder(folder: Path) -> None:
    """Refuse what is no folder (InputError)."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", remedy="name a folder of labelled pictures")


def check_labelled(items: list[LabelledPicture], folder: Path) -> list[LabelledPicture]:
    """The same pictures; refuses a set on which nothing could be measured.

    Args:
        items: that were read.
        folder: where they came from, for messages.

    Raises:
        InputError: no pictures, or none with a face.
    """
    if not items:
        raise InputError(
            f"no labelled pictures in {folder}",
            remedy="use DIR/LABEL/*.png, or DIR/images with DIR/labels",
        )
    if not any(len(item.classes) for item in items):
        raise InputError(
            f"the {len(items)} pictures in {folder} have no labelled face: nothing could be measured",
            remedy="label the faces, or name another folder",
        )
    return items


def sha256(path: Path) -> bytes:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).digest()


def check_classes(items: Sequence[LabelledPicture], labels: Sequence[str], folder: Path) -> None:
    """Refuse a held-out set that lacks a class: nothing would be known of it.

    Raises:
        InputError: naming the class.
    """
    seen = np.unique(np.concatenate([item.classes for item in items]))
    if missing := [label for index, label in enumerate(labels) if index not in seen]:
        raise InputError(
            f"no face of {', '.join(missing)} among the {len(items)} pictures in {folder}: the gate would not see "
            "what becomes of it",
            remedy="add labelled pictures of every class that the model answers with",
        )


def digest(paths: Sequence[Path]) -> DataDigest:
    """One SHA-256 over the files' contents in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(sha256(path))
    return DataDigest(len(paths), total.hexdigest())


def read_pictures(items: Sequence[LabelledPicture]) -> Iterator[tuple[LabelledPicture, Image]]:
    """Each item with its picture, read one at a time."""
    for item in items:
        yield item, read_image(item.path)


def pictures_in(folder: Path) -> list[Path]:
    """Picture files of a folder itself, in name order."""
    return [p for p in entries(folder) if p.suffix.lower() in PICTURES]


def _is_yolo(folder: Path) -> bool:
    return (folder / "images").is_dir()


def _yolo(folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
    pictures = pictures_in(folder / "images")
    stems = {p.stem for p in pictures} | {"classes"}  # labelling tools leave a classes.txt
    items = [_yolo_item(folder, p, len(labels)) for p in pictures]
    for file in (p for p in entries(folder / "labels") if p.suffix == ".txt"):
        if file.stem not in stems:
            raise InputError(f"{file} has no picture in {folder / 'images'}", remedy="add or remove one")
    return items


def _class_folders(folder: Path, labels: Sequence[str]) -> list[LabelledPicture]:
    items = []
    if stray := pictures_in(folder):
        raise InputError(f"{stray[0]} lies in no class folder", remedy=f"classes: {', '.join(labels)}")
    for sub in (p for p in entries(folder) if p.is_dir()):
        if sub.name not in labels:
            raise InputError(
                f"folder {sub} names no class of the model", remedy=f"classes: {', '.join(labels)}"
            )
        whole, which = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([labels.index(sub.name)])
        items += [LabelledPicture(p, whole, which, sub.name) for p in pictures_in(sub)]
    return items


def _presentations(folder: Path) -> list[LabelledPicture]:
    """Bona fide pictures and attacks by species, with the faces' boxes where the folder gives them."""
    if stray := pictures_in(folder):
        raise InputError(
            f"{stray[0]} lies in no folder", remedy=f"use {BONA_FIDE}/ and one folder per species"
        )
    groups = [p for p in entries(folder) if p.is_dir()]
    if not any(p.name == BONA_FIDE for p in groups):
        raise InputError(
            f"{folder} has no folder {BONA_FIDE}", remedy=f"use {BONA_FIDE}/ and one folder per species"
        )
    boxes = _read_boxes(folder / "boxes.csv")
    items = []
    for group in groups:
        which = np.array([0 if group.name == BONA_FIDE else 1])
        for path in pictures_in(group):
            box = np.array([[0.0, 0.0, 1.0, 1.0]])
            if boxes is not None:
                key = path.relative_to(folder).as_posix()
                if key not in boxes:
                    raise InputError(f"boxes.csv in {folder} has no line for {key}", remedy="add it")
                height, width = read_image(path).shape[:2]
                box = np.array([boxes[key]]) / (width, height, width, height)
            items.append(LabelledPicture(path, box, which, group.name))
    return items


def _read_boxes(file: Path) -> dict[str, tuple[float, ...]] | None:
    """Lines ``file,x1,y1,x2,y2`` after a header; None where there is no such file."""
    if not file.exists():
        return None
    boxes: dict[str, tuple[float, ...]] = {}
    with file.open(encoding="utf-8", newline="") as f:
        for number, row in enumerate(csv.reader(f), 1):
            if number == 1 and row == ["file", "x1", "y1", "x2", "y2"]:
                continue
            try:
                name, x1, y1, x2, y2 = row[0], *(float(v) for v in row[1:])
                if not (len(row) == 5 and x1 < x2 and y1 < y2):
                    raise ValueError("not file,x1,y1,x2,y2 with x1 < x2 and y1 < y2")
            except (ValueError, IndexError) as error:
                raise InputError(f"{file} line {number}: {error}", remedy="mend the line") from error
            boxes[name] = (x1, y1, x2, y2)
    return boxes


def _yolo_item(folder: Path, picture: Path, classes: int) -> LabelledPicture:
    label_file = folder / "labels" / (picture.stem + ".txt")
    try:
        lines = label_file.read_text(encoding="utf-8").split("\n")
        rows = [[float(v) for v in line.split()] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {label_file}: {error}", remedy="write 'class cx cy w h' lines, or an empty file"
        ) from error
    well_formed = all(len(row) == 5 for row in rows)
    table = np.array(rows if well_formed else [], np.float64).reshape(-1, 5)
    if (
        not well_formed
        or not np.isin(table[:, 0], range(classes)).all()
        or not ((table[:, 1:] >= 0) & (table[:, 1:] <= 1)).all()
        or not (table[:, 3:] > 0).all()
    ):
        raise InputError(
            f"{label_file} has a line that is not 'class cx cy w h' with a class below {classes} and "
            "fractions of the picture",
            remedy="mend the file",
        )
    centre, half = table[:, 1:3], table[:, 3:5] / 2
    return LabelledPicture(
        picture, np.concatenate((centre - half, centre + half), 1), table[:, 0].astype(np.int64)
    )
