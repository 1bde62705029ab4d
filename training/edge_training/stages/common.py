"""What the stages share: which rows an epoch draws, pixels to tensors, and a classifier's answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_training.data import augment, fer2013


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


def resize(image: augment.Image, side: int) -> augment.Image:
    """A square picture, bilinear."""
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def pixels(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float in 0..1; the memory is already channels-last."""
    return images.permute(0, 3, 1, 2).float().div(255)


@torch.inference_mode()
def answers(network: nn.Module, crops: Iterable[augment.Image], side: int) -> npt.NDArray[np.float32]:
    """(N, 7) logits of a classifier for grey crops, each resized to ``side``."""
    network.eval()
    device = next(network.parameters()).device
    everything = [augment.three_channels(resize(c, side)) for c in crops]
    logits = []
    for start in range(0, len(everything), 256):
        pictures = everything[start : start + 256]
        with torch.autocast(device.type, torch.bfloat16):
            logits.append(network(pixels(torch.from_numpy(np.stack(pictures)).to(device)))[0].float().cpu())
    return torch.cat(logits).numpy()


def mirror(images: Tensor) -> Tensor:
    """(B, 3, H, W), left and right changed; in the same layout."""
    return images.flip(3).contiguous(memory_format=torch.channels_last)


class Teacher:
    """Trained classifiers that together say what faces express: their answer is the mean of their logits.

    Args:
        *members: networks that answer crops with logits of FER2013's label, and of the FER+ votes, each with the side
            in pixels at which it sees a crop.
    """

    def __init__(self, *members: tuple[nn.Module, int]) -> None:
        self.members = members
        for network, _ in members:
            network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, crops: Sequence[augment.Image]) -> npt.NDArray[np.float32]:
        """(N, 7) their distribution for each grey crop and its mirror image."""
        mirrored = [np.ascontiguousarray(c[:, ::-1]) for c in crops]
        each = [answers(network, seen, side) for network, side in self.members for seen in (crops, mirrored)]
        return torch.from_numpy(np.mean(each, 0)).softmax(1).numpy()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, 7) for (B, 3, H, W) pixels in 0..1 and their mirror images, each resized to the member's side."""
        each = []
        for network, side in self.members:
            seen = images
            if side != images.shape[-1]:
                seen = nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
            for view in (seen, mirror(seen)):
                each.append(network.to(images.device)(view)[0].float())
        return torch.stack(each).mean(0)

    def mixed(self, faces: fer2013.Faces, share: float) -> npt.NDArray[np.float32]:
        """(N, 7) ``share`` of their answer, the rest of the label."""
        mixture = (1 - share) * faces.targets() + share * self(list(faces.images))
        return mixture.astype(np.float32)
