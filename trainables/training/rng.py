"""The random stream that dropout and other stochastic layers draw from during one epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from spaces.core.seeding import seeded_generator


@contextmanager
def epoch_rng(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Seed the default generators of the CPU and of `device` for one epoch, and restore them afterwards.

    Args:
        seed: Seed of the training.
        epoch: Number of the epoch, from 0.
        device: Device of the network; generators of other devices are not touched.

    Example:
        >>> import torch
        >>> with epoch_rng(seed=0, epoch=3, device=torch.device("cpu")):
        ...     first = torch.rand(2)
        >>> with epoch_rng(seed=0, epoch=3, device=torch.device("cpu")):
        ...     second = torch.rand(2)
        >>> torch.equal(first, second)
        True
    """
    stream = seeded_generator(seed, epoch, 2).initial_seed()
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        devices = [torch.cuda.current_device()] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(stream)  # `torch.manual_seed` would seed all other GPUs as well
            if devices:
                torch.cuda.manual_seed(stream)
            yield
