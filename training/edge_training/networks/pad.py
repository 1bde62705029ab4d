"""A MiniFASNet-style network that tells a crop of a face from an attack.

After the published layout of MiniFASNet (minivision-ai/Silent-Face-Anti-Spoofing): inverted bottlenecks on grids of 40,
20, 10 and 5 cells, a global depthwise convolution, a 128-wide embedding, and in training a second head that predicts
the crop's spectrum. Ours: ReLU instead of PReLU, which made every engine slow, and widths that are multiples of 32,
which they like.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_training.networks.gmenet import ConvBN

SIDE = 80
"""Input side in pixels."""
SPECTRUM = 10
"""Side of the spectrum map that the auxiliary head predicts, in cells."""


class Halving(nn.Conv2d):
    """A depthwise 3x3 convolution of stride 2 on maps of even size.

    In training every cell is computed and every second kept: the same answer, and a gradient that takes a tenth of the
    time on a processor, where the backward pass of strided depthwise convolutions is slow.
    """

    def __init__(self, c: int) -> None:
        super().__init__(c, c, 3, 2, 1, groups=c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return nn.functional.conv2d(x, self.weight, None, 1, 1, groups=self.groups)[..., ::2, ::2]


class Bottleneck(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down; with a residual where input and output have the same shape."""

    def __init__(self, c_in: int, c_out: int, hidden: int, *, stride: int = 1) -> None:
        super().__init__()
        self.up = ConvBN(c_in, hidden)
        self.deep = ConvBN(hidden, hidden, 3, stride, groups=hidden)
        if stride == 2:
            self.deep[0] = Halving(hidden)
        self.down = ConvBN(hidden, c_out)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.deep(self.up(x).relu()).relu())
        return x + y if self.residual else y


class PadNet(nn.Module):
    """(B, 3, 80, 80) float RGB in 0..1 to (B, 2) logits, bona fide first, and (B, 10, 10) the crop's spectrum."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 32, 3, 2), nn.ReLU(), ConvBN(32, 32, 3, groups=32), nn.ReLU())
        self.early = nn.Sequential(
            Bottleneck(32, 64, 96, stride=2),
            *(Bottleneck(64, 64, 96) for _ in range(4)),
            Bottleneck(64, 128, 192, stride=2),
            *(Bottleneck(128, 128, 128) for _ in range(6)),
        )
        self.late = nn.Sequential(
            Bottleneck(128, 128, 256, stride=2),
            *(Bottleneck(128, 128, 192) for _ in range(2)),
            ConvBN(128, 512),
            nn.ReLU(),
        )
        self.gather = nn.Conv2d(512, 512, SIDE // 16, groups=512, bias=False)
        self.embed = nn.Sequential(
            nn.BatchNorm2d(512), nn.Conv2d(512, 128, 1, bias=False), nn.BatchNorm2d(128)
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(128, 2)
        self.spectrum = nn.Sequential(
            ConvBN(128, 64, 3), nn.ReLU(), ConvBN(64, 32, 3), nn.ReLU(), nn.Conv2d(32, 1, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.early(self.stem(x * 2 - 1))
        embedding = self.embed(self.gather(self.late(middle))).flatten(1)
        return self.linear(self.dropout(embedding)), self.spectrum(middle)[:, 0]


def spectrum_of(images: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 10, 10): log-magnitude of the centred spectrum of the grey picture, stretched to 0..1."""
    grey = images.float().mean(1)
    magnitude = torch.fft.fftshift(torch.fft.fft2(grey), dim=(-2, -1)).abs().add(1).log()
    low, high = magnitude.amin((1, 2), keepdim=True), magnitude.amax((1, 2), keepdim=True)
    stretched = (magnitude - low) / (high - low).clamp(min=1e-6)
    return nn.functional.interpolate(stretched[:, None], size=(SPECTRUM, SPECTRUM), mode="area")[:, 0]
