"""The CIFAR residual networks (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

Widths and 1×1 shortcuts follow the distillation literature (CRD, Tian et al. 2020, https://arxiv.org/abs/1910.10699):
resnet8 … resnet110 have 16-16-32-64 channels, and the `x4` variants 32-64-128-256.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models.layers import init_he

NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is a 1×1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build the block, (B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """A CIFAR residual network of depth 6n + 2.

    Args:
        depth: Depth: 8, 14, 20, …
        widths: Channels of the first convolution and of the three stages.
        classes: Number of classes.
        channels: Number of channels of the images.
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int], *, classes: int, channels: int) -> None:
        """Build the stages with He initialization."""
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.fc = nn.Linear(widths[3], classes)
        init_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, channels, H, W) → (B, classes), for any H, W >= 4."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))
