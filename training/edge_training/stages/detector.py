"""Trains the whole detector on faces with expressions in scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.image import Letterbox, LetterboxSpec
from edge_training import checkpoint
from edge_training.data import augment, fer2013
from edge_training.data.portraits import HELD_OUT_EVERY, read_backgrounds, read_portraits
from edge_training.data.scenes import PAD, Scene, SceneMaker
from edge_training.losses import DetectionLoss, anchor_points, decode_boxes, flatten
from edge_training.networks import CLASSIFIERS, DETECTORS
from edge_training.reference_models import face_detector
from edge_training.stages.base import Schedule, Setting, Stage, Teacher, balanced_rows, options_of, to_float

CROP_SIDE = 96
"""Pixels of a FER2013 crop on the deployed canvas, which enlarges it by two."""


@dataclass(frozen=True)
class DetectorOptions:
    """Keys of a ``kind = "detector"`` stage.

    An epoch is ``crops`` full-frame faces, nine on a sheet of the deployed size, and ``scenes`` composed pictures.
    """

    epochs: int
    crops: int
    scenes: int
    sheets: int = 8
    """Sheets of crops per batch."""
    scene_sides: tuple[int, ...] | list[int] = (192, 256, 320)
    scene_pixels: int = 1_000_000
    """Pixels per batch of scenes: the larger the canvas, the fewer scenes."""
    lr: float = 2e-3
    backbone_lr: float = 0.3
    """Factor of the backbone's learning rate: it already knows expressions, the rest starts from random weights."""
    weight_decay: float = 0.05
    ema: float = 0.998
    expression_gain: float = 0.0
    distil: float = 0.0
    """Share of the teacher's probabilities in a crop's target; the rest is its label. Portraits have no label."""
    balance: float = 0.3
    input_side: int = 320
    """Side of the canvas in validation and of sheets, pixels: the deployed one."""
    max_scale: float = 2.0


