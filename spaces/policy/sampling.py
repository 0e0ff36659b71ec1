"""Sampling, apart from applying: which operations happen to each image of a batch, drawn from a generator.

Source: PBA (Ho et al. 2019, https://arxiv.org/abs/1905.05393, the authors' code): for each image draw a count from
{0: 0.2, 1: 0.3, 2: 0.5}, shuffle the entries, walk them and apply each with its probability until `count` were applied.
Crop and flip, which belong to the data set, come after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.operations import OPERATIONS
from spaces.policy.policy import TENTHS, Entry, Policy

COUNTS = (0.2, 0.3, 0.5)
"""How probable it is that 0, 1 or 2 operations are applied to an image."""

PLACES = len(COUNTS) - 1
"""How many operations an image gets at most; they are applied in the order of their places."""

NONE = -1
"""In `Parameters.operations`: nothing is applied in this place."""

_INDEX = {name: index for index, name in enumerate(OPERATIONS)}


@dataclass(frozen=True)
class Parameters:
    """What happens to each image of a batch, in which order: enough to replay it.

    Letters: B images, P places.

    Args:
        operations: (B, P) int64, an index into `OPERATIONS` or `NONE`; column 0 is applied first.
        levels: (B, P) int64, 0 … 9.
        signs: (B, P) int64, −1 or +1; only the geometric operations look at it.
        positions: (B, P, 2) float32 in [0, 1), fractions of height and width; only Cutout looks at it.
    """

    operations: Tensor
    levels: Tensor
    signs: Tensor
    positions: Tensor

    def __len__(self) -> int:
        """How many images the parameters are for."""
        return len(self.operations)

    def __getitem__(self, rows: slice | Tensor) -> Parameters:
        """The parameters of some of the images."""
        return Parameters(self.operations[rows], self.levels[rows], self.signs[rows], self.positions[rows])

    def check(self, batch: int) -> None:
        """Refuse parameters that are not for `batch` images; their values are not looked at.

        Raises:
            RequestError: as said, or the parts do not fit together.
        """
        if len(self) != batch:
            raise RequestError(f"parameters for {batch} images are needed", value=len(self))
        shape = self.operations.shape
        expected = ((shape, torch.int64), (shape, torch.int64), (shape, torch.int64), ((*shape, 2), torch.float32))
        parts = (self.operations, self.levels, self.signs, self.positions)
        if len(shape) != 2 or any((part.shape, part.dtype) != form for part, form in zip(parts, expected, strict=True)):
            rule = "operations, levels and signs are (B, P) int64, positions (B, P, 2) float32"
            raise RequestError(rule, value=[f"{tuple(part.shape)} {part.dtype}" for part in parts])

    def to(self, device: torch.device | str) -> Parameters:
        """The same parameters on `device`; the host does not wait for it."""
        parts = (self.operations, self.levels, self.signs, self.positions)
        return Parameters(*(part.to(device, non_blocking=True) for part in parts))


def sample(policy: Policy, batch: int, generator: torch.Generator) -> Parameters:
    """Draw what happens to `batch` images under `policy`, from `generator` alone and on its device.

    The walk over shuffled entries is drawn without walking. Each entry gets one uniform number u and is hit where
    u < p. Given a hit, u / p is uniform again and independent of everything else, so that the hits in the order of
    u / p are the hits of a random shuffle in theirs, and the first `count` of them are the ones applied.

    How many random numbers are drawn depends on the policy's length and on nothing else.

    Returns:
        parameters for B = `batch` images.

    Raises:
        RequestError: fewer than one image.
    """
    if batch < 1:
        raise RequestError("a batch holds at least one image", value=batch)
    device = generator.device
    entries = _entries(policy, device)
    numbers = torch.rand(batch, len(entries.operation) + 1 + 3 * PLACES, generator=generator, device=device)
    hits, count, signs, positions = numbers.split((len(entries.operation), 1, PLACES, 2 * PLACES), dim=1)

    turns = torch.addcmul(entries.never, hits, entries.inverse)
    turn, first = turns.topk(PLACES, dim=1, largest=False, sorted=True)
    counts = torch.bucketize(count.contiguous(), entries.bounds, right=True)
    found = (turn < 1) & (entries.places < counts)
    return Parameters(
        operations=torch.where(found, entries.operation[first], NONE),
        levels=entries.magnitude[first] * found,
        signs=(signs < 0.5).long() * 2 - 1,
        positions=positions.reshape(batch, PLACES, 2),
    )


class Draws:
    """Parameters for batch after batch, drawn in blocks: a small batch does not pay for a draw of its own.

    Args:
        policy: that is drawn from.
        generator: of all random numbers.
    """

    BLOCK = 256
    """Images that parameters are drawn for at once, or as many as the batch has."""

    def __init__(self, policy: Policy, generator: torch.Generator) -> None:
        """Nothing is drawn before it is needed."""
        self.policy = policy
        self.generator = generator
        self._block: Parameters | None = None
        self._at = 0

    def take(self, batch: int) -> Parameters:
        """The parameters of the next `batch` images; what is left of a block that is too short is passed over."""
        if self._block is None or self._at + batch > len(self._block):
            self._block, self._at = sample(self.policy, max(self.BLOCK, batch), self.generator), 0
        self._at += batch
        return self._block[self._at - batch : self._at]


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose stream follows from all of `numbers`; near numbers give unrelated streams."""
    if not all(isinstance(number, int) for number in numbers):
        raise RequestError("seeds are whole numbers", value=numbers)
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64's finalizer, once per number
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)


@dataclass(frozen=True)
class _Entries:
    """A policy as tensors, with `PLACES` entries at its end that are never hit: there is always one to point to.

    Letters: E entries.

    Args:
        inverse: (E,), 1 / p, and 0 where p = 0.
        never: (E,), 0, and 2 where p = 0: `never` + u · `inverse` is below 1 exactly where u < p.
        operation: (E,) int64, an index into `OPERATIONS`.
        magnitude: (E,) int64.
        bounds: at which uniform numbers the count of operations goes up.
        places: 0 … `PLACES` − 1.
    """

    inverse: Tensor
    never: Tensor
    operation: Tensor
    magnitude: Tensor
    bounds: Tensor
    places: Tensor


@lru_cache(maxsize=64)
def _entries(policy: Policy, device: torch.device) -> _Entries:
    entries = [*policy, *[Entry(next(iter(OPERATIONS)), 0, 0)] * PLACES]
    parts = (
        torch.tensor([TENTHS / entry.probability if entry.probability else 0.0 for entry in entries]),
        torch.tensor([0.0 if entry.probability else 2.0 for entry in entries]),
        torch.tensor([_INDEX[entry.op] for entry in entries]),
        torch.tensor([entry.magnitude for entry in entries]),
        torch.tensor(COUNTS).cumsum(0)[:-1],
        torch.arange(PLACES),
    )
    return _Entries(*(part.to(device, non_blocking=True) for part in parts))
