"""Whether there is a face to judge at all, to a network that has learned what its teachers say of faces.

The teachers answer bona fide or attack to anything, a wall as well. Only the head for the third answer is taught here;
what the network has learned stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_sdk.errors import InputError
from edge_sdk.image import Image
from edge_training.data.distil_inputs import Inputs
from edge_training.networks.minifas import MiniFAS
from edge_training.stages.base import Schedule, Setting, Stage, options_of, to_float
from edge_training.stages.distil import inputs_of, varied


@dataclass(frozen=True)
class JudgeableOptions:
    """Keys of a ``kind = "judgeable"`` stage."""

    epochs: int
    pool: str
    """Folder where the portraits' boxes are kept."""
    pictures: int = 12_000
    """Half of them without a face."""
    batch: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.02
    dev_pictures: int = 2_000


class JudgeableStage:
    """Faces and what is none, to MiniFAS's third answer."""

    name = "judgeable"
    best_by = "auc"

    def __init__(self, options: JudgeableOptions, folder: Path, seed: int) -> None:
        self.options, self.folder, self.seed = options, folder, seed
        self.schedule = Schedule(
            options.epochs,
            options.lr,
            weight_decay=options.weight_decay,
            warmup_epochs=0.5,
            ema=0.99,
            workers=0,
        )
        self._train: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] | None = None
        self._dev: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] | None = None

    def network(self, previous: Mapping[str, Tensor] | None) -> nn.Module:
        if previous is None:
            raise InputError(
                "a judgeable stage without a network that knows faces",
                remedy="put a distil stage before it, or give --start",
            )
        torch.manual_seed(self.seed)
        cv2.setNumThreads(1)
        network = MiniFAS()
        fresh = {name: t for name, t in network.state_dict().items() if name.startswith("strange.")}
        network.load_state_dict({**{n: t.float() for n, t in previous.items() if n not in fresh}, **fresh})
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("strange."))
        inputs = inputs_of(self.folder, Path(self.options.pool))
        self._train = pictures(inputs["train"], self.options.pictures, (self.seed, 12))
        self._dev = pictures(inputs["dev"], self.options.dev_pictures, (self.seed, 13))
        return network

    def batches(self, epoch: int) -> Dataset[tuple[Tensor, ...]]:
        assert self._train is not None, "network() comes first"
        return _Batches(*self._train, self.options.batch, (self.seed, 14, epoch))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(network, MiniFAS)
        images, strange = batch
        with torch.autocast(images.device.type, torch.bfloat16):
            with torch.no_grad():
                maps = network.maps(to_float(images))
            odds = network.strange(maps)
        value = nn.functional.binary_cross_entropy_with_logits(odds[:, 0].float(), strange)
        return value, {"strange": float(value.detach())}

    def lr_factor(self, parameter: str) -> float:
        return 1.0

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Area under the curve on portraits and photographs that training never saw, and both errors at even odds."""
        assert self._dev is not None, "network() comes first"
        images, strange = self._dev
        odds = strange_odds(network, images)
        return {
            "auc": float(roc_auc_score(strange, odds)),
            "faces_refused": float((odds[~strange] > 0).mean()),
            "strange_taken": float((odds[strange] <= 0).mean()),
        }


class _Batches(Dataset[tuple[Tensor, ...]]):
    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        strange: npt.NDArray[np.bool_],
        batch: int,
        key: tuple[int, ...],
    ) -> None:
        self.images, self.strange, self.batch, self.key = images, strange, batch, key
        self.rows = np.random.default_rng(key).permutation(len(images))

    def __len__(self) -> int:
        return len(self.rows) // self.batch

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rows = self.rows[index * self.batch : (index + 1) * self.batch]
        images = varied(self.images[rows], np.random.default_rng((*self.key, index)))
        return torch.from_numpy(images), torch.from_numpy(self.strange[rows].astype(np.float32))


def pictures(
    inputs: Inputs, count: int, key: tuple[int, ...]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Faces and what is none, in turn: (count, 80, 80, 3) uint8 crops, and (count,) whether there is no face."""
    made: list[Image] = []
    makers: tuple[Callable[[np.random.Generator], Image], ...] = (inputs.judgeable, inputs.strange)
    for i in range(count):
        made.append(makers[i % 2](np.random.default_rng((*key, i))))
    return np.stack(made), np.arange(count) % 2 == 1


@torch.inference_mode()
def strange_odds(network: nn.Module, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N,) log-odds of *not a face* that MiniFAS gives (N, 80, 80, 3) uint8 RGB crops."""
    network.eval()
    found = [
        network(to_float(torch.from_numpy(images[i : i + 256])))[1][:, 0].float()
        for i in range(0, len(images), 256)
    ]
    return torch.cat(found).numpy()


def stage(table: Mapping[str, Any], setting: Setting) -> Stage:
    """A stage of this kind.

    Args:
        table: its keys in the recipe, without ``kind``.
        setting: what the recipe's stages have in common.

    Raises:
        InputError: an unknown or missing key.
    """
    return JudgeableStage(options_of(JudgeableOptions, table), setting.data, setting.seed)
