"""A detector with a face logit, from scenes composed beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.boxes import iou
from edge_training.data import augment, fer2013, probe_scenes
from edge_training.data.landmarks import Floats
from edge_training.data.natural import NOBODY
from edge_training.data.shards import Shards, Sources, Stored
from edge_training.face_loss import FaceDetectionLoss, FaceTruth
from edge_training.networks.face_yolo import FACE_DETECTORS
from edge_training.stages.base import Schedule, Teacher, to_float
from edge_training.stages.face_decode import found_by

SIZES = (16, 24, 32, 48, 96)
"""Sides in pixels at which recall is measured after every epoch."""
EXPRESSION_SIZES = (48, 96, 200)


@dataclass(frozen=True)
class FaceDetectorOptions:
    """Keys of the stage. An epoch is ``scenes`` scenes, whole or windows of them."""

    epochs: int
    scenes: int
    sides: tuple[int, ...] | list[int] = (192, 256, 320)
    pixels: int = 1_000_000
    """In a batch: it is smaller where the canvas is larger."""
    lr: float = 2e-3
    backbone_lr: float = 0.5
    decay_epochs: int = 4
    """At the end, over which the learning rate falls to a hundredth; it is constant before."""
    weight_decay: float = 0.05
    ema: float = 0.998
    expression_gain: float = 1.0
    distil: float = 0.6
    """Share of the teacher's answer in a FER2013 face's target."""
    votes: float = 0.0
    """Share of the FER+ votes in it, where there are any; the rest is the label."""
    fresh: float = 0.0
    """Share of scenes in whose place bare crops are composed anew: cheap, and no two epochs show the same."""
    portrait_share: float = 0.5
    """How much a portrait's own expression counts, which only the teacher knows; nothing where it is unsure."""
    test_scenes: int = 24
    """Of each size, with which recall is measured after every epoch."""
    test_faces: int = 30
    """Of each class, with which expressions are."""
    confidence: float = 0.3
    """At which recall and false boxes are measured after every epoch."""


