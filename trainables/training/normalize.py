"""From bytes to what a network is given."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data import DataSet


class Normalize:
    """uint8 images (B, C, H, W) on any device → float32 on `device`, mean 0 and deviation 1 per channel.

    Args:
        data: whose mean and deviation.
        device: where the network lives.
        channels_last: whether the network wants its images in that layout.

    Attributes:
        fill: the data's mean color as bytes, for what has no pixels.
    """

    def __init__(self, data: DataSet, device: torch.device | str, *, channels_last: bool = False) -> None:
        """Put factor and offset on the device."""
        mean = torch.tensor(data.mean, device=device).view(1, -1, 1, 1)
        std = torch.tensor(data.std, device=device).view(1, -1, 1, 1)
        self._factor, self._offset = 1 / (255 * std), -mean / std
        self._channels_last = channels_last
        self.fill = tuple(round(255 * value) for value in data.mean)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalize a batch."""
        images = torch.addcmul(self._offset, images.to(self._factor.device).float(), self._factor)
        return images.contiguous(memory_format=torch.channels_last) if self._channels_last else images
