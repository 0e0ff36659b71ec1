"""Random generators that follow from integers, never from global state."""

from __future__ import annotations

import torch

from spaces.core.errors import RequestError

_MASK = 0xFFFFFFFFFFFFFFFF


def seeded_generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator whose stream is a function of all `numbers`.

    Neighboring numbers give unrelated streams, so a call site can pass its seed, the epoch and a constant of its own.

    Args:
        numbers: Any integers; their order matters.

    Raises:
        RequestError: A number is not an integer.

    Example:
        >>> from spaces.core.seeding import seeded_generator
        >>> import torch
        >>> first, second = (torch.rand(2, generator=seeded_generator(0, 7)) for _ in range(2))
        >>> torch.equal(first, second)
        True
    """
    if not all(isinstance(number, int) for number in numbers):
        raise RequestError("seeds must be integers", value=numbers)
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # the finalizer of splitmix64, once per number
        state = (state ^ (number & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
