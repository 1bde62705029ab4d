"""Quantization-aware training: the network computes with fake quantization and is trained to answer as in float.

The float network is its own teacher, so pictures need no labels. The loss is the power of the difference between the
two outputs, divided by the power of the float output: the inverse of the signal-to-noise ratio, by which the search for
mixed precision ranks layers too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk import zoo
from edge_sdk.errors import InputError
from edge_sdk.spec import ModelSpec
from edge_training.export import DeployedGraph, fuse
from edge_training.networks import of_model
from edge_training.qat import FakeQuantized
from edge_training.stages.base import Schedule, Setting, Stage, options_of

Batches = Dataset[tuple[Tensor, ...]]
UNSEEN = 1_000_000
"""Number of an epoch that no training reaches: validation uses its batches, which training never sees."""
RANGE_BATCHES = 4
"""Batches from which the ranges of activations are taken; validation looks at as many others."""


@dataclass(frozen=True)
class QatOptions:
    """Keys of a ``kind = "qat"`` stage.

    There are two more: ``model``, the zoo model that is fine-tuned, and ``pictures``, the table of another stage whose
    batches are shown.
    """

    epochs: int
    steps: int | None = None
    """Batches per epoch; None takes all that the pictures' stage has."""
    lr: float = 1e-4
    weight_decay: float = 0.0
    workers: int = 1


class QatStage:
    """Fine-tunes a network's weights for int8.

    Args:
        options: the stage's keys in a recipe.
        network: makes the untrained network.
        spec: names and shapes of the network's tensors.
        pictures: from an epoch's number to its batches; every (B, H, W, 3) uint8 tensor of a batch is shown.
    """

    name = "qat"
    best_by = "snr_db"

    def __init__(
        self,
        options: QatOptions,
        network: Callable[[], nn.Module],
        spec: ModelSpec,
        pictures: Callable[[int], Batches],
    ) -> None:
        self.options, self.make, self.spec, self.pictures = options, network, spec, pictures
        self.schedule = Schedule(
            options.epochs,
            options.lr,
            options.weight_decay,
            warmup_epochs=0.1,
            workers=options.workers,
        )
        self._teacher: nn.Module | None = None

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        if previous is None:
            raise InputError("qat fine-tunes a trained network", remedy="name its weights with --start")
        trained = self.make()
        trained.load_state_dict(previous)
        self._teacher = DeployedGraph(fuse(copy.deepcopy(trained).eval())).eval().requires_grad_(False)
        network = FakeQuantized(trained, self.spec)
        batches = self.batches(0)
        with torch.no_grad():
            for index in range(min(RANGE_BATCHES, len(batches))):  # type: ignore[arg-type]  # it has a length
                network(batches[index][0])
        # Weights now learn to live with these ranges: ranges that moved with them would not settle.
        network.observe(False)
        return network

    def batches(self, epoch: int) -> Batches:
        return _Batches(self.options, self.pictures(epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        value = self._noise(network, batch[0])
        return value, {"noise": float(value.detach())}

    def _noise(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """Power of the error divided by the power of the float output, averaged over the outputs."""
        assert self._teacher is not None, "network() comes first"
        with torch.no_grad():
            expected = self._teacher.to(pixels.device)(pixels)
        pairs = zip(network(pixels), expected, strict=True)
        return torch.stack([(a - e).square().mean() / e.square().mean() for a, e in pairs]).mean()

    def lr_factor(self, parameter: str) -> float:
        return 1.0

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        device = next(network.parameters()).device
        batches = self.batches(UNSEEN)
        count = min(RANGE_BATCHES, len(batches))  # type: ignore[arg-type]  # it has a length
        noises = [self._noise(network, batches[index][0].to(device)) for index in range(count)]
        return {"snr_db": float(-10 * torch.stack(noises).mean().log10())}


class _Batches(Dataset[tuple[Tensor, ...]]):
    """(B, H, W, 3) uint8 pictures."""

    def __init__(self, options: QatOptions, pictures: Batches) -> None:
        self.pictures, self.count = pictures, len(pictures)  # type: ignore[arg-type]  # it has a length
        if options.steps is not None:
            self.count = min(options.steps, self.count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return (torch.cat([t for t in self.pictures[index] if t.dtype == torch.uint8 and t.ndim == 4]),)


def stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    """A stage of this kind.

    Args:
        table: its keys in the recipe, without ``kind``.
        setting: what the recipe's stages have in common.

    Raises:
        InputError: an unknown or missing key, contradicting values, or data that cannot be read.
    """
    options = dict(table)
    model, pictures = options.pop("model", None), options.pop("pictures", None)
    if model not in zoo.NAMES:
        raise InputError(f"a qat stage with model = {model!r}", remedy=f"use one of {', '.join(zoo.NAMES)}")
    if not hasattr(pictures, "batches"):
        raise InputError(
            "a qat stage without a table of pictures",
            remedy="add [stage.pictures] with the kind and keys of a stage whose pictures it takes",
        )
    return QatStage(
        options_of(QatOptions, options), lambda: of_model(model), zoo.spec(model), pictures.batches
    )
