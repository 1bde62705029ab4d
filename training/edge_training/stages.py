"""What is taught in each stage of a recipe: expressions to the backbone, then faces with expressions to the detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.errors import InputError
from edge_sdk.image import Letterbox
from edge_training.data import augment, fer2013
from edge_training.data.portraits import HELD_OUT_EVERY, UltraLight, read_backgrounds, read_portraits
from edge_training.data.scenes import PAD, Scene, SceneMaker
from edge_training.losses import DetectionLoss, anchor_points, decode_boxes, flatten
from edge_training.networks.yolo import DETECTORS, BackboneClassifier, Detector
from edge_training.train import Schedule, Stage


def stages_of(recipe: Mapping[str, Any], data: Path) -> list[Stage]:
    """The stages that a recipe names, in order.

    Raises:
        InputError: an unknown network, stage kind or key, or data that cannot be read.
    """
    if (detector := DETECTORS.get(recipe.get("network", ""))) is None:
        raise InputError(
            f"unknown network {recipe.get('network')!r}", remedy=f"known networks: {', '.join(DETECTORS)}"
        )
    faces = fer2013.read(data / "fer2013")
    seed = int(recipe.get("seed", 1))
    stages: list[Stage] = []
    for table in recipe.get("stage", []):
        options = dict(table)
        kind = options.pop("kind", None)
        if kind == "classifier":
            stages.append(ClassifierStage(_options(ClassifierOptions, options), detector, faces, seed))
        elif kind == "detector":
            stages.append(DetectorStage(_options(DetectorOptions, options), detector, faces, data, seed))
        else:
            raise InputError(f"unknown stage kind {kind!r}", remedy="use classifier or detector")
    if not stages:
        raise InputError("the recipe has no [[stage]]", remedy="add one with kind = 'classifier'")
    return stages


def _options(cls: type[Any], table: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(table) - known):
        raise InputError(
            f"unknown key {unknown[0]!r} in the recipe's stage",
            remedy=f"known keys: {', '.join(sorted(known))}",
        )
    return cls(**table)


@dataclass(frozen=True)
class ClassifierOptions:
    """Keys of a ``kind = "classifier"`` stage."""

    epochs: int
    side: int = 64
    late_side: int = 96
    """A crop's side in the last ``late_epochs`` and in validation: what the deployed canvas shows of a FER2013 face."""
    late_epochs: int = 0
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    votes_gain: float = 0.5
    """Weight of the second head's cross entropy, on FER+ votes. They teach the features and not the answer: people who
    vote say *neutral* far more often than FER2013's labels do."""
    balance: float = 0.3
    """Rows are drawn with probability proportional to (class size) ** -balance: 0 as they are, 1 evenly."""
    dropout: float = 0.2


