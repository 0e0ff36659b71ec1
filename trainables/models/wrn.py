"""Wide residual networks (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146), without dropout.

Their blocks are pre-activated: batch normalization and ReLU precede each convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models.layers import init_he


class PreactBlock(nn.Module):
    """Two pre-activated 3×3 convolutions and a shortcut, a 1×1 convolution of the activation if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build the block, (B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        active = F.relu(self.bn1(x), inplace=True)
        residue: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return residue + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """A wide residual network of depth 6n + 4, with groups of 16, 32 and 64 times `widen` channels.

    Args:
        depth: Depth: 10, 16, 22, 28, 40, …
        widen: Width factor of the three groups.
        classes: Number of classes.
        channels: Number of channels of the images.
    """

    def __init__(self, depth: int, widen: int, *, classes: int, channels: int) -> None:
        """Build the groups with He initialization."""
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.layer1 = _group(16, 16 * widen, blocks, stride=1)
        self.layer2 = _group(16 * widen, 32 * widen, blocks, stride=2)
        self.layer3 = _group(32 * widen, 64 * widen, blocks, stride=2)
        self.bn = nn.BatchNorm2d(64 * widen)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(64 * widen, classes)
        init_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, channels, H, W) → (B, classes), for any H, W >= 4."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.fc(self.relu(self.bn(x)).mean(dim=(2, 3)))
        return logits


def _group(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreactBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(PreactBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
