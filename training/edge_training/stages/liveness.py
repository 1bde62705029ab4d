"""Trains the liveness network to tell bona fide faces from simulated attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_quantize.data import BONA_FIDE
from edge_quantize.metrics import liveness
from edge_sdk.errors import InputError
from edge_sdk.image import Image
from edge_training.data.attacks import SPECIES
from edge_training.data.presentations import presentations
from edge_training.networks.pad import SIDE, PadNet, spectrum_of
from edge_training.reference_models import minifasnet
from edge_training.stages.base import Schedule, Setting, Stage, options_of, to_float

_SHIFT = 6
"""Largest shift of a training crop, pixels."""


@dataclass(frozen=True)
class LivenessOptions:
    """Keys of a ``kind = "liveness"`` stage."""

    epochs: int
    presentations: int = 24_000
    """Training pictures to make: half of them bona fide, the others evenly of each species."""
    species: tuple[str, ...] | list[str] = SPECIES
    """Attack species to train on; the others are left out of training and validated as unseen attacks."""
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    spectrum_gain: float = 0.5
    smoothing: float = 0.05
    distil: float = 0.0
    """Share of MiniFASNetV2's score in a picture's target; the rest is the label. It was trained on real attacks, so
    its scores say which simulated picture looks more like one."""
    dev_presentations: int = 2_000
    processes: int = 2
    """Processes that make pictures."""

    def __post_init__(self) -> None:
        """Refuse species that cannot be simulated."""
        if not self.species or set(self.species) - set(SPECIES):
            raise InputError(
                f"species = {sorted(self.species)} in the recipe's stage",
                remedy=f"use some of {', '.join(SPECIES)}",
            )


class LivenessStage:
    """Trains PadNet on simulated presentations."""

    name = "liveness"
    best_by = "auc_worst"

    def __init__(self, options: LivenessOptions, folder: Path, seed: int) -> None:
        self.options, self.folder, self.seed = options, folder, seed
        self.schedule = Schedule(options.epochs, options.lr, weight_decay=options.weight_decay)
        self._train: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None = None
        self._dev: tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]] | None = None

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        torch.manual_seed(self.seed)
        network = PadNet(dropout=self.options.dropout)
        if previous is not None:
            network.load_state_dict(previous)
        options = self.options
        made = partial(
            presentations, self.folder, species=SPECIES, seed=self.seed, processes=options.processes
        )
        images, kinds = made("train", options.presentations)
        if set(options.species) != set(SPECIES):
            kept = np.isin(kinds, (BONA_FIDE, *options.species))
            images, kinds = images[kept], kinds[kept]
        self._train = images, self._targets(images, kinds == BONA_FIDE)
        self._dev = made("dev", options.dev_presentations)
        return network

    def _targets(
        self, images: npt.NDArray[np.uint8], genuine: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """(N, 2) target probabilities of bona fide and attack."""
        share, live = self.options.distil, genuine.astype(np.float64)
        if share:
            live = (1 - share) * live + share * minifasnet(self.folder)(images)
        return np.stack((live, 1 - live), 1).astype(np.float32)

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        assert self._train is not None, "network() comes first"
        return _Batches(*self._train, self.options.batch, (self.seed, 3, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        images, targets = batch
        x = to_float(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            logits, spectrum = network(x)
        decision = nn.functional.cross_entropy(
            logits.float(), targets, label_smoothing=self.options.smoothing
        )
        auxiliary = nn.functional.mse_loss(spectrum.float(), spectrum_of(x))
        value = decision + self.options.spectrum_gain * auxiliary
        return value, {"decision": float(decision.detach()), "spectrum": float(auxiliary.detach())}

    def lr_factor(self, parameter: str) -> float:
        return 1.0

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Area under the ROC curve and equal error rate of each species, on portraits that training never saw."""
        assert self._dev is not None, "network() comes first"
        images, groups = self._dev
        device = next(network.parameters()).device
        scores = []
        for start in range(0, len(images), 256):
            logits, _ = network(to_float(torch.from_numpy(images[start : start + 256]).to(device)))
            scores.append(logits.softmax(1)[:, 0].cpu().numpy())
        score = np.concatenate(scores)
        genuine = groups == BONA_FIDE
        areas, errors = {}, {}
        for name in SPECIES:
            rows = genuine | (groups == name)
            areas[f"auc_{name}"] = float(roc_auc_score(genuine[rows], score[rows]))
            curve = liveness.det(score, genuine, groups == name, np.ones(len(score)))
            errors[f"eer_{name}"] = liveness.equal_error(*curve)
        # Only species that were trained on choose the weights: an unseen one must stay unseen.
        return {**areas, **errors, "auc_worst": min(areas[f"auc_{name}"] for name in self.options.species)}


class _Batches(Dataset[tuple[Tensor, ...]]):
    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        targets: npt.NDArray[np.float32],
        batch: int,
        key: tuple[int, ...],
    ) -> None:
        self.images, self.targets, self.batch, self.key = images, targets, batch, key
        self.rows = np.random.default_rng(key).permutation(len(images))

    def __len__(self) -> int:
        return len(self.rows) // self.batch

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((*self.key, index))
        rows = self.rows[index * self.batch : (index + 1) * self.batch]
        images = np.stack([_changed(self.images[row], rng) for row in rows])
        return torch.from_numpy(images), torch.from_numpy(self.targets[rows])


def _changed(image: Image, rng: np.random.Generator) -> Image:
    """Augment a presentation without resampling it, which would remove its finest detail."""
    padded = np.pad(image, ((_SHIFT, _SHIFT), (_SHIFT, _SHIFT), (0, 0)), "reflect")
    y, x = (int(v) for v in rng.integers(0, 2 * _SHIFT + 1, 2))
    moved = padded[y : y + SIDE, x : x + SIDE]
    if rng.random() < 0.5:
        moved = moved[:, ::-1]
    out = moved.astype(np.float32)
    middle = out.mean()
    out = middle + (out - middle) * np.float32(rng.uniform(0.8, 1.2))
    out *= (rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    if rng.random() < 0.3:
        out += rng.standard_normal(out.shape, np.float32) * np.float32(rng.uniform(1, 5))
    if rng.random() < 0.3:  # no part of a picture is always there
        h, w = (int(v) for v in rng.integers(10, 41, 2))
        y, x = int(rng.integers(0, SIDE - h + 1)), int(rng.integers(0, SIDE - w + 1))
        out[y : y + h, x : x + w] = rng.uniform(0, 255)
    changed: Image = out.clip(0, 255).astype(np.uint8)
    return changed


def stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    """A stage of this kind.

    Args:
        table: its keys in the recipe, without ``kind``.
        setting: what the recipe's stages have in common.

    Raises:
        InputError: an unknown or missing key, contradicting values, or data that cannot be read.
    """
    return LivenessStage(options_of(LivenessOptions, table), setting.data, setting.seed)
