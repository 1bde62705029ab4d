"""How a model behaves beyond its labelled test sets: on scenes, on photographs, and with boxes that are a little off.

Each test returns Markdown for the model's card.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_quantize.data import BONA_FIDE, read_labelled
from edge_sdk import zoo
from edge_sdk.boxes import iou
from edge_sdk.image import Image, read_image
from edge_sdk.model import load
from edge_training.data import fer2013
from edge_training.data.attacks import SPECIES, Simulator
from edge_training.data.portraits import (
    HELD_OUT_EVERY,
    fer_box,
    read_backgrounds,
    read_portraits,
)
from edge_training.data.presentations import part_of
from edge_training.data.scenes import SceneMaker
from edge_training.reference_models import face_detector

CONFIDENCES = (0.01, 0.10, 0.15, 0.25)
"""Lowest scores of reported faces at which a detector is tried."""

FACE_SIZES = (16, 24, 32, 48, 96)
"""Sides in pixels of faces in scenes."""

_SCENES_PER_SIZE = 100
_FACES_PER_SCENE = 3
_JITTERS = tuple((dx, dy, grow) for dx in (-0.1, 0, 0.1) for dy in (-0.1, 0, 0.1) for grow in (-0.1, 0, 0.1))
"""Shifts right and down and growth of a box, in shares of its side."""


def faces_in_scenes(name: str, data: Path, scenes: Path, confidences: Sequence[float] = CONFIDENCES) -> str:
    """How many faces a detector finds and how many boxes hold none, by confidence; with pre- and postprocessing.

    Args:
        name: of the zoo model, whose fastest bundle for this machine is used.
        data: data folder with ``faces/``, ``backgrounds/`` and ``peers/``.
        scenes: folder of the unpacked set ``scenes``.
        confidences: scores from which on faces are reported; a row per score.
    """
    portraits = read_portraits(data / "faces", face_detector(data))[::HELD_OUT_EVERY]
    empty = read_backgrounds(data / "backgrounds")[::HELD_OUT_EVERY]
    items = read_labelled(scenes, zoo.spec(name).labels)
    lines = [
        "| confidence | scene faces found at IoU 0.5 | false boxes per scene | portraits found | "
        "face-free pictures with a box |",
        "|---|---|---|---|---|",
    ]
    for confidence in confidences:
        with load(name, confidence=confidence) as model:
            faces = hits = false_boxes = 0
            for item in items:
                image = read_image(item.path)
                height, width = image.shape[:2]
                truth = (item.boxes * (width, height, width, height)).astype(np.float32)
                good = iou(truth, model(image).boxes) >= 0.5
                faces, hits = faces + len(truth), hits + int(good.any(axis=1).sum())
                false_boxes += int((~good.any(axis=0)).sum())
            seen = [bool((iou(p.box[None], model(p.image).boxes) >= 0.5).any()) for p in portraits]
            alarms = sum(len(model(photo)) > 0 for photo in empty)
        row = f"| {confidence:.2f} | {hits / faces:.3f} | {false_boxes / len(items):.2f} | {np.mean(seen):.3f} |"
        lines.append(f"{row} {alarms} of {len(empty)} |")
    counts = f"{faces} faces in {len(items)} scenes, {len(portraits)} portraits, {len(empty)} face-free photographs"
    return "\n".join([counts, "", *lines])


def recall_by_size(name: str, data: Path, confidences: Sequence[float] = CONFIDENCES) -> str:
    """Recall at IoU 0.5 by the side of the faces, in composed 320-pixel scenes of held-out faces and backgrounds.

    Args:
        name: of the zoo model, whose fastest bundle for this machine is used.
        data: data folder with ``fer2013/`` and ``backgrounds/``.
        confidences: scores from which on faces are reported; a row per score.
    """
    faces = fer2013.read(data / "fer2013").private_test
    backgrounds = read_backgrounds(data / "backgrounds")[::HELD_OUT_EVERY]
    maker = SceneMaker(faces.images, faces.targets(smoothing=0.0), backgrounds)
    lines = [
        "| confidence | " + " | ".join(f"{size} px" for size in FACE_SIZES) + " |",
        "|---" * (len(FACE_SIZES) + 1) + "|",
    ]
    for confidence in confidences:
        cells = []
        with load(name, confidence=confidence) as model:
            for size in FACE_SIZES:
                rng = np.random.default_rng((2017, size))
                hits = total = 0
                for _ in range(_SCENES_PER_SIZE):
                    rows = rng.integers(0, len(faces), _FACES_PER_SCENE).tolist()
                    scene = maker.scene(rows, 320, rng, size=size)
                    good = iou(scene.boxes, model(scene.image).boxes) >= 0.5
                    hits, total = hits + int(good.any(axis=1).sum()), total + len(scene.boxes)
                cells.append(f"{hits / total:.3f}")
        lines.append(f"| {confidence:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def agreement_on_photographs(name: str, data: Path) -> str:
    """How many of the Ultra-Light detector's faces a detector finds on real photographs; a row per photograph.

    Args:
        name: of the zoo model, whose fastest bundle for this machine is used.
        data: data folder with ``peers/`` and ``samples/``.
    """
    samples: Any = importlib.import_module("skimage.data")
    reference = face_detector(data)
    photographs: dict[str, Image] = {"astronaut": samples.astronaut(), "cameraman": _rgb(samples.camera())}
    for path in sorted((data / "samples/pad_scenes").glob("*.jpg")):
        photographs[path.stem] = read_image(path)
    lines = ["| photograph | Ultra-Light's faces | of them found | further boxes |", "|---|---|---|---|"]
    with load(name) as model:
        for title, image in photographs.items():
            theirs = np.array([fer_box(b) for b in reference(image)], np.float32).reshape(-1, 4)
            good = iou(theirs, model(image).boxes) >= 0.5
            both, extra = int(good.any(axis=1).sum()), int((~good.any(axis=0)).sum())
            lines.append(f"| {title} | {len(theirs)} | {both} | {extra} |")
    return "\n".join(lines)


def decision_flips(name: str, data: Path, count: int = 600) -> str:
    """How often a liveness decision flips when its box is off by up to a tenth of its side, by kind of presentation.

    Args:
        name: of the zoo model, whose fastest bundle for this machine is used.
        data: data folder with ``faces/``, ``backgrounds/`` and ``peers/``.
        count: number of presentations, as many of each kind; of portraits that training never saw.
    """
    portraits = part_of(read_portraits(data / "faces", face_detector(data)), "test")
    backgrounds = part_of(read_backgrounds(data / "backgrounds"), "test")
    simulator = Simulator(portraits, backgrounds)
    kinds = (BONA_FIDE, *SPECIES)
    flips: dict[str, list[float]] = {kind: [] for kind in kinds}
    changed: dict[str, int] = dict.fromkeys(kinds, 0)
    with load(name) as model:
        for number in range(count):
            rng = np.random.default_rng((2018, number))
            kind = kinds[number % len(kinds)]
            frame, box = simulator(int(rng.integers(len(portraits))), kind, rng)
            frame = np.ascontiguousarray(frame)
            accepted = [d == "bona fide" for d in model(frame, boxes=jittered_boxes(box)).decisions]
            middle = _JITTERS.index((0, 0, 0))
            different = [a != accepted[middle] for a in accepted]
            flips[kind].append(float(np.mean(different)) * len(_JITTERS) / (len(_JITTERS) - 1))
            changed[kind] += any(different)
    lines = ["| presentation | decisions flipped | presentations with any flip | of |", "|---|---|---|---|"]
    for kind in kinds:
        lines.append(f"| {kind} | {np.mean(flips[kind]):.3f} | {changed[kind]} | {len(flips[kind])} |")
    return "\n".join(lines)


def jittered_boxes(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A (4,) box to (27, 4): itself, and moved and grown by a tenth of its side in every combination."""
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array(
        [
            (
                box[0] + (dx - grow / 2) * width,
                box[1] + (dy - grow / 2) * height,
                box[2] + (dx + grow / 2) * width,
                box[3] + (dy + grow / 2) * height,
            )
            for dx, dy, grow in _JITTERS
        ],
        np.float32,
    )


def _rgb(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
