"""A VGG-style classifier of face crops: it teaches the networks that ship, and ships nowhere itself.

After "Very Deep Convolutional Networks" (arXiv 1409.1556): pairs of 3x3 convolutions, halved by a maximum. Ours: batch
norm after each, and a global average where the paper has fully connected layers.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from edge_training.networks.gmenet import ConvBN, to_grey


class VGG(nn.Module):
    """Face crops to expressions: (B, 3, H, W) float RGB in 0..1, sides of 32 pixels and more.

    Args:
        classes: of expressions.
        widths: channels at each scale.
        dropout: before the last layer.

    Returns:
        Two (B, classes) logits: of FER2013's label, and of the FER+ votes.
    """

    def __init__(
        self, classes: int = 7, widths: tuple[int, ...] = (64, 128, 256, 512), dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.grey = to_grey()
        layers: list[nn.Module] = []
        for c_in, c in pairwise((1, *widths)):
            layers += [ConvBN(c_in, c, 3), nn.ReLU(), ConvBN(c, c, 3), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(widths[-1], classes)
        self.votes = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.dropout(self.features(self.grey(x)).mean((2, 3)))
        return self.linear(y), self.votes(y)
