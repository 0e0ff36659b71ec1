"""Random partners for mixing images."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.core.errors import RequestError


def random_partners(batch: int, generator: torch.Generator) -> Tensor:
    """Draw a partner for each image: the next one in a random cycle through the batch, never the image itself.

    Args:
        batch: Number B of images, >= 2.
        generator: Source of the random numbers, on the CPU.

    Returns:
        Indices (B,), int64.

    Raises:
        RequestError: The batch holds fewer than two images.

    Example:
        >>> import torch
        >>> from spaces.augmentors.pairing import random_partners
        >>> random_partners(2, torch.Generator()).tolist()
        [1, 0]
    """
    if batch < 2:
        raise RequestError("a batch must hold at least two images to be mixed", value=batch, hint="use larger batches")
    ring = torch.randperm(batch, generator=generator)
    partner = torch.empty_like(ring)
    partner[ring] = ring.roll(1)
    return partner
