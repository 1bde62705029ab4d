"""Trains GMENet on small faces; its teacher has the same architecture and sees the same faces at full size.

Attention-similarity distillation (A-SKD, arXiv 2209.14498): one minus the cosine between teacher's and student's
attention maps before their sigmoids. The paper sums over maps; here they are averaged, so that the weight does not grow
with depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.errors import InputError
from edge_training.data import augment, fer2013
from edge_training.data.augment import FACE_SIDES
from edge_training.networks.gmenet import SIDE, GMENet
from edge_training.stages.base import (
    Schedule,
    Setting,
    Stage,
    Teacher,
    logits_of,
    mirror,
    options_of,
    to_float,
)
from edge_training.stages.classifier import ClassifierBatches, ClassifierOptions


@dataclass(frozen=True)
class StudentOptions:
    """Keys of a ``kind = "student"`` stage."""

    epochs: int
    distil: Literal["none", "logit", "attention", "both"] = "attention"
    attention_gain: float = 5.0
    logit_gain: float = 1.0
    temperature: float = 2.0
    start: Literal["teacher", "scratch"] = "teacher"
    """Weights that the student begins with."""
    attention: bool = True
    """Whether the local branch has attention; false in the ablation."""
    global_branch: bool = True
    """Whether there is a global branch; false in the ablation."""
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    votes_gain: float = 0.5
    balance: float = 0.3
    dropout: float = 0.2
    strength: float = 1.0
    """Of the augmentation, as the classifier's."""
    shares: tuple[float, ...] | list[float] = (0.2,) * len(FACE_SIDES)
    """Share of the faces that are shown at each of ``FACE_SIDES``."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, before anything starts."""
        whole = self.attention and self.global_branch
        if self.start == "teacher" and not whole:
            raise InputError(
                "a student of another shape cannot start from the teacher", remedy="start = 'scratch'"
            )
        if self.distil in ("attention", "both") and not self.attention:
            raise InputError(
                "a student without attention has no maps to match", remedy="distil = 'logit' or 'none'"
            )
        for key, known in (
            ("distil", ("none", "logit", "attention", "both")),
            ("start", ("teacher", "scratch")),
        ):
            if getattr(self, key) not in known:
                raise InputError(
                    f"{key} = {getattr(self, key)!r} in the recipe's stage",
                    remedy=f"use one of {', '.join(known)}",
                )
        if (
            len(self.shares) != len(FACE_SIDES)
            or min(self.shares) < 0
            or not math.isclose(sum(self.shares), 1)
        ):
            raise InputError(
                f"shares = {list(self.shares)} in the recipe's stage",
                remedy=f"give {len(FACE_SIDES)} that sum to 1, for faces of {', '.join(map(str, FACE_SIDES))} pixels",
            )


