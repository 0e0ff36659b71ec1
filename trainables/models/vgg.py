"""VGG for small images (Simonyan & Zisserman 2014, https://arxiv.org/abs/1409.1556).

The variant of CRD (Tian et al. 2020, https://arxiv.org/abs/1910.10699): batch normalization, global pooling, one linear
layer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models.layers import init_he

WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3×3 convolutions.

    2×2 pooling follows the first three, and the fourth for images larger than 32 px. An odd row or column is pooled by
    itself, so a map of 1 px stays one.

    Args:
        blocks: Convolutions of each of the five stages.
        classes: Number of classes.
        channels: Number of channels of the images.
        size: Side of the images, px.
    """

    def __init__(self, blocks: tuple[int, int, int, int, int], *, classes: int, channels: int, size: int) -> None:
        """Build the stages with He initialization."""
        super().__init__()
        widths = zip((channels, *WIDTHS), WIDTHS, blocks, strict=False)
        stages = [_stage(inputs, outputs, count) for inputs, outputs, count in widths]
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = stages
        self.pools = 3 if size <= 32 else 4
        self.fc = nn.Linear(WIDTHS[-1], classes)
        init_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, channels, H, W) → (B, classes), for any H, W >= 1."""
        x = _pool(self.layer1(x))
        x = _pool(self.layer2(x))
        x = _pool(self.layer3(x))
        x = self.layer4(x)
        x = self.layer5(_pool(x) if self.pools == 4 else x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(count):
        # A bias has no effect before batch normalization, but the published parameter counts include it.
        layers.append(nn.Conv2d(outputs if index else inputs, outputs, 3, padding=1))
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)
