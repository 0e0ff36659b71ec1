"""Conversion of uint8 images to normalized floats."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data import DataSet


class Normalize:
    """Map uint8 images (B, C, H, W) on any device to float32 on `device`, with mean 0 and deviation 1 per channel.

    Args:
        data: Data set whose mean and deviation are used.
        device: Device of the network.
        channels_last: Return images in the channels-last memory format.

    Attributes:
        fill: Mean color of the data as bytes, the fill value of geometric operations.

    Example:
        >>> import torch
        >>> from trainables.data import load
        >>> normalize = Normalize(load("digits"), "cpu")
        >>> normalize.fill
        (78,)
        >>> normalize(torch.full((1, 1, 8, 8), 78, dtype=torch.uint8)).mean().abs() < 0.01
        tensor(True)
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