class StudentStage:
    """Trains GMENet on faces of 12 to 48 pixels.

    The network of the stage before is the teacher of the attention maps. The teacher of the logits is an ensemble of
    that network and the recipe's ``[[teacher]]`` tables: the mean over all of them, for a crop and its
    mirror image.
    """

    name = "student"
    best_by = "accuracy"
    workers = 1

    def __init__(
        self,
        options: StudentOptions,
        data: fer2013.Fer2013,
        seed: int,
        others: Teacher | None = None,
    ) -> None:
        self.options, self.data, self.seed = options, data, seed
        self.others = others
        self.schedule = Schedule(
            options.epochs, options.lr, weight_decay=options.weight_decay, workers=self.workers
        )
        self._teacher: GMENet | None = None

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        if previous is None:
            raise InputError(
                "a student needs a teacher",
                remedy="name its weights with --start, or put a classifier stage before it",
            )
        self._teacher = GMENet()
        self._teacher.load_state_dict(previous)
        self._teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.manual_seed(self.seed)
        options = self.options
        network = GMENet(
            dropout=options.dropout, attention=options.attention, global_branch=options.global_branch
        )
        if options.start == "teacher":
            network.load_state_dict(previous)
        return network

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        return _Pairs(self.options, self.data.training, (self.seed, 2, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(network, GMENet)
        whole, small, targets, votes = batch
        options = self.options
        with torch.autocast(small.device.type, torch.bfloat16):
            of_label, of_votes, maps = network.with_attention(to_float(small))
            if options.distil != "none":
                logits, teacher_maps = self._teacher_outputs(to_float(whole))
        parts = {"label": nn.functional.cross_entropy(of_label.float(), targets)}
        value = parts["label"] + options.votes_gain * nn.functional.cross_entropy(of_votes.float(), votes)
        if options.distil in ("logit", "both"):
            parts["logit"] = logit_distance(of_label, logits, options.temperature)
            value = value + options.logit_gain * parts["logit"]
        if options.distil in ("attention", "both"):
            parts["attention"] = attention_distance(maps, teacher_maps)
            value = value + options.attention_gain * parts["attention"]
        return value, {name: float(part.detach()) for name, part in parts.items()}

    @torch.no_grad()
    def _teacher_outputs(self, whole: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The teachers' (B, 7) logits and the attention maps, for (B, 3, H, W) pictures."""
        assert self._teacher is not None, "network() comes first"
        teacher = self._teacher.to(whole.device)
        seen, _, maps = teacher.with_attention(whole)
        own = (seen.float() + teacher(mirror(whole))[0].float()) / 2
        if self.others is None:
            return own, maps
        count = len(self.others.members)
        return (own + count * self.others.logits(whole)) / (count + 1), maps

    def lr_factor(self, parameter: str) -> float:
        return 1.0

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Accuracy on PublicTest at each size, and over all sizes."""
        faces = self.data.public_test
        figures: dict[str, float] = {}
        everything = []
        for size in FACE_SIDES:
            answer = logits_of(network, (augment.degrade(f, size) for f in faces.images), SIDE).argmax(1)
            figures[f"accuracy_{size}"] = float((answer == faces.labels).mean())
            everything.append(answer)
        uar = [balanced_accuracy_score(faces.labels, answer) for answer in everything]
        return {
            **figures,
            "accuracy": float(np.mean([figures[f"accuracy_{size}"] for size in FACE_SIDES])),
            "uar": float(np.mean(uar)),
        }


def attention_distance(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Mean over maps and pictures of one minus the cosine; each map (B, ...) is flattened."""
    return torch.stack(
        [
            1 - nn.functional.cosine_similarity(s.float().flatten(1), t.float().flatten(1)).mean()
            for s, t in zip(student, teacher, strict=True)
        ]
    ).mean()


def logit_distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened answers, times the squared temperature (arXiv 1503.02531)."""
    soft = (teacher.float() / temperature).softmax(1)
    own = (student.float() / temperature).log_softmax(1)
    return nn.functional.kl_div(own, soft, reduction="batchmean") * temperature**2


class _Pairs(Dataset[tuple[Tensor, ...]]):
    """Batches of augmented crops at full size, the same crops degraded to a smaller face, targets and votes."""

    def __init__(self, options: StudentOptions, faces: fer2013.Faces, key: tuple[int, ...]) -> None:
        crops = ClassifierOptions(
            options.epochs,
            sides=(SIDE,),
            batch=options.batch,
            balance=options.balance,
            strength=options.strength,
        )
        self.whole, self.key = ClassifierBatches(crops, faces, faces.targets(), key), key
        self.shares = options.shares

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        images, targets, votes = self.whole[index]
        sizes = (
            np.random.default_rng((*self.key, index, 1))
            .choice(FACE_SIDES, len(images), p=self.shares)
            .tolist()
        )
        pairs = zip(images.numpy(), sizes, strict=True)
        small = np.stack([augment.degrade(image, size) for image, size in pairs])
        return images, torch.from_numpy(small), targets, votes


def stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    """A stage of this kind.

    Args:
        table: its keys in the recipe, without ``kind``.
        setting: what the recipe's stages have in common.

    Raises:
        InputError: an unknown or missing key, contradicting values, or data that cannot be read.
    """
    options = options_of(StudentOptions, table)
    return StudentStage(options, setting.faces, setting.seed, setting.teacher)
