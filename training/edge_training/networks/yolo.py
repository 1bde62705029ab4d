"""YOLO11n and YOLO12n for faces with an expression, written from the published descriptions of the family.

The blocks are the ones every account of YOLO11 names: C3k2 (a split-and-gather stage), SPPF (pooled context),
C2PSA (position-sensitive attention on the coarsest grid), and a decoupled head that predicts each box side as a
distribution (Distribution Focal Loss, arXiv 2006.04388). YOLO12 (arXiv 2502.12524) puts area attention into the
stages of strides 16 and 32 and has neither SPPF nor C2PSA; this is its *turbo* layout, whose second and third strided
convolutions are grouped and whose positional convolutions are 5x5. Activations are SiLU; convolutions carry no bias
because a batch norm follows them.

Parameters for seven classes: 2,591,189 and 2,521,013. The usual counts of 2,591,205 and 2,521,029 include the sixteen
constants 0..15 of the DFL expectation, which other implementations store as a frozen convolution; here the expectation
is taken by the decoder on the host, so the networks do not hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

REG_MAX = 16
STRIDES = (8, 16, 32)


class Conv(nn.Sequential):
    """Convolution, batch norm, SiLU (or no activation)."""

    def __init__(
        self, c_in: int, c_out: int, k: int = 1, s: int = 1, *, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, k, s, k // 2, groups=groups, bias=False),
            # These momenta and epsilons are the family's own; they matter for short schedules.
            nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True) if act else nn.Identity(),
        )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with a residual when the widths agree."""

    def __init__(self, c_in: int, c_out: int, *, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden, 3)
        self.cv2 = Conv(hidden, c_out, 3)
        self.residual = c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.residual else y