class ClassifierStage:
    """Expressions of face crops, to the backbone with a pooled linear head."""

    name = "classifier"
    best_by = "accuracy"

    def __init__(
        self,
        options: ClassifierOptions,
        detector: Callable[[int], Detector],
        data: fer2013.Fer2013,
        seed: int,
    ) -> None:
        self.options, self.detector, self.data, self.seed = options, detector, data, seed
        self.schedule = Schedule(options.epochs, options.lr, weight_decay=options.weight_decay)

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        torch.manual_seed(self.seed)
        network = BackboneClassifier(
            self.detector(len(fer2013.LABELS)).backbone, dropout=self.options.dropout
        )
        if previous is not None:
            network.load_state_dict(previous)
        return network

    def _side(self, epoch: int) -> int:
        late = epoch >= self.options.epochs - self.options.late_epochs
        return self.options.late_side if late else self.options.side

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        return _ClassifierBatches(self.options, self._side(epoch), self.data.training, (self.seed, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        images, targets, votes = batch
        with torch.autocast(images.device.type, torch.bfloat16):
            of_label, of_votes = network(_pixels(images))
        label_loss = nn.functional.cross_entropy(of_label.float(), targets)
        # A row without votes is all zeros and adds nothing.
        votes_loss = nn.functional.cross_entropy(of_votes.float(), votes)
        value = label_loss + self.options.votes_gain * votes_loss
        return value, {"label": float(label_loss.detach()), "votes": float(votes_loss.detach())}

    def lr_factor(self, parameter: str) -> float:
        return 1.0

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        faces = self.data.public_test
        answer = _answers(network, faces.images, self._side(self.options.epochs)).argmax(1)
        return {
            "accuracy": float((answer == faces.labels).mean()),
            "uar": float(balanced_accuracy_score(faces.labels, answer)),
        }


class _ClassifierBatches(Dataset[tuple[Tensor, ...]]):
    def __init__(
        self, options: ClassifierOptions, side: int, faces: fer2013.Faces, key: tuple[int, int]
    ) -> None:
        self.options, self.side, self.faces, self.key = options, side, faces, key
        self.targets = faces.targets()
        self.rows = balanced_rows(faces.labels, options.balance, np.random.default_rng(key))

    def __len__(self) -> int:
        return len(self.faces) // self.options.batch

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((*self.key, index))
        rows = self.rows[index * self.options.batch : (index + 1) * self.options.batch]
        images = np.stack([self._picture(self.faces.images[row], rng) for row in rows])
        return tuple(torch.from_numpy(a) for a in (images, self.targets[rows], self.faces.votes[rows]))

    def _picture(self, face: augment.Image, rng: np.random.Generator) -> augment.Image:
        image = augment.light(augment.warp_face(face, self.side, rng), rng)
        if rng.random() < 0.2:
            image = augment.blur_or_shrink(image, rng)
        if rng.random() < 0.4:
            image = augment.erase(image, rng)
        return augment.colourise(image, rng) if rng.random() < 0.3 else augment.three_channels(image)


def balanced_rows(
    labels: npt.NDArray[np.int64], balance: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """As many row numbers as there are labels, rare classes drawn more often.

    With ``balance`` 0 this is a permutation: every row once.
    """
    if balance == 0:
        return rng.permutation(len(labels))
    weights = np.bincount(labels).astype(float)[labels] ** -balance
    # Systematic sampling: each row comes floor or ceil of its expected count, so no epoch misses a class by chance.
    expected = np.cumsum(weights / weights.sum() * len(labels))
    rows = np.searchsorted(expected, np.arange(len(labels)) + rng.random())
    return rng.permutation(rows.clip(max=len(labels) - 1))


def _resize(image: augment.Image, side: int) -> augment.Image:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _pixels(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float in 0..1; the memory is already channels-last."""
    return images.permute(0, 3, 1, 2).float().div(255)


@dataclass(frozen=True)
class DetectorOptions:
    """Keys of a ``kind = "detector"`` stage.

    An epoch is ``crops`` full-frame faces, nine on a sheet of the deployed size, and ``scenes`` composed pictures.
    """

    epochs: int
    crops: int
    scenes: int
    sheets: int = 8
    """In a batch."""
    scene_sides: tuple[int, ...] | list[int] = (192, 256, 320)
    scene_pixels: int = 1_000_000
    """Pixels in a batch of scenes: the batch is smaller where the canvas is larger."""
    lr: float = 2e-3
    backbone_lr: float = 0.3
    """Factor: the backbone already knows expressions, the rest starts from nothing."""
    weight_decay: float = 0.05
    ema: float = 0.998
    expression_gain: float = 0.0
    distil: float = 0.0
    """Share of the classifier's answer in a crop's target; the rest is its label."""
    teacher_side: int = 96
    """The size at which the classifier sees a crop or a portrait's face."""
    balance: float = 0.3
    input_side: int = 320
    """Canvas of the validation, which is the deployed one."""
    max_scale: float = 2.0


class DetectorStage:
    """Faces with expressions in scenes, to the whole detector."""

    name = "detector"
    best_by = "map50"

    def __init__(
        self,
        options: DetectorOptions,
        detector: Callable[[int], Detector],
        data: fer2013.Fer2013,
        folder: Path,
        seed: int,
    ) -> None:
        self.options, self.detector, self.data, self.seed = options, detector, data, seed
        self.schedule = Schedule(
            options.epochs,
            options.lr,
            options.weight_decay,
            warmup_epochs=1.0,
            ema=options.ema,
        )
        self.backgrounds = read_backgrounds(folder / "backgrounds")
        peer = UltraLight(folder / "peers/ultralight_face/version-RFB-640.onnx")
        self.portraits = read_portraits(folder / "faces", peer)
        self.loss_of = DetectionLoss(expression_gain=options.expression_gain)
        self._maker: SceneMaker | None = None

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        """A detector on the classifier's backbone; the classifier also teaches what its faces express."""
        torch.manual_seed(self.seed)
        network = self.detector(len(fer2013.LABELS))
        faces = self.data.training
        if previous is None:
            self._maker = SceneMaker(faces.images, faces.targets(), self.backgrounds)
            return network
        teacher = BackboneClassifier(self.detector(len(fer2013.LABELS)).backbone)
        teacher.load_state_dict(previous)
        network.backbone.load_state_dict(teacher.backbone.state_dict())
        share, side = self.options.distil, self.options.teacher_side
        targets = faces.targets()
        if share:
            taught = _expressions(teacher, faces.images, side)
            targets = ((1 - share) * targets + share * taught).astype(np.float32)
        portraits = [p for i, p in enumerate(self.portraits) if i % HELD_OUT_EVERY]
        # The classifier was taught on grey crops.
        heads = [_cut(p.image, p.box) for p in portraits]
        grey = [cv2.cvtColor(head, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False) for head in heads]
        self._maker = SceneMaker(
            faces.images,
            targets,
            [b for i, b in enumerate(self.backgrounds) if i % HELD_OUT_EVERY],
            portraits,
            _expressions(teacher, grey, side),
        )
        return network

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        assert self._maker is not None, "network() comes first"
        return _DetectorBatches(self.options, self._maker, self.data.training.labels, (self.seed, 1, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        images, faces, classes, present = batch
        with torch.autocast(images.device.type, torch.bfloat16):
            maps = network(_pixels(images))
        return self.loss_of(maps, faces, classes, present)

    def lr_factor(self, parameter: str) -> float:
        return self.options.backbone_lr if parameter.startswith("backbone.") else 1.0

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Full-frame protocol on every fifth PublicTest row, one detection a class and picture.

        A quick stand-in for the real metric, to choose an epoch by; the card's figures come from ``evaluate``.
        """
        faces = self.data.public_test[np.arange(0, len(self.data.public_test), 5)]
        side = self.options.input_side
        box = Letterbox(side_x=side, side_y=side, pad=PAD, max_scale=self.options.max_scale)
        device = next(network.parameters()).device
        scores, hits = [], []
        for start in range(0, len(faces), 32):
            pictures = []
            for face in faces.images[start : start + 32]:
                canvas, place = box(augment.three_channels(face))
                pictures.append(canvas[0].copy())
            true = torch.from_numpy(place.to_canvas(np.array([[0, 0, 48, 48]], np.float32)))
            with torch.autocast(device.type, torch.bfloat16):
                sides, logits = network(_pixels(torch.from_numpy(np.stack(pictures)).to(device)))
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
    """Pictures (B, S, S, 3) uint8, boxes (B, M, 4), classes (B, M, C) and which of them are there (B, M)."""
    most = max(1, *(len(s.boxes) for s in scenes))
    boxes = np.zeros((len(scenes), most, 4), np.float32)
    targets = np.zeros((len(scenes), most, scenes[0].targets.shape[1]), np.float32)
    present = np.zeros((len(scenes), most), bool)
    for i, scene in enumerate(scenes):
        n = len(scene.boxes)
        boxes[i, :n], targets[i, :n], present[i, :n] = scene.boxes, scene.targets, True
    images = np.stack([s.image for s in scenes])
    return tuple(torch.from_numpy(a) for a in (images, boxes, targets, present))


@torch.inference_mode()
def _answers(network: nn.Module, crops: Iterable[augment.Image], side: int) -> npt.NDArray[np.float32]:
    """(N, 7) logits of a classifier for grey crops, each resized to ``side``."""
    network.eval()
    device = next(network.parameters()).device
    pictures_of_all = [augment.three_channels(_resize(c, side)) for c in crops]
    logits = []
    for start in range(0, len(pictures_of_all), 256):
        pictures = pictures_of_all[start : start + 256]
        with torch.autocast(device.type, torch.bfloat16):
            logits.append(network(_pixels(torch.from_numpy(np.stack(pictures)).to(device)))[0].float().cpu())
    return torch.cat(logits).numpy()


def _expressions(teacher: nn.Module, crops: Iterable[augment.Image], side: int) -> npt.NDArray[np.float32]:
    """(N, 7) the teacher's distribution for each grey crop and its mirror image."""
    mirrored = [np.ascontiguousarray(c[:, ::-1]) for c in crops]
    logits = (_answers(teacher, crops, side) + _answers(teacher, mirrored, side)) / 2
    return torch.from_numpy(logits).softmax(1).numpy()


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
