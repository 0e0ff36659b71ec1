"""Sampling of the operations for each image of a batch, apart from their application.

Source: PBA (Ho et al. 2019, https://arxiv.org/abs/1905.05393, the authors' code): for each image draw a count from
{0: 0.2, 1: 0.3, 2: 0.5}, shuffle the entries, and apply each with its probability until `count` are applied. Crop and
flip, which belong to the data set, come after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.operations import OPERATIONS
from spaces.policy.policy import TENTHS, Entry, Policy

COUNT_PROBABILITIES = (0.2, 0.3, 0.5)
"""Probabilities that 0, 1 and 2 operations are applied to an image."""

MAX_OPERATIONS = len(COUNT_PROBABILITIES) - 1
"""Largest number of operations for an image."""

NO_OPERATION = -1
"""Value in `Parameters.operations` where no operation is applied."""

_INDEX = {name: index for index, name in enumerate(OPERATIONS)}


@dataclass(frozen=True)
class Parameters:
    """Sampled operations for each image of a batch; `apply` with the same parameters gives the same bytes.

    Letters: B images, P operations per image.

    Args:
        operations: Indices into `OPERATIONS` (B, P), int64, or -1 for no operation; column 0 is applied first.
        levels: Levels (B, P), int64, 0 to 9.
        signs: Signs (B, P), int64, -1 or +1; used by the geometric operations.
        positions: Positions (B, P, 2), float32 in [0, 1), fractions of height and width; used by Cutout.

    Example:
        >>> import torch
        >>> from spaces import Entry, Policy, sample
        >>> parameters = sample(Policy((Entry("Invert", 10, 0),)), 4, torch.Generator().manual_seed(0))
        >>> len(parameters), parameters.operations.shape
        (4, torch.Size([4, 2]))
        >>> len(parameters[:2])
        2
    """

    operations: Tensor
    levels: Tensor
    signs: Tensor
    positions: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.operations)

    def __getitem__(self, rows: slice | Tensor) -> Parameters:
        """Return the parameters of the selected images."""
        return Parameters(self.operations[rows], self.levels[rows], self.signs[rows], self.positions[rows])

    def check(self, batch: int) -> None:
        """Check shapes and dtypes for `batch` images; the values are not checked.

        Raises:
            RequestError: The number of images, a shape or a dtype is wrong.
        """
        if len(self) != batch:
            raise RequestError(f"parameters must be for {batch} images", value=len(self))
        shape = self.operations.shape
        expected = ((shape, torch.int64), (shape, torch.int64), (shape, torch.int64), ((*shape, 2), torch.float32))
        parts = (self.operations, self.levels, self.signs, self.positions)
        if len(shape) != 2 or any((part.shape, part.dtype) != form for part, form in zip(parts, expected, strict=True)):
            rule = "operations, levels and signs must be (B, P) int64, positions (B, P, 2) float32"
            raise RequestError(rule, value=[f"{tuple(part.shape)} {part.dtype}" for part in parts])

    def to(self, device: torch.device | str) -> Parameters:
        """Copy the parameters to `device` without waiting for it."""
        parts = (self.operations, self.levels, self.signs, self.positions)
        return Parameters(*(part.to(device, non_blocking=True) for part in parts))


def sample(policy: Policy, batch: int, generator: torch.Generator) -> Parameters:
    """Sample the operations for a batch of images, on the device of `generator`.

    The random walk over shuffled entries is vectorized. Each entry gets a uniform number u and is a hit if u < p.
    Given a hit, u / p is uniform and independent of all else, so the hits sorted by u / p are the hits of a random
    shuffle in its order, and the first `count` of them are applied.

    The number of random numbers depends on the length of the policy alone.

    Args:
        policy: Policy to sample from.
        batch: Number of images, >= 1.
        generator: Source of all random numbers.

    Returns:
        Parameters for `batch` images.

    Raises:
        RequestError: `batch` is less than 1.

    Example:
        >>> import torch
        >>> from spaces import Entry, Policy, sample
        >>> policy = Policy((Entry("Rotate", 10, 9),) * 2)
        >>> sample(policy, 2, torch.Generator().manual_seed(0)).levels.shape
        torch.Size([2, 2])
    """
    if batch < 1:
        raise RequestError("a batch must hold at least one image", value=batch)
    device = generator.device
    entries = _entries(policy, device)
    numbers = torch.rand(batch, len(entries.operation) + 1 + 3 * MAX_OPERATIONS, generator=generator, device=device)
    hits, count, signs, positions = numbers.split(
        (len(entries.operation), 1, MAX_OPERATIONS, 2 * MAX_OPERATIONS), dim=1
    )

    turns = torch.addcmul(entries.never, hits, entries.inverse)
    turn, first = turns.topk(MAX_OPERATIONS, dim=1, largest=False, sorted=True)
    counts = torch.bucketize(count.contiguous(), entries.bounds, right=True)
    found = (turn < 1) & (entries.places < counts)
    return Parameters(
        operations=torch.where(found, entries.operation[first], NO_OPERATION),
        levels=entries.magnitude[first] * found,
        signs=(signs < 0.5).long() * 2 - 1,
        positions=positions.reshape(batch, MAX_OPERATIONS, 2),
    )


class ParameterStream:
    """Stream of parameters for consecutive batches, sampled in blocks to save time on small batches.

    Args:
        policy: Policy to sample from.
        generator: Source of all random numbers.

    Example:
        >>> import torch
        >>> from spaces import Policy
        >>> from spaces.policy.sampling import ParameterStream
        >>> len(ParameterStream(Policy(), torch.Generator()).take(3))
        3
    """

    BLOCK = 256
    """Images per block; a larger batch gets a block of its own size."""

    def __init__(self, policy: Policy, generator: torch.Generator) -> None:
        self.policy = policy
        self.generator = generator
        self._block: Parameters | None = None
        self._at = 0

    def take(self, batch: int) -> Parameters:
        """Return the parameters of the next `batch` images; the rest of a block that is too short is discarded."""
        if self._block is None or self._at + batch > len(self._block):
            self._block, self._at = sample(self.policy, max(self.BLOCK, batch), self.generator), 0
        self._at += batch
        return self._block[self._at - batch : self._at]


@dataclass(frozen=True)
class _Entries:
    """Policy as tensors, padded by `MAX_OPERATIONS` entries of probability 0 so that `topk` always has enough.

    Letters: E entries.

    Args:
        inverse: 1 / p, (E,); 0 where p = 0.
        never: 0, (E,); 2 where p = 0, so that `never` + u · `inverse` is below 1 exactly where u < p.
        operation: Indices into `OPERATIONS`, (E,) int64.
        magnitude: Levels, (E,) int64.
        bounds: Cumulative probabilities of the counts.
        places: 0 to `MAX_OPERATIONS` - 1.
    """

    inverse: Tensor
    never: Tensor
    operation: Tensor
    magnitude: Tensor
    bounds: Tensor
    places: Tensor


@lru_cache(maxsize=64)
def _entries(policy: Policy, device: torch.device) -> _Entries:
    entries = [*policy, *[Entry(next(iter(OPERATIONS)), 0, 0)] * MAX_OPERATIONS]
    parts = (
        torch.tensor([TENTHS / entry.probability if entry.probability else 0.0 for entry in entries]),
        torch.tensor([0.0 if entry.probability else 2.0 for entry in entries]),
        torch.tensor([_INDEX[entry.op] for entry in entries]),
        torch.tensor([entry.magnitude for entry in entries]),
        torch.tensor(COUNT_PROBABILITIES).cumsum(0)[:-1],
        torch.arange(MAX_OPERATIONS),
    )
    return _Entries(*(part.to(device, non_blocking=True) for part in parts))
