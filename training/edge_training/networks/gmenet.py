"""A GME-style network: the expression of faces of 12 to 48 pixels, by a local and a global branch.

After "Global Multiple Extraction Network for Low-Resolution Facial Expression Recognition" (arXiv 2511.05938), of which
only the outline is public: a local branch of mixed-attention blocks (MAB) with depthwise block attention (DBAM), a
global branch of mixed-channel feature extraction blocks (MCFEB) in a quasi-symmetric multi-scale layout, and the
transfer of attention maps from a teacher that sees more pixels (A-SKD, arXiv 2209.14498). Widths, depths, kernels, the
attention's equations and the fusion are ours. Activations are ReLU: they quantize well and every engine is fast at them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

SIDE = 48
"""Input side in pixels; smaller faces are enlarged to it."""

# ITU-R BT.601, as OpenCV's RGB to grey: FER2013 is grey, so colour could only mislead.
_LUMA = (0.299, 0.587, 0.114)


def to_grey() -> nn.Conv2d:
    """RGB in 0..1 to grey in -1..1 as a fixed convolution, which every engine quantizes and runs as one."""
    grey = nn.Conv2d(3, 1, 1).requires_grad_(False)
    grey.weight.copy_(2 * torch.tensor(_LUMA).reshape(1, 3, 1, 1))
    nn.init.constant_(grey.get_parameter("bias"), -1.0)
    return grey


class ConvBN(nn.Sequential):
    """Convolution without bias, and batch norm."""

    def __init__(self, c_in: int, c_out: int, k: int = 1, s: int = 1, *, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out)
        )


class DepthwiseBlockAttention(nn.Module):
    """Channel attention, then spatial attention. Returns both maps before their sigmoids as well, for distillation.

    Channels: average and maximum of each, through a shared bottleneck without biases, as in CBAM (arXiv 1807.06521).
    Space: a depthwise 3x3 convolution, so that each channel finds its own pattern, summed by a 1x1.
    """

    def __init__(self, c: int, reduction: int = 4) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(c, c // reduction, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c // reduction, c, 1, bias=False),
        )
        self.place = nn.Sequential(ConvBN(c, c, 3, groups=c), nn.ReLU(), nn.Conv2d(c, 1, 1, bias=False))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        channels = self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True))
        x = x * channels.sigmoid()
        places = self.place(x)
        return x * places.sigmoid(), [channels, places]


class MixedAttentionBlock(nn.Module):
    """Two 3x3 convolutions and attention, with a residual."""

    def __init__(self, c: int, *, attention: bool) -> None:
        super().__init__()
        self.cv1, self.cv2 = ConvBN(c, c, 3), ConvBN(c, c, 3)
        self.attention = DepthwiseBlockAttention(c) if attention else None

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = self.cv2(self.cv1(x).relu())
        maps: list[Tensor] = []
        if self.attention is not None:
            y, maps = self.attention(y)
        return (x + y).relu(), maps


class MixedChannelBlock(nn.Module):
    """Depthwise convolutions of several kernel sizes, each on its share of the channels, mixed by a 1x1; a residual."""

    def __init__(self, c: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.share = c // len(kernels)
        self.reach = nn.ModuleList(ConvBN(self.share, self.share, k, groups=self.share) for k in kernels)
        self.mix = ConvBN(c, c)

    def forward(self, x: Tensor) -> Tensor:
        parts = [reach(part) for reach, part in zip(self.reach, torch.split(x, self.share, 1), strict=True)]
        y: Tensor = (x + self.mix(torch.cat(parts, 1).relu())).relu()
        return y


class GlobalBranch(nn.Module):
    """Down two scales and up again; each level of the way up adds the level of the same size on the way down.

    Quasi-symmetric: the way up has the same levels with smaller kernels, as it only spreads what the bottom saw.
    """

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.enter = ConvBN(c_in, c, 3, 2)
        self.down1 = MixedChannelBlock(c, (1, 3, 5, 7))
        self.down2 = MixedChannelBlock(c, (1, 3, 5, 7))
        self.bottom = MixedChannelBlock(c, (1, 3))
        self.up2 = MixedChannelBlock(c, (1, 3))
        self.up1 = MixedChannelBlock(c, (1, 3))
        self.halve = nn.AvgPool2d(2)
        self.spread = nn.Upsample(scale_factor=2.0, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(self.enter(x).relu())
        middle = self.down2(self.halve(fine))
        coarse = self.bottom(self.halve(middle))
        middle = self.up2(middle + self.spread(coarse))
        y: Tensor = self.halve(self.up1(fine + self.spread(middle)))
        return y


class GMENet(nn.Module):
    """Face crops to expressions: (B, 3, 48, 48) float RGB in 0..1.

    Args:
        classes: number of expressions.
        dropout: rate before the last layer.
        attention: with attention in the local branch; without, for the ablation.
        global_branch: with the global branch; without, for the ablation.

    Returns:
        Two (B, classes) logits: of FER2013's label, and of the FER+ votes (for training only).
    """

    def __init__(
        self,
        classes: int = 7,
        dropout: float = 0.2,
        *,
        attention: bool = True,
        global_branch: bool = True,
    ) -> None:
        super().__init__()
        self.grey = to_grey()
        widths = (32, 64, 128)
        self.stem = nn.Sequential(ConvBN(1, 16, 3), nn.ReLU(), ConvBN(16, widths[0], 3, 2), nn.ReLU())
        self.enter = nn.ModuleList([nn.Identity(), *(ConvBN(a, b, 3, 2) for a, b in pairwise(widths))])
        self.local = nn.ModuleList(
            nn.ModuleList(MixedAttentionBlock(c, attention=attention) for _ in range(depth))
            for c, depth in zip(widths, (2, 3, 2), strict=True)
        )
        self.wide = GlobalBranch(widths[0], 64) if global_branch else None
        joined = widths[-1] + (64 if global_branch else 0)
        self.fuse = ConvBN(joined, 192)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(192, classes)
        self.votes = nn.Linear(192, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        label, votes, _ = self.with_attention(x)
        return label, votes

    def with_attention(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Both logits, and the attention maps before their sigmoids: (B, C, 1, 1) and (B, 1, h, w) per block."""
        x = self.stem(self.grey(x))
        early, maps = x, []
        for index, (enter, blocks) in enumerate(zip(self.enter, self.local, strict=True)):
            x = enter(x).relu() if index else x
            for block in blocks:  # type: ignore[attr-defined]  # a ModuleList
                x, seen = block(x)
                maps += seen
            early = early if index else x
        if self.wide is not None:
            x = torch.cat((x, self.wide(early)), 1)
        pooled = self.dropout(self.fuse(x).relu().mean((2, 3)))
        return self.linear(pooled), self.votes(pooled), maps
