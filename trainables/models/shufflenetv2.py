"""ShuffleNetV2 (Ma et al. 2018, https://arxiv.org/abs/1807.11164) for small images.

The variant of CRD (Tian et al. 2020, https://arxiv.org/abs/1910.10699): the paper's 1× widths, and a 1×1 stem of stride
1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.models.layers import convolution, init_he

STEM, WIDTHS, HEAD = 24, (116, 232, 464), 1024


class Unit(nn.Module):
    """Three convolutions of half of the channels, then a shuffle with the other half."""

    def __init__(self, channels: int) -> None:
        """Build the unit, (B, channels, H, W) → the same shape."""
        super().__init__()
        self.body = _branch(channels // 2, channels // 2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit."""
        kept, changed = x.chunk(2, dim=1)
        return _shuffle(torch.cat((kept, self.body(changed)), dim=1))


class DownUnit(nn.Module):
    """Two parallel branches of stride 2, shuffled."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build the block, (B, inputs, H, W) → (B, outputs, H / 2, W / 2)."""
        super().__init__()
        self.short = nn.Sequential(
            *convolution(inputs, inputs, 3, stride=2, groups=inputs, relu=False),
            *convolution(inputs, outputs // 2),
        )
        self.body = _branch(inputs, outputs // 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit."""
        return _shuffle(torch.cat((self.short(x), self.body(x)), dim=1))


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 1×: stages of 4, 8 and 4 units, each of which halves the resolution.

    Args:
        classes: Number of classes.
        channels: Number of channels of the images.
    """

    def __init__(self, *, classes: int, channels: int) -> None:
        """Build the stages with He initialization."""
        super().__init__()
        self.stem = nn.Sequential(*convolution(channels, STEM))
        self.layer1 = _stage(STEM, WIDTHS[0], 4)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], 8)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], 4)
        self.head = nn.Sequential(*convolution(WIDTHS[2], HEAD))
        self.fc = nn.Linear(HEAD, classes)
        init_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, channels, H, W) → (B, classes), for any H, W >= 1."""
        x = self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *convolution(inputs, outputs),
        *convolution(outputs, outputs, 3, stride=stride, groups=outputs, relu=False),
        *convolution(outputs, outputs),
    )


def _stage(inputs: int, outputs: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(inputs, outputs), *(Unit(outputs) for _ in range(units - 1)))


def _shuffle(x: Tensor) -> Tensor:
    """Interleave the two halves of the channels."""
    halves: Tensor = x.unflatten(1, (2, -1))
    return halves.transpose(1, 2).flatten(1, 2)
