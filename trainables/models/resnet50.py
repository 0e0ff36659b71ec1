"""ResNet-50 for small images: the bottlenecks of He et al. 2015 (https://arxiv.org/abs/1512.03385, table 1).

As in the distillation literature (CRD, https://arxiv.org/abs/1910.10699), the stem is one 3×3 convolution of stride 1
without pooling, and a block's stride is in its 3×3 convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models.layers import convolution, init_he

EXPANSION = 4


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution, and a shortcut, which is a 1×1 convolution if the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Build the block, (B, inputs, H, W) → (B, 4 · width, H / stride, W / stride)."""
        super().__init__()
        outputs = EXPANSION * width
        self.body = nn.Sequential(
            *convolution(inputs, width),
            *convolution(width, width, 3, stride=stride),
            *convolution(width, outputs, relu=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*convolution(inputs, outputs, stride=stride, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class ResNet50(nn.Module):
    """Stages of 3, 4, 6 and 3 bottlenecks of 64, 128, 256 and 512 channels; the last three halve the resolution.

    Args:
        classes: Number of classes.
        channels: Number of channels of the images.
    """

    def __init__(self, *, classes: int, channels: int) -> None:
        """Build the stages with He initialization."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.fc = nn.Linear(2048, classes)
        init_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, channels, H, W) → (B, classes), for any H, W >= 4."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)))
