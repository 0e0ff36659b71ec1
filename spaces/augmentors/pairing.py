"""Who is mixed with whom."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.core.errors import RequestError


def partners(batch: int, generator: torch.Generator) -> Tensor:
    """Each row's partner, (B,) int64: the next one on a random ring through all rows, so nobody's partner is itself.

    Raises:
        RequestError: there is nobody to mix with.
    """
    if batch < 2:
        raise RequestError("a mix needs a batch of at least two images", value=batch, hint="use larger batches")
    ring = torch.randperm(batch, generator=generator)
    partner = torch.empty_like(ring)
    partner[ring] = ring.roll(1)
    return partner
