"""MiniFASNet's layout with ReLU: a network that can learn the published one's function layer by layer.

The map after every block has the shape of the published network's (minivision-ai/Silent-Face-Anti-Spoofing), so that
each block can be taught by itself. Ours: ReLU instead of PReLU, which made every engine slow. The published slopes are
near zero but in the first layer, which is twice as wide here; widths inside blocks are multiples of 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edge_training.networks.gmenet import ConvBN
from edge_training.networks.pad import SIDE

LAYOUT = (
    (64, 64, 128, 2),
    *((64, 64, 64, 1) for _ in range(4)),
    (64, 128, 256, 2),
    (128, 128, 256, 1),
    (128, 128, 96, 1),
    (128, 128, 64, 1),
    (128, 128, 96, 1),
    (128, 128, 64, 1),
    (128, 128, 64, 1),
    (128, 128, 320, 2),
    *((128, 128, 64, 1) for _ in range(2)),
)
"""Of every block: channels in, out and inside, and the stride."""


class FixedNorm(ConvBN):
    """Convolution and a batch norm whose statistics are set once, by :meth:`fit`, and never follow a batch.

    A function is to be met, not a class found: noise from the batch would only stand in the way, and folded into its
    kernel the norm costs nothing in training either.
    """

    def __init__(
        self, c_in: int, c_out: int, k: int = 1, s: int = 1, *, groups: int = 1, pad: bool = True
    ) -> None:
        super().__init__(c_in, c_out, k, s, groups=groups)
        self.groups, self.stride, self.padding = groups, s, k // 2 if pad else 0
        if not pad:
            self[0] = nn.Conv2d(c_in, c_out, k, s, 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self[0], self[1]
        if not isinstance(norm, nn.BatchNorm2d):  # folded for export
            found: Tensor = conv(x)
            return found
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        kernel = conv.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        if self.training and self.stride == 2 and self.groups > 1:
            # The backward pass of strided depthwise convolutions is slow on a processor.
            return nn.functional.conv2d(x, kernel, bias, 1, self.padding, groups=self.groups)[..., ::2, ::2]
        return nn.functional.conv2d(x, kernel, bias, self.stride, self.padding, groups=self.groups)

    @torch.no_grad()
    def fit(self, x: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Set the statistics to those of a batch, and the output's to those of what is wanted; returns the output."""
        conv, norm = self[0], self[1]
        raw = conv(x)
        norm.running_mean.copy_(raw.mean((0, 2, 3)))
        norm.running_var.copy_(raw.var((0, 2, 3)) + 1e-4)
        if wanted is not None:
            norm.weight.copy_(wanted.std((0, 2, 3)) * 0.5)
            norm.bias.copy_(wanted.mean((0, 2, 3)))
        return self(x)


class Block(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down; a residual where nothing changes its shape."""

    def __init__(self, c_in: int, c_out: int, hidden: int, stride: int) -> None:
        super().__init__()
        self.up = FixedNorm(c_in, hidden)
        self.deep = FixedNorm(hidden, hidden, 3, stride, groups=hidden)
        self.down = FixedNorm(hidden, c_out)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.deep(self.up(x).relu()).relu())
        return x + y if self.residual else y

    def fit(self, x: Tensor, wanted: Tensor) -> None:
        """Set the norms' statistics for what comes in and what is to come out."""
        y = self.deep.fit(self.up.fit(x).relu()).relu()
        self.down.fit(y, wanted - x if self.residual else wanted)


class MiniFAS(nn.Module):
    """(B, 3, 80, 80) float RGB in 0..1 to (B, 2) logits, bona fide first, and (B, 128), the embedding under them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            FixedNorm(3, 64, 3, 2), nn.ReLU(), FixedNorm(64, 64, 3, groups=64), nn.ReLU()
        )
        self.blocks = nn.ModuleList(Block(*row) for row in LAYOUT)
        self.separate = FixedNorm(128, 512)
        self.gather = FixedNorm(512, 512, SIDE // 16, groups=512, pad=False)
        self.embed = FixedNorm(512, 128)
        self.classes = nn.Linear(128, 3)
        """The first teacher's logits; only for training."""
        self.wide = nn.Linear(128, 3)
        """The second teacher's, which sees more of the scene; only for training."""
        self.decide = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embedding(self.maps(x)[-1])
        return self.decide(embedding), embedding

    def embedding(self, last: Tensor) -> Tensor:
        """(B, 128) of the last block's map."""
        found: Tensor = self.embed(self.gather(self.separate(last).relu())).flatten(1)
        return found

    def maps(self, x: Tensor) -> list[Tensor]:
        """The map after every block, each from the one before."""
        found = []
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found

    def maps_after(self, x: Tensor, taught: Sequence[Tensor]) -> list[Tensor]:
        """The map after every block, each from the teacher's map before it."""
        before = [self.stem(x), *taught[:-1]]
        return [block(y) for block, y in zip(self.blocks, before, strict=True)]

    @torch.no_grad()
    def fit(self, x: Tensor, taught: Sequence[Tensor], embedding: Tensor) -> None:
        """Set all norms' statistics from a batch and what the teacher's layers say of it."""
        first, second = self.stem[0], self.stem[2]
        assert isinstance(first, FixedNorm)
        assert isinstance(second, FixedNorm)
        before = [second.fit(first.fit(x).relu()).relu(), *taught[:-1]]
        for block, y, wanted in zip(self.blocks, before, taught, strict=True):
            assert isinstance(block, Block)
            block.fit(y, wanted)
        last = self.gather.fit(self.separate.fit(taught[-1]).relu())
        self.embed.fit(last, embedding[:, :, None, None])
