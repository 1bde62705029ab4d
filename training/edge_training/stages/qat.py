"""A trained network for int8: it computes with fake quantization, and its float self says what it should answer.

No labels: what is lost in int8 is what differs from float, and that can be asked of any picture and any network. The
loss is what the search for mixed precision calls noise: the error's power relative to the output's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.errors import InputError
from edge_sdk.spec import ModelSpec
from edge_training.export import PixelsIn, fuse
from edge_training.qat import FakeQuantized
from edge_training.train import Schedule

Batches = Dataset[tuple[Tensor, ...]]
UNSEEN = 1_000_000
"""An epoch that no training reaches: its pictures are changed in ways that training has not seen."""
PROBES = 4
"""Batches that ranges come from, and as many that validation looks at."""


@dataclass(frozen=True)
class QatOptions:
    """Keys of a ``kind = "qat"`` stage, besides ``model``, a zoo name, and ``pictures``, the table of the stage whose
    pictures are shown.
    """

    epochs: int
    steps: int | None = None
    """Of an epoch; None takes all that the pictures' stage has."""
    lr: float = 1e-4
    weight_decay: float = 0.0
    workers: int = 1


class QatStage:
    """Fine-tunes a network's weights for int8.

    Args:
        options: of the stage.
        network: untrained, as it is deployed.
        spec: of it.
        pictures: from an epoch to its batches; every (B, H, W, 3) uint8 tensor of a batch is shown.
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
        self._teacher = PixelsIn(fuse(copy.deepcopy(trained).eval())).eval().requires_grad_(False)
        network = FakeQuantized(trained, self.spec)
        batches = self.batches(0)
        with torch.no_grad():
            for index in range(min(PROBES, len(batches))):  # type: ignore[arg-type]  # it has a length
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
        """Power of the error relative to the output's, averaged over the outputs."""
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
        count = min(PROBES, len(batches))  # type: ignore[arg-type]  # it has a length
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