@dataclass(frozen=True)
class ConstantThenDown(Schedule):
    """Warm-up, a constant rate, and a linear fall at the end: more epochs can be added before the fall."""

    decay_epochs: int = 4

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of one step."""
        warmup = max(1.0, self.warmup_epochs * steps_per_epoch)
        left = (self.epochs * steps_per_epoch - step) / max(1, self.decay_epochs * steps_per_epoch)
        return self.lr * min(1.0, (step + 1) / warmup, max(0.01, left))


class FaceDetectorStage:
    """A detector with a face logit.

    Args:
        options: of the recipe.
        network: "yolo11n" or "yolo12n".
        sources: what the scenes were made of.
        scenes: folder with the shards.
        seed: of all draws.
        teacher: says what faces express.
    """

    name = "face-detector"
    best_by = "overall"

    def __init__(
        self,
        options: FaceDetectorOptions,
        network: str,
        sources: Sources,
        scenes: Path,
        seed: int,
        teacher: Teacher,
    ) -> None:
        self.options, self.name_of_network, self.sources = options, network, sources
        self.scenes, self.seed = scenes, seed
        self.schedule: Schedule = ConstantThenDown(
            options.epochs,
            options.lr,
            options.weight_decay,
            warmup_epochs=0.5,
            ema=options.ema,
            workers=0,
            decay_epochs=options.decay_epochs,
        )
        self.loss_of = FaceDetectionLoss(expression_gain=options.expression_gain)
        self.targets = _targets(sources.faces.training, teacher, options.distil, options.votes)
        self.portrait_targets, self.portrait_weights = _portrait_answers(
            sources, teacher, options.portrait_share
        )
        self.maker = sources.scenes("training", kept_out=False)
        self._tests = _Tests(sources, scenes=options.test_scenes, faces=options.test_faces)

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        """A network that begins as ``previous``: a detector's weights, or those of this stage."""
        torch.manual_seed(self.seed)
        network = FACE_DETECTORS[self.name_of_network](len(fer2013.LABELS))
        if previous is not None:
            if any(name.startswith("face.") for name in previous):
                network.load_state_dict(
                    {**network.state_dict(), **{k: v.float() for k, v in previous.items()}}
                )
            else:
                network.start_from(previous)
        return network

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        """All shards that are complete by now."""
        return _Batches(self, Shards(self.scenes), (self.seed, 3, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        images, *truth = batch
        with torch.autocast(images.device.type, torch.bfloat16):
            maps = network(to_float(images))
        return self.loss_of(maps, FaceTruth(*truth))

    def lr_factor(self, parameter: str) -> float:
        return self.options.backbone_lr if parameter.startswith("backbone.") else 1.0

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Recall by size, false boxes, and expressions by size, bare and in a head."""
        return self._tests(network, self.options.confidence)


def _targets(faces: fer2013.Faces, teacher: Teacher, distil: float, votes: float) -> Floats:
    """(N, 7) distributions: label, teacher's answer and votes, each by its share."""
    mixture = teacher.soft_targets(faces, distil) if distil else faces.targets()
    voted = faces.votes.sum(1) > 0
    mixture[voted] = (1 - votes) * mixture[voted] + votes * faces.votes[voted]
    return mixture


def _portrait_answers(sources: Sources, teacher: Teacher, share: float) -> tuple[Floats, Floats]:
    """What training portraits express, and how much that counts: rarer answers more, unsure ones not at all."""
    portraits = sources.portraits["training"]
    if not share:
        nothing = np.zeros((len(portraits), len(fer2013.LABELS)), np.float32)
        return nothing, nothing[:, 0]
    crops = []
    for image, box in zip(sources.portrait_images["training"], portraits.marks.box, strict=True):
        size = max(2, round(float(box[2] - box[0])))
        cut = cv2.getRectSubPix(image, (size, size), tuple(((box[:2] + box[2:]) / 2).tolist()))
        crops.append(cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False))
    answers = teacher(crops)
    weights = np.where(answers.max(1) > 0.6, share, 0.0)
    classes = answers.argmax(1)
    counts = np.bincount(classes[weights > 0], minlength=answers.shape[1]).clip(1)
    rarity = np.sqrt(counts.mean() / counts)[classes].clip(0.4, 2.0)
    return answers, (weights * rarity).astype(np.float32)


class _Batches(Dataset[tuple[Tensor, ...]]):
    def __init__(self, stage: FaceDetectorStage, shards: Shards, key: tuple[int, ...]) -> None:
        self.stage, self.shards, self.key = stage, shards, key
        options, rng = stage.options, np.random.default_rng(key)
        order = rng.permutation(len(shards))
        order = np.resize(order, options.scenes)
        sides = np.array(options.sides)
        drawn = rng.choice(sides, len(order))
        # A large face would be cut by a window.
        drawn = np.where(shards.largest[order] > 0.7 * drawn, sides.max(), drawn)
        plan: list[tuple[int, npt.NDArray[np.intp]]] = []
        for side in sides.tolist():
            of_side = order[drawn == side]
            each = max(2, options.pixels // side**2)
            plan += [(side, of_side[i : i + each]) for i in range(0, len(of_side), each)]
        self.plan = [plan[i] for i in rng.permutation(len(plan))]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if index >= len(self.plan):
            raise IndexError(index)
        side, rows = self.plan[index]
        rng = np.random.default_rng((*self.key, index))
        scenes = []
        for row in rows.tolist():
            if rng.random() < self.stage.options.fresh:
                scenes.append(self._fresh(side, rng))
            else:
                scenes.append(_changed(self.shards[row], side, rng))
        return self._collate(scenes)

    def _fresh(self, side: int, rng: np.random.Generator) -> Stored:
        size = float(np.exp(rng.uniform(np.log(40), np.log(side))))
        scene = self.stage.maker.bare(size, side, rng)
        return Stored(
            scene.image,
            np.array(scene.boxes, np.float32).reshape(-1, 4),
            np.array(scene.rows, np.int64),
            np.array(scene.portraits, np.int64),
            np.array(scene.shown, np.float32),
            np.array(scene.ignored, bool),
        )

    def _collate(self, scenes: list[Stored]) -> tuple[Tensor, ...]:
        stage = self.stage
        most, count = max(1, *(len(s.boxes) for s in scenes)), len(scenes)
        boxes = np.zeros((count, most, 4), np.float32)
        present, ignored = np.zeros((count, most), bool), np.zeros((count, most), bool)
        expressions = np.zeros((count, most, stage.targets.shape[1]), np.float32)
        weights = np.zeros((count, most), np.float32)
        for i, s in enumerate(scenes):
            n = len(s.boxes)
            boxes[i, :n], ignored[i, :n], present[i, :n] = s.boxes, s.ignored, ~s.ignored
            labelled, known = s.rows != NOBODY, s.portraits != NOBODY
            own = known & ~labelled
            expressions[i, :n][labelled] = stage.targets[s.rows[labelled]]
            expressions[i, :n][own] = stage.portrait_targets[s.portraits[own]]
            weights[i, :n][labelled] = 1
            weights[i, :n][own] = stage.portrait_weights[s.portraits[own]]
            # A crowd's many small faces do not outweigh one large face.
            weights[i, :n] *= s.shown * ~s.ignored * min(1.0, 5 / max(1, n))
        images = np.stack([s.image for s in scenes])
        return tuple(torch.from_numpy(a) for a in (images, boxes, present, ignored, expressions, weights))


def _changed(scene: Stored, side: int, rng: np.random.Generator) -> Stored:
    """A window of a scene at a canvas side, mirrored and lit at random."""
    image, boxes, whole = scene.image, scene.boxes.copy(), scene.image.shape[0]
    ignored, keep = scene.ignored.copy(), np.ones(len(boxes), bool)
    if side < whole:
        # Mostly at its own scale, so that sizes stay what they were drawn to be.
        window = side if rng.random() < 0.7 else int(rng.integers(side, whole + 1))
        x, y = (int(v) for v in rng.integers(0, whole - window + 1, 2))
        image = image[y : y + window, x : x + window]
        if window > side:
            image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        before = boxes.copy()
        boxes = (boxes - np.array([x, y, x, y], np.float32)).clip(0, window)
        seen = (boxes[:, 2:] - boxes[:, :2]).prod(1) / (before[:, 2:] - before[:, :2]).prod(1).clip(1e-6)
        keep = seen > 0.15
        ignored |= seen < 0.6
        boxes *= np.float32(side / window)
        ignored |= (boxes[:, 2:] - boxes[:, :2]).min(1, initial=side) < 8
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes = np.stack((side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]), 1)
    image = np.ascontiguousarray(image)
    if rng.random() < 0.5:
        image = augment.light(image, rng, strength=0.5)
    return Stored(
        image,
        boxes[keep].astype(np.float32),
        scene.rows[keep],
        scene.portraits[keep],
        scene.shown[keep],
        ignored[keep],
    )


class _Tests:
    """Kept-out heads and photographs with PublicTest's faces; composed once, small enough for every epoch."""

    def __init__(self, sources: Sources, *, scenes: int, faces: int) -> None:
        maker = sources.scenes("public_test", kept_out=True)
        self.asked = {
            size: [
                probe_scenes.of_size(maker, size, np.random.default_rng((7, size, i))) for i in range(scenes)
            ]
            for size in SIZES
        }
        rng = np.random.default_rng((7, 0))
        self.empty = [maker.empty(probe_scenes.SIDE, rng).image for _ in range(60)]
        self.rows = probe_scenes.marked_rows(maker, sources.faces.public_test.labels, faces)
        self.labels = sources.faces.public_test.labels[self.rows]
        self.singles: dict[str, tuple[list[augment.Image], Floats]] = {}
        for size in EXPRESSION_SIZES:
            side = 160 if size < 120 else probe_scenes.SIDE
            for in_head in (False, True):
                made = [
                    probe_scenes.one_face(maker, row, size, in_head=in_head, side=side, colour=in_head)
                    for row in self.rows
                ]
                title = f"{'head' if in_head else 'bare'}{size}"
                self.singles[title] = [image for image, _ in made], np.stack([box for _, box in made])

    def __call__(self, network: nn.Module, confidence: float) -> dict[str, float]:
        figures: dict[str, float] = {}
        made_up = scenes = 0
        for size, asked in self.asked.items():
            hits = total = 0
            for one, found in zip(
                asked, found_by(network, [a.image for a in asked], confidence), strict=True
            ):
                good = iou(one.boxes, found.boxes) >= 0.5
                hits, total = hits + int(good.any(1).sum()), total + len(one.boxes)
                right = good.any(0) | (iou(one.others, found.boxes) >= 0.3).any(0)
                made_up, scenes = made_up + int((~right).sum()), scenes + 1
            figures[f"recall{size}"] = hits / max(1, total)
        figures["false"] = made_up / scenes
        figures["alarms"] = float(
            np.mean([len(f.boxes) > 0 for f in found_by(network, self.empty, confidence)])
        )
        for title, (images, boxes) in self.singles.items():
            answers = [
                _answer(f.boxes, f.probs, box)
                for f, box in zip(found_by(network, images, 0.05), boxes, strict=True)
            ]
            figures[title] = float(np.mean(np.array(answers) == self.labels))
        named = [figures[title] for title in self.singles]
        recalls = [figures[f"recall{size}"] for size in SIZES]
        figures["overall"] = float(np.mean(recalls) + np.mean(named))
        return figures


def _answer(boxes: Floats, probs: Floats, truth: Floats) -> int:
    """The class of the best box on a face; -1 where there is none."""
    good = np.flatnonzero(iou(truth[None], boxes)[0] >= 0.5)
    return int(probs[good[0]].argmax()) if len(good) else -1
