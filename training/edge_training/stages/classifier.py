"""Trains a classifier of face crops by cross entropy: a network, or a detector's backbone with a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.errors import InputError
from edge_training.data import augment, fer2013
from edge_training.networks import CLASSIFIERS
from edge_training.stages.base import (
    Schedule,
    Setting,
    Stage,
    Teacher,
    balanced_rows,
    logits_of,
    options_of,
    to_float,
)


@dataclass(frozen=True)
class ClassifierOptions:
    """Keys of a ``kind = "classifier"`` stage."""

    epochs: int
    sides: tuple[int, ...] | list[int] = (64, 96)
    """Sides of the crops in pixels, in turn per batch. Validation uses the last: the size at which the deployed canvas
    shows a FER2013 face."""
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    votes_gain: float = 0.5
    """Weight of the second head's cross entropy, on FER+ votes. A head of their own, because
    voters say *neutral* far more often than FER2013's labels do."""
    balance: float = 0.3
    """Rows are drawn with probability proportional to (class size) ** -balance: 0 all rows alike, 1 all classes."""
    dropout: float = 0.2
    strength: float = 1.0
    """Strength of the augmentation (``data.augment.crop``). An untrained network learns faster with a low one."""
    last_strength: float | None = None
    """Strength at the end, against overfitting: it grows from the first to the second third of the epochs. None keeps
    ``strength``."""
    distil: float = 0.0
    """Share of the teacher's probabilities in a crop's target; the rest is its label."""


class ClassifierStage:
    """Trains a network, or a detector's backbone with a pooled linear head, on the expressions of face crops."""

    name = "classifier"
    best_by = "accuracy"

    def __init__(
        self,
        options: ClassifierOptions,
        network: str,
        data: fer2013.Fer2013,
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        if options.distil and teacher is None:
            raise InputError("distil without a teacher in the recipe", remedy="add a [[teacher]] table")
        self.options, self.make, self.data, self.seed = options, CLASSIFIERS[network], data, seed
        self.teacher = teacher
        self._targets = data.training.targets()
        self.schedule = Schedule(options.epochs, options.lr, weight_decay=options.weight_decay)

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        torch.manual_seed(self.seed)
        network = self.make(self.options.dropout)
        if previous is not None:
            network.load_state_dict(previous)
        if self.teacher is not None and self.options.distil:
            self._targets = self.teacher.soft_targets(self.data.training, self.options.distil)
        return network

    def _strength(self, epoch: int) -> float:
        first, last = self.options.strength, self.options.last_strength
        if last is None:
            return first
        return float(np.interp(epoch / self.options.epochs, (1 / 3, 2 / 3), (first, last)))

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        options = replace(self.options, strength=self._strength(epoch))
        return ClassifierBatches(options, self.data.training, self._targets, (self.seed, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        images, targets, votes = batch
        with torch.autocast(images.device.type, torch.bfloat16):
            of_label, of_votes = network(to_float(images))
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
        answer = logits_of(network, faces.images, self.options.sides[-1]).argmax(1)
        return {
            "accuracy": float((answer == faces.labels).mean()),
            "uar": float(balanced_accuracy_score(faces.labels, answer)),
        }


class ClassifierBatches(Dataset[tuple[Tensor, ...]]):
    """Batches of (B, side, side, 3) uint8 augmented crops, (B, 7) targets and (B, 7) votes."""

    def __init__(
        self,
        options: ClassifierOptions,
        faces: fer2013.Faces,
        targets: npt.NDArray[np.float32],
        key: tuple[int, ...],
    ) -> None:
        self.options, self.faces, self.targets, self.key = options, faces, targets, key
        self.rows = balanced_rows(faces.labels, options.balance, np.random.default_rng(key))

    def __len__(self) -> int:
        return len(self.faces) // self.options.batch

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((*self.key, index))
        rows = self.rows[index * self.options.batch : (index + 1) * self.options.batch]
        side, strength = self.options.sides[index % len(self.options.sides)], self.options.strength
        images = np.stack(
            [augment.crop(self.faces.images[row], side, rng, strength=strength) for row in rows]
        )
        return tuple(torch.from_numpy(a) for a in (images, self.targets[rows], self.faces.votes[rows]))


def stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    """A stage of this kind.

    Args:
        table: its keys in the recipe, without ``kind``.
        setting: what the recipe's stages have in common.

    Raises:
        InputError: an unknown or missing key, contradicting values, or data that cannot be read.
    """
    options = options_of(ClassifierOptions, table)
    return ClassifierStage(options, setting.network, setting.faces, setting.seed, setting.teacher)
