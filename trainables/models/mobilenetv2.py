"""MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381) for small images.

The variant of CRD (Tian et al. 2020, https://arxiv.org/abs/1910.10699): half the width, plain ReLUs, a total stride of
16.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainables.models.layers import convolution, init_he

# Expansion, channels at full width, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
HEAD = 1280


class InvertedResidual(nn.Module):
    """A 1×1 convolution to `expansion` times the channels, a 3×3 depthwise one, and a linear 1×1 one."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        """Build the block, (B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        super().__init__()
        width = expansion * inputs
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *convolution(inputs, width),
            *convolution(width, width, 3, stride=stride, groups=width),
            *convolution(width, outputs, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block, with a residual connection if the shape stays."""
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """MobileNetV2 with `width` times the paper's channels, except for the last layer's 1280.

    Args:
        width: Width multiplier of the channels.
        classes: Number of classes.
        channels: Number of channels of the images.
    """

    def __init__(self, width: float, *, classes: int, channels: int) -> None:
        """Build the stages with He initialization."""
        super().__init__()
        inputs = int(32 * width)
        self.stem = nn.Sequential(*convolution(channels, inputs, 3, stride=2))
        stages = []
        for expansion, full, blocks, stride in STAGES:
            outputs = int(full * width)
            stage = [InvertedResidual(inputs, outputs, expansion=expansion, stride=stride)]
            stage += [InvertedResidual(outputs, outputs, expansion=expansion, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(*convolution(inputs, HEAD))
        self.fc = nn.Linear(HEAD, classes)
        init_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, channels, H, W) → (B, classes), for any H, W >= 1."""
        x = self.head(self.stages(self.stem(x)))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