class C3k(nn.Module):
    """Cross-stage-partial block: one path of 3x3 bottlenecks, one shortcut path, merged by 1x1."""

    def __init__(self, c_in: int, c_out: int, n: int = 2, *, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(c_in, hidden)
        self.cv3 = Conv(2 * hidden, c_out)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, expansion=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return y


class C3k2(nn.Module):
    """Split in two, refine one half ``n`` times, keep every intermediate, merge by 1x1."""

    def __init__(
        self, c_in: int, c_out: int, n: int = 1, *, c3k: bool = False, expansion: float = 0.5
    ) -> None:
        super().__init__()
        self.hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, 2 * self.hidden)
        self.cv2 = Conv((2 + n) * self.hidden, c_out)
        self.m = nn.ModuleList(
            C3k(self.hidden, self.hidden) if c3k else Bottleneck(self.hidden, self.hidden) for _ in range(n)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).split(self.hidden, 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class SPPF(nn.Module):
    """Spatial pyramid pooling by three chained 5x5 max-pools."""

    def __init__(self, c_in: int, c_out: int, k: int = 5) -> None:
        super().__init__()
        hidden = c_in // 2
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(4 * hidden, c_out)
        self.pool = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class Attention(nn.Module):
    """Multi-head self-attention on a feature map, with a depthwise positional term on the values.

    Plain matmul and softmax, so that every exporter recognises them.

    Args:
        dim: channels.
        heads: that share them.
        key_ratio: width of queries and keys as a share of the values'.
        positional: kernel side of the positional term.
        areas: equal runs of the flattened grid that attend each to itself (YOLO12's area attention); must divide it.
    """

    def __init__(
        self, dim: int, heads: int, *, key_ratio: float = 0.5, positional: int = 3, areas: int = 1
    ) -> None:
        super().__init__()
        self.heads, self.areas = heads, areas
        self.head_dim = dim // heads
        self.key_dim = int(self.head_dim * key_ratio)
        self.qkv = Conv(dim, dim + 2 * self.key_dim * heads, act=False)
        self.positional = Conv(dim, dim, positional, groups=dim, act=False)
        self.proj = Conv(dim, dim, act=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        rows, cells = b * self.heads, h * w // self.areas
        qkv = self.qkv(x)
        # (rows, areas, channels, cells). One area needs no transposition and gets none: engines run what the graph says.
        if self.areas == 1:
            qkv = qkv.reshape(rows, 1, -1, cells)
        else:
            qkv = qkv.reshape(rows, -1, self.areas, cells).transpose(1, 2)
        q, k, v = qkv.split((self.key_dim, self.key_dim, self.head_dim), 2)
        weights = ((q * self.key_dim**-0.5).transpose(-2, -1) @ k).softmax(-1)
        out = v @ weights.transpose(-2, -1)
        if self.areas > 1:
            out, v = out.transpose(1, 2), v.transpose(1, 2)
        y: Tensor = self.proj(out.reshape(b, c, h, w) + self.positional(v.reshape(b, c, h, w)))
        return y


class PSABlock(nn.Module):
    """Attention and a two-layer feed-forward, each with a residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.ffn = nn.Sequential(Conv(dim, 2 * dim), Conv(2 * dim, dim, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y: Tensor = x + self.ffn(x)
        return y


class C2PSA(nn.Module):
    """Half of the channels pass ``n`` attention blocks; the halves are merged by 1x1."""

    def __init__(self, c: int, n: int = 1) -> None:
        super().__init__()
        self.hidden = c // 2
        self.cv1 = Conv(c, 2 * self.hidden)
        self.cv2 = Conv(2 * self.hidden, c)
        heads = max(1, self.hidden // 64)
        self.m = nn.Sequential(*(PSABlock(self.hidden, heads) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        kept, refined = self.cv1(x).split(self.hidden, 1)
        y: Tensor = self.cv2(torch.cat((kept, self.m(refined)), 1))
        return y


class AreaBlock(nn.Module):
    """Area attention and a two-layer feed-forward, each with a residual; heads of 32 channels."""

    def __init__(self, dim: int, areas: int) -> None:
        super().__init__()
        self.attention = Attention(dim, dim // 32, key_ratio=1.0, positional=5, areas=areas)
        self.ffn = nn.Sequential(Conv(dim, 2 * dim), Conv(2 * dim, dim, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y: Tensor = x + self.ffn(x)
        return y


class A2C2f(nn.Module):
    """R-ELAN: squeeze to half, refine ``n`` times, keep every intermediate, merge by 1x1.

    Args:
        c_in: channels in.
        c_out: channels out.
        n: refinements: two area blocks each, or one C3k where ``areas`` is 0, as in the neck.
        areas: of the attention.
    """

    def __init__(self, c_in: int, c_out: int, n: int, *, areas: int = 0) -> None:
        super().__init__()
        hidden = c_out // 2
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv((1 + n) * hidden, c_out)
        self.m = nn.ModuleList(
            nn.Sequential(AreaBlock(hidden, areas), AreaBlock(hidden, areas))
            if areas
            else C3k(hidden, hidden)
            for _ in range(n)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for block in self.m:
            parts.append(block(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class Backbone11n(nn.Module):
    """Image to features at strides 8, 16 and 32 with 128, 128 and 256 channels."""

    channels = (128, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.p3 = nn.Sequential(
            Conv(3, 16, 3, 2),
            Conv(16, 32, 3, 2),
            C3k2(32, 64, expansion=0.25),
            Conv(64, 64, 3, 2),
            C3k2(64, 128, expansion=0.25),
        )
        self.p4 = nn.Sequential(Conv(128, 128, 3, 2), C3k2(128, 128, c3k=True))
        self.p5 = nn.Sequential(Conv(128, 256, 3, 2), C3k2(256, 256, c3k=True), SPPF(256, 256), C2PSA(256))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p3 = self.p3(x)
        p4 = self.p4(p3)
        return p3, p4, self.p5(p4)


class Backbone12n(nn.Module):
    """Image to features at strides 8, 16 and 32 with 128, 128 and 256 channels; attention in four areas, then one."""

    channels = (128, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.p3 = nn.Sequential(
            Conv(3, 16, 3, 2),
            Conv(16, 32, 3, 2, groups=2),
            C3k2(32, 64, expansion=0.25),
            Conv(64, 64, 3, 2, groups=4),
            C3k2(64, 128, expansion=0.25),
        )
        self.p4 = nn.Sequential(Conv(128, 128, 3, 2), A2C2f(128, 128, 2, areas=4))
        self.p5 = nn.Sequential(Conv(128, 256, 3, 2), A2C2f(256, 256, 2, areas=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p3 = self.p3(x)
        p4 = self.p4(p3)
        return p3, p4, self.p5(p4)


class Neck(nn.Module):
    """Top-down then bottom-up feature fusion (PAN).

    Args:
        stage: makes a stage from its channels in and out; the last one is C3k2 with C3k inside in either family.
        c_in: channels at strides 8, 16 and 32.
    """

    channels = (64, 128, 256)

    def __init__(
        self, stage: Callable[[int, int], nn.Module], c_in: tuple[int, int, int] = Backbone11n.channels
    ) -> None:
        super().__init__()
        c3, c4, c5 = c_in
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.top4 = stage(c5 + c4, 128)
        self.top3 = stage(128 + c3, 64)
        self.down3 = Conv(64, 64, 3, 2)
        self.out4 = stage(64 + 128, 128)
        self.down4 = Conv(128, 128, 3, 2)
        self.out5 = C3k2(128 + c5, 256, c3k=True)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        p3, p4, p5 = features
        t4 = self.top4(torch.cat((self.up(p5), p4), 1))
        n3 = self.top3(torch.cat((self.up(t4), p3), 1))
        n4 = self.out4(torch.cat((self.down3(n3), t4), 1))
        n5 = self.out5(torch.cat((self.down4(n4), p5), 1))
        return n3, n4, n5


class Head(nn.Module):
    """Decoupled anchor-free head: per stride 4 x 16 side logits and ``classes`` score logits.

    Nothing is decoded here: boxes and scores leave as separate raw maps, so that quantization never gives them
    one scale.
    """

    def __init__(self, classes: int, c_in: tuple[int, int, int] = Neck.channels) -> None:
        super().__init__()
        self.classes = classes
        c_box = max(16, c_in[0] // 4, 4 * REG_MAX)
        c_cls = max(c_in[0], min(classes, 100))
        self.box = nn.ModuleList(
            nn.Sequential(Conv(c, c_box, 3), Conv(c_box, c_box, 3), nn.Conv2d(c_box, 4 * REG_MAX, 1))
            for c in c_in
        )
        self.cls = nn.ModuleList(
            nn.Sequential(
                Conv(c, c, 3, groups=c),
                Conv(c, c_cls),
                Conv(c_cls, c_cls, 3, groups=c_cls),
                Conv(c_cls, c_cls),
                nn.Conv2d(c_cls, classes, 1),
            )
            for c in c_in
        )
        self._init_biases()

    def _init_biases(self) -> None:
        for box, cls, stride in zip(self.box, self.cls, STRIDES, strict=True):
            side_bias = box.get_parameter("2.bias")
            score_bias = cls.get_parameter("4.bias")
            nn.init.constant_(side_bias, 1.0)
            # A prior of about five objects in a 640-pixel picture: without it the first steps are all false alarms.
            nn.init.constant_(score_bias, math.log(5 / self.classes / (640 / stride) ** 2))

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        boxes = [m(x) for m, x in zip(self.box, features, strict=True)]
        scores = [m(x) for m, x in zip(self.cls, features, strict=True)]
        return boxes, scores


class Detector(nn.Module):
    """Backbone, neck and head: (B, 3, H, W) float in 0..1, H and W multiples of 32, to raw head maps.

    Returns:
        ``(boxes, scores)``: lists over strides 8, 16, 32 of (B, 64, h, w) side logits (left, top, right, bottom,
        sixteen bins each, in units of the stride) and (B, classes, h, w) score logits.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        out: tuple[list[Tensor], list[Tensor]] = self.head(self.neck(self.backbone(x)))
        return out


class YOLO11n(Detector):
    """C3k2 stages, SPPF and one attention block on the coarsest grid."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__(Backbone11n(), Neck(C3k2), Head(classes))


class YOLO12n(Detector):
    """Area attention in the stages of strides 16 and 32, R-ELAN stages in the neck."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__(Backbone12n(), Neck(partial(A2C2f, n=1)), Head(classes))


class BackboneClassifier(nn.Module):
    """A detector's backbone with global pooling: teaches expressions cheaply before detection.

    Args:
        backbone: features at three strides, the last with 256 channels.
        classes: of expressions.
        dropout: on the pooled features.

    Returns:
        Two (B, classes) logits: of FER2013's label, and of the FER+ votes.
    """

    def __init__(self, backbone: nn.Module, classes: int = 7, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(Backbone11n.channels[-1], classes)
        self.votes = nn.Linear(Backbone11n.channels[-1], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.dropout(self.backbone(x)[-1].mean((2, 3)))
        return self.linear(pooled), self.votes(pooled)
