"""What a stage of a training is, and what stages share: sampling, pixels to tensors, and teachers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.errors import InputError
from edge_training.data import augment, fer2013, own_faces


@dataclass(frozen=True)
class Schedule:
    """How long a stage trains and at which learning rate: linear warm-up, then cosine decay to a hundredth.

    Attributes:
        epochs: number of epochs.
        lr: learning rate at the end of the warm-up.
        weight_decay: for kernels and matrices; biases and norms have none.
        warmup_epochs: length of the warm-up, in epochs.
        ema: decay per step of the exponential moving average of the weights, which is what is validated and kept.
        clip_norm: largest norm of a step's gradient; longer ones are scaled down to it.
        workers: processes that prepare batches beside the training process; 0 prepares them in it. More than one
            takes cores away from the gradient steps.
    """

    epochs: int
    lr: float
    weight_decay: float = 0.05
    warmup_epochs: float = 2.0
    ema: float = 0.999
    clip_norm: float = 10.0
    workers: int = 1

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        warmup = max(1.0, self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        progress = (step - warmup) / max(1.0, self.epochs * steps_per_epoch - warmup)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Stage(Protocol):
    """One part of a training: a network, its batches, its loss and its validation. The loop is ``train.fit``.

    Attributes:
        name: its files in the work folder are named after it.
        schedule: epochs and learning rates.
        best_by: validation figure that chooses the weights to keep; greater is better.
    """

    name: str
    schedule: Schedule
    best_by: str

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        """Make the network to train. Called once, before ``batches``.

        Args:
            previous: best weights of the stage before, or the ones that ``--start`` names; None if there are neither.
        """
        ...

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        """The batches of an epoch; batch i depends on the seed, the epoch and i alone, so that runs can be resumed."""
        ...

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise, and its parts by name for the log."""
        ...

    def lr_factor(self, parameter: str) -> float:
        """Factor of the learning rate for the parameter of this name."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures of the averaged weights on the validation split, by name."""
        ...


def balanced_rows(
    labels: npt.NDArray[np.int64], balance: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw the rows of an epoch, those of rare classes more often.

    Args:
        labels: (N,) class of every row.
        balance: a row is drawn with probability proportional to (rows of its class) ** -balance: 0 draws every row
            once, 1 every class equally often.
        rng: where the draws come from.

    Returns:
        (N,) row numbers in random order.
    """
    if balance == 0:
        return rng.permutation(len(labels))
    weights = np.bincount(labels).astype(float)[labels] ** -balance
    # Systematic sampling: each row comes floor or ceil of its expected count, so no epoch misses a class by chance.
    expected = np.cumsum(weights / weights.sum() * len(labels))
    rows = np.searchsorted(expected, np.arange(len(labels)) + rng.random())
    return rng.permutation(rows.clip(max=len(labels) - 1))


def resize(image: augment.Image, side: int) -> augment.Image:
    """A square picture with sides of ``side`` pixels, bilinear."""
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def to_float(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float in 0..1; the memory is already channels-last."""
    return images.permute(0, 3, 1, 2).float().div(255)


@torch.inference_mode()
def logits_of(network: nn.Module, crops: Iterable[augment.Image], side: int) -> npt.NDArray[np.float32]:
    """(N, 7) logits of a classifier for grey (H, W) uint8 crops, each resized to ``side`` pixels."""
    network.eval()
    device = next(network.parameters()).device
    everything = [augment.three_channels(resize(c, side)) for c in crops]
    logits = []
    for start in range(0, len(everything), 256):
        pictures = everything[start : start + 256]
        with torch.autocast(device.type, torch.bfloat16):
            logits.append(network(to_float(torch.from_numpy(np.stack(pictures)).to(device)))[0].float().cpu())
    return torch.cat(logits).numpy()


def mirror(images: Tensor) -> Tensor:
    """(B, 3, H, W) pictures with left and right exchanged; channels-last like what it takes."""
    return images.flip(3).contiguous(memory_format=torch.channels_last)


class Teacher:
    """An ensemble of trained classifiers whose outputs a student is trained on (distillation).

    Its logits are the mean of its members' logits for a crop and for the crop's mirror image.

    Args:
        *members: each a classifier (two outputs: logits of FER2013's label and of the FER+ votes) and the side in
            pixels of the square crops that it takes.
    """

    def __init__(self, *members: tuple[nn.Module, int]) -> None:
        self.members = members
        for network, _ in members:
            network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, crops: Sequence[augment.Image]) -> npt.NDArray[np.float32]:
        """(N, 7) probabilities for grey (H, W) uint8 crops."""
        mirrored = [np.ascontiguousarray(c[:, ::-1]) for c in crops]
        each = [
            logits_of(network, seen, side) for network, side in self.members for seen in (crops, mirrored)
        ]
        return torch.from_numpy(np.mean(each, 0)).softmax(1).numpy()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, 7) for (B, 3, H, W) float pictures in 0..1, resized for each member to its side."""
        each = []
        for network, side in self.members:
            seen = images
            if side != images.shape[-1]:
                seen = nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
            for view in (seen, mirror(seen)):
                each.append(network.to(images.device)(view)[0].float())
        return torch.stack(each).mean(0)

    def soft_targets(self, faces: fer2013.Faces, share: float) -> npt.NDArray[np.float32]:
        """(N, 7) training targets: ``share`` times the ensemble's probabilities plus (1 - share) times the label."""
        mixture = (1 - share) * faces.targets() + share * self(list(faces.images))
        return mixture.astype(np.float32)


@dataclass(frozen=True)
class Setting:
    """What all stages of a recipe have in common.

    Attributes:
        network: name of the network that is trained.
        data: folder with the training data.
        seed: of every random draw.
        teacher: the recipe's ``[[teacher]]`` tables; None if it has none.
        own_faces: folder of labelled crops in place of FER2013 (``data.own_faces``); None for FER2013.
    """

    network: str
    data: Path
    seed: int
    teacher: Teacher | None = None
    own_faces: Path | None = None

    @cached_property
    def faces(self) -> fer2013.Fer2013:
        """The labelled face crops, read when a stage first asks for them.

        Raises:
            InputError: they cannot be read.
        """
        if self.own_faces is not None:
            return own_faces.read(self.own_faces)
        return fer2013.read(self.data / "fer2013")


Options = TypeVar("Options")


def options_of(cls: type[Options], table: Mapping[str, Any]) -> Options:
    """A stage's options from its table in the recipe.

    Args:
        cls: dataclass of the options.
        table: the stage's keys, without ``kind``.

    Raises:
        InputError: an unknown or missing key, or values that contradict each other.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    if unknown := sorted(set(table) - set(known)):
        raise InputError(
            f"unknown key {unknown[0]!r} in the recipe's stage",
            remedy=f"known keys: {', '.join(sorted(known))}",
        )
    if missing := [
        n for n, f in known.items() if f.default is f.default_factory is MISSING and n not in table
    ]:
        raise InputError(f"the recipe's stage has no {missing[0]}", remedy=f"add a line: {missing[0]} = ...")
    return cls(**table)