class DetectorStage:
    """Trains the whole detector on faces with expressions in scenes."""

    name = "detector"
    best_by = "map50"

    def __init__(
        self,
        options: DetectorOptions,
        network: str,
        data: fer2013.Fer2013,
        folder: Path,
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.options, self.name_of_network, self.data, self.seed = options, network, data, seed
        self.teacher = teacher
        self.schedule = Schedule(
            options.epochs,
            options.lr,
            options.weight_decay,
            warmup_epochs=1.0,
            ema=options.ema,
        )
        self.backgrounds = read_backgrounds(folder / "backgrounds")
        self.portraits = read_portraits(folder / "faces", face_detector(folder))
        self.loss_of = DetectionLoss(expression_gain=options.expression_gain)
        self._maker: SceneMaker | None = None

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        """A detector on the backbone of the classifier before it, which is the teacher if the recipe has none."""
        torch.manual_seed(self.seed)
        network = DETECTORS[self.name_of_network](len(fer2013.LABELS))
        faces = self.data.training
        if previous is None:
            return network
        network.backbone.load_state_dict(checkpoint.under(previous, "backbone"))
        if (teacher := self.teacher) is None:
            classifier = CLASSIFIERS[self.name_of_network](0.0)
            classifier.load_state_dict(previous)
            teacher = Teacher((classifier, CROP_SIDE))
        targets = teacher.soft_targets(faces, self.options.distil) if self.options.distil else faces.targets()
        portraits = [p for i, p in enumerate(self.portraits) if i % HELD_OUT_EVERY]
        # Teachers were trained on grey crops.
        heads = [_cut(p.image, p.box) for p in portraits]
        grey = [cv2.cvtColor(head, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False) for head in heads]
        self._maker = SceneMaker(
            faces.images,
            targets,
            [b for i, b in enumerate(self.backgrounds) if i % HELD_OUT_EVERY],
            portraits,
            teacher(grey),
        )
        return network

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        if self._maker is None:
            # Nothing was trained before that could say what the portraits express.
            faces = self.data.training
            self._maker = SceneMaker(faces.images, faces.targets(), self.backgrounds)
        return _DetectorBatches(self.options, self._maker, self.data.training.labels, (self.seed, 1, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        images, faces, classes, present = batch
        with torch.autocast(images.device.type, torch.bfloat16):
            maps = network(to_float(images))
        return self.loss_of(maps, faces, classes, present)

    def lr_factor(self, parameter: str) -> float:
        return self.options.backbone_lr if parameter.startswith("backbone.") else 1.0

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Full-frame protocol on every fifth PublicTest row, with one detection per class and picture.

        A quick approximation of the metric, to choose an epoch by; the card's figures come from ``edge-sdk evaluate``.
        """
        faces = self.data.public_test[np.arange(0, len(self.data.public_test), 5)]
        side = self.options.input_side
        box = Letterbox(side_x=side, side_y=side, spec=LetterboxSpec(PAD, self.options.max_scale))
        device = next(network.parameters()).device
        scores, hits = [], []
        for start in range(0, len(faces), 32):
            pictures = []
            for face in faces.images[start : start + 32]:
                place = box(augment.three_channels(face))
                pictures.append(box.canvas[0].copy())
            true = torch.from_numpy(place.to_canvas(np.array([[0, 0, 48, 48]], np.float32)))
            with torch.autocast(device.type, torch.bfloat16):
                sides, logits = network(to_float(torch.from_numpy(np.stack(pictures)).to(device)))
            points, strides = anchor_points([(m.shape[2], m.shape[3]) for m in sides], device)
            boxes = decode_boxes(flatten(sides), points, strides)
            best = flatten(logits).sigmoid().max(1)
            chosen = boxes.gather(1, best.indices[..., None].expand(-1, -1, 4)).cpu()
            scores.append(best.values.cpu().numpy())
            hits.append((_iou_with(chosen, true[0]) >= 0.5).numpy())
        score, hit = np.concatenate(scores), np.concatenate(hits)
        answer = score.argmax(1)
        rows = np.arange(len(answer))
        right = (answer == faces.labels) & hit[rows, answer]
        ap = []
        for c in range(len(fer2013.LABELS)):
            positive = (faces.labels == c) & hit[:, c]
            # Rows whose box missed can never be found again: they bound the recall.
            reach = hit[faces.labels == c, c].mean()
            ap.append(average_precision_score(positive, score[:, c]) * reach if reach else 0.0)
        found = hit[rows, answer].mean()
        return {"map50": float(np.mean(ap)), "accuracy": float(right.mean()), "found": float(found)}


class _DetectorBatches(Dataset[tuple[Tensor, ...]]):
    def __init__(
        self,
        options: DetectorOptions,
        maker: SceneMaker,
        labels: npt.NDArray[np.int64],
        key: tuple[int, ...],
    ) -> None:
        self.options, self.maker, self.key = options, maker, key
        rng = np.random.default_rng(key)
        self.rows = balanced_rows(labels, options.balance, rng)
        plan: list[int] = [0] * (options.crops // (9 * options.sheets))  # 0: sheets of crops
        left = options.scenes
        while left > 0:
            side = int(rng.choice(options.scene_sides))
            plan.append(side)
            left -= self._scenes_at(side)
        self.plan = rng.permutation(plan)

    def _scenes_at(self, side: int) -> int:
        return max(2, self.options.scene_pixels // (side * side))

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((*self.key, index))
        side = int(self.plan[index])
        if side == 0:
            scenes = [self._sheet(rng) for _ in range(self.options.sheets)]
        else:
            scenes = [self._scene(side, rng) for _ in range(self._scenes_at(side))]
        return collate(scenes)

    def _sheet(self, rng: np.random.Generator) -> Scene:
        rows = rng.choice(self.rows, int(rng.integers(5, 10))).tolist()
        return self.maker.sheet(rows, self.options.input_side, rng)

    def _scene(self, side: int, rng: np.random.Generator) -> Scene:
        if rng.random() < 0.15:
            return self.maker.full_frame(int(rng.choice(self.rows)), side, rng, smallest=64)
        count = int(rng.integers(0, 8))
        return self.maker.scene(rng.choice(self.rows, count).tolist(), side, rng)


def collate(scenes: list[Scene]) -> tuple[Tensor, ...]:
    """Stack scenes of one size.

    Returns:
        Pictures (B, S, S, 3) uint8; boxes (B, M, 4) xyxy in pixels and classes (B, M, C) as probabilities, padded to the
        largest number of faces M; and (B, M) bool, false for padding.
    """
    most = max(1, *(len(s.boxes) for s in scenes))
    boxes = np.zeros((len(scenes), most, 4), np.float32)
    targets = np.zeros((len(scenes), most, scenes[0].targets.shape[1]), np.float32)
    present = np.zeros((len(scenes), most), bool)
    for i, scene in enumerate(scenes):
        n = len(scene.boxes)
        boxes[i, :n], targets[i, :n], present[i, :n] = scene.boxes, scene.targets, True
    images = np.stack([s.image for s in scenes])
    return tuple(torch.from_numpy(a) for a in (images, boxes, targets, present))


def _cut(image: augment.Image, box: npt.NDArray[np.float32]) -> augment.Image:
    x1, y1, x2, y2 = box
    size = max(2, round(float(x2 - x1)))
    centre = (float(x1 + x2) / 2, float(y1 + y2) / 2)
    return cv2.getRectSubPix(image, (size, size), centre).astype(np.uint8, copy=False)


def _iou_with(boxes: Tensor, one: Tensor) -> Tensor:
    low, high = torch.maximum(boxes[..., :2], one[:2]), torch.minimum(boxes[..., 2:], one[2:])
    shared = (high - low).clamp(0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).clamp(0).prod(-1) + (one[2:] - one[:2]).prod()
    return shared / (areas - shared)


def stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    """A stage of this kind.

    Args:
        table: its keys in the recipe, without ``kind``.
        setting: what the recipe's stages have in common.

    Raises:
        InputError: an unknown or missing key, contradicting values, or data that cannot be read.
    """
    options = options_of(DetectorOptions, table)
    return DetectorStage(options, setting.network, setting.faces, setting.data, setting.seed, setting.teacher)
