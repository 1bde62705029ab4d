"""MiniFASNet's layout with ReLU: a network that can learn the published one's function layer by layer.

The map after every block has the shape of the published network's (minivision-ai/Silent-Face-Anti-Spoofing), so that
each block can be taught by itself. Ours: ReLU instead of PReLU, which made every engine slow. The published slopes are
near zero but in the first layer, where a second way around it stands for them; widths inside blocks are multiples of
32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edge_training.networks.gmenet import ConvBN
from edge_training.networks.pad import SIDE

LAYOUT = (
    (32, 64, 160, 2),
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

_MIDDLE = 11
"""The last of the blocks whose maps have 10 cells a side."""


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

    def _parts(self) -> tuple[nn.Conv2d, nn.BatchNorm2d, Tensor, Tensor]:
        conv, norm = self[0], self[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return conv, norm, norm.running_mean, norm.running_var

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self[1], nn.BatchNorm2d):  # folded for export
            found: Tensor = self[0](x)
            return found
        conv, norm, mean, variance = self._parts()
        scale = norm.weight * (variance + norm.eps).rsqrt()
        kernel = conv.weight * scale[:, None, None, None]
        bias = norm.bias - mean * scale
        if self.training and self.stride == 2 and self.groups > 1:
            # The backward pass of strided depthwise convolutions is slow on a processor.
            return nn.functional.conv2d(x, kernel, bias, 1, self.padding, groups=self.groups)[..., ::2, ::2]
        return nn.functional.conv2d(x, kernel, bias, self.stride, self.padding, groups=self.groups)

    @torch.no_grad()
    def fit(self, x: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Set the statistics to those of a batch, and the output's to those of what is wanted; returns the output."""
        conv, norm, mean, variance = self._parts()
        raw = conv(x)
        mean.copy_(raw.mean((0, 2, 3)))
        variance.copy_(raw.var((0, 2, 3)) + 1e-4)
        if wanted is not None:
            norm.weight.copy_(wanted.std((0, 2, 3)) * 0.5)
            norm.bias.copy_(wanted.mean((0, 2, 3)))
        found: Tensor = self(x)
        return found


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


class Stem(nn.Module):
    """(B, 3, 80, 80) to (B, 32, 40, 40): a convolution and a depthwise one, and a wide one around both.

    The published first layer lets a share of what is negative through, up to 0.6 of it. That share, through the layer
    after it, is a linear function of the picture, within 7 pixels: with it, ReLU can say the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rough = FixedNorm(3, 32, 3, 2)
        self.fine = FixedNorm(32, 32, 3, groups=32)
        self.around = FixedNorm(3, 32, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fine(self.rough(x).relu()) + self.around(x)
        return y.relu()

    @torch.no_grad()
    def fit(self, x: Tensor) -> Tensor:
        """Set the norms' statistics for a batch; returns the output."""
        self.fine.fit(self.rough.fit(x).relu())
        self.around.fit(x)
        norm = self.around[1]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight.fill_(0.3)
        found: Tensor = self(x)
        return found


class Strange(nn.Module):
    """What no teacher says: whether there is a face to judge at all, from two maps with their places."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Conv2d(128, 32, 3, 2, 1)
        self.last = nn.Conv2d(128, 48, 1)
        self.gather = nn.Sequential(nn.Conv2d(80, 32, SIDE // 16), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, 1) log-odds of *not a face*, from the map after every block."""
        seen = torch.cat((self.middle(maps[_MIDDLE]), self.last(maps[-1])), 1).relu()
        odds: Tensor = self.gather(seen).flatten(1)
        return odds


class MiniFAS(nn.Module):
    """(B, 3, 80, 80) float RGB in 0..1 to (B, 2) logits, bona fide first, and (B, 1) log-odds of *not a face*."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.blocks = nn.ModuleList(Block(*row) for row in LAYOUT)
        self.separate = FixedNorm(128, 512)
        self.gather = FixedNorm(512, 512, SIDE // 16, groups=512, pad=False)
        self.embed = FixedNorm(512, 128)
        self.classes = nn.Linear(128, 3)
        """The first teacher's logits; only for training."""
        self.wide = nn.Linear(128, 3)
        """The second teacher's, which sees more of the scene; only for training."""
        self.decide = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 2))
        self.strange = Strange()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(x)
        return self.decide(self.embedding(maps[-1])), self.strange(maps)

    def three(self, x: Tensor) -> Tensor:
        """(B, 3) logits: bona fide, attack, not a face.

        The third is the larger of the others plus the log-odds of *not a face*: where these are above zero, it wins.
        """
        two, strange = self(x)
        return torch.cat((two, two.amax(1, keepdim=True) + strange), 1)

    def embedding(self, last: Tensor) -> Tensor:
        """(B, 128) of the last block's map."""
        found: Tensor = self.embed(self.gather(self.separate(last).relu())).flatten(1)
        return found

    def maps(self, x: Tensor, *, apart: bool = False) -> list[Tensor]:
        """The map after every block, each from the one before; ``apart``, without a gradient to what is before."""
        found: list[Tensor] = []
        x = self.stem(x)
        for block in self.blocks:
            x = block(x.detach() if apart and found else x)
            found.append(x)
        return found

    def maps_after(self, x: Tensor, taught: Sequence[Tensor]) -> list[Tensor]:
        """The map after every block, each from the teacher's map before it."""
        before = [self.stem(x), *taught[:-1]]
        return [block(y) for block, y in zip(self.blocks, before, strict=True)]

    @torch.no_grad()
    def fit(self, x: Tensor, taught: Sequence[Tensor], embedding: Tensor) -> None:
        """Set all norms' statistics from a batch and what the teacher's layers say of it."""
        before = [self.stem.fit(x), *taught[:-1]]
        for block, y, wanted in zip(self.blocks, before, taught, strict=True):
            assert isinstance(block, Block)
            block.fit(y, wanted)
        last = self.gather.fit(self.separate.fit(taught[-1]).relu())
        self.embed.fit(last, embedding[:, :, None, None])
