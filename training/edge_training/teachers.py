"""The published MiniFASNet pair as teachers: what they answer, and what their layers say on the way.

MiniFASNetV2 looks at crops of 2.7 face widths, V1SE at 4.0 (minivision-ai/Silent-Face-Anti-Spoofing, Apache-2.0).
Nothing of them is shipped: a network of ours learns their function from inputs of ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.errors import InputError

LIVE = 1
"""Index of the logit that stands for bona fide; the other two are kinds of attack."""

_STAGES = (("conv_23", 0), ("conv_3", 4), ("conv_34", 0), ("conv_4", 6), ("conv_45", 0), ("conv_5", 2))


class MiniFASTeacher(nn.Module):
    """(B, 3, 80, 80) float RGB in 0..1 to (B, 3) logits, and what its layers say.

    Three classes, of which the one at :data:`LIVE` is bona fide. The published network takes BGR of 0 to 255: channel
    order and scale are folded into its first kernel, batch norms into the kernels before them. The layout follows from
    names and shapes of the weights.

    Args:
        weights: state dict as an ``.npz`` file, of either network.

    Raises:
        InputError: no such file.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        if not weights.is_file():
            raise InputError(f"no weights at {weights}", remedy="fetch the peers' folder")
        with np.load(weights) as stored:
            w = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}
        w["conv1.conv.weight"] = w["conv1.conv.weight"].flip(1) * 255
        self.stem = nn.Sequential(_unit(w, "conv1", stride=2, pad=1), _unit(w, "conv2_dw", pad=1))
        self.blocks = nn.ModuleList()
        for name, repeats in _STAGES:
            for i in range(max(1, repeats)):
                self.blocks.append(_Block(w, f"{name}.model.{i}" if repeats else name, residual=repeats > 0))
        self.gather = nn.Sequential(_unit(w, "conv_6_sep"), _unit(w, "conv_6_dw"), nn.Flatten())
        scale, shift = _norm(w, "bn")
        self.embed = nn.Linear(512, 128)
        self.embed.weight.data = w["linear.weight"] * scale[:, None]
        self.embed.bias.data = shift
        self.prob = nn.Linear(128, 3, bias=False)
        self.prob.weight.data = w["prob.weight"]
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, the (B, 128) embedding under them, and the map after each of the 15 blocks."""
        maps, x = [], self.stem(x)
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        embedding = self.embed(self.gather(x))
        return self.prob(embedding), embedding, maps


def live_logit(logits: Tensor) -> Tensor:
    """(B, 3) to (B,): log-odds of bona fide against the two attacks together."""
    attacks = [i for i in range(logits.shape[1]) if i != LIVE]
    return logits[:, LIVE] - logits[:, attacks].logsumexp(1)


class _Block(nn.Module):
    def __init__(self, w: dict[str, Tensor], name: str, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.body = nn.Sequential(
            _unit(w, f"{name}.conv"),
            _unit(w, f"{name}.conv_dw", stride=1 if residual else 2, pad=1),
            _unit(w, f"{name}.project"),
        )
        self.squeeze: nn.Module | None = None
        if f"{name}.se_fc1.weight" in w:
            self.squeeze = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                _folded(w, f"{name}.se_fc1", f"{name}.se_bn1"),
                nn.ReLU(),
                _folded(w, f"{name}.se_fc2", f"{name}.se_bn2"),
                nn.Sigmoid(),
            )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.squeeze is not None:
            y = y * self.squeeze(y)
        return x + y if self.residual else y


def _unit(w: dict[str, Tensor], name: str, *, stride: int = 1, pad: int = 0) -> nn.Module:
    conv = _folded(w, f"{name}.conv", f"{name}.bn", stride, pad)
    slope = w.get(f"{name}.prelu.weight")
    if slope is None:
        return conv
    act = nn.PReLU(len(slope))
    act.weight.data = slope
    return nn.Sequential(conv, act)


def _folded(w: dict[str, Tensor], conv: str, norm: str, stride: int = 1, pad: int = 0) -> nn.Conv2d:
    kernel, (scale, shift) = w[f"{conv}.weight"], _norm(w, norm)
    out, per_group, side, _ = kernel.shape
    groups = out if per_group == 1 and out > 1 else 1
    made = nn.Conv2d(per_group * groups, out, side, stride, pad, groups=groups)
    made.weight.data = kernel * scale[:, None, None, None]
    made.bias.data = shift  # type: ignore[union-attr]
    return made


def _norm(w: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
    return scale, w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale
