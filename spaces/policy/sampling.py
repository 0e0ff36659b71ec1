"""Sampling of the operations for each image of a batch, apart from their application.

PBA's entries are walked as in PBA (Ho et al. 2019, https://arxiv.org/abs/1905.05393, the authors' code): for each image
draw a count from {0: 0.2, 1: 0.3, 2: 0.5}, shuffle the entries, and apply each with its probability until `count` are
applied. Scaled policies draw operations by weight, without replacement. Crop and flip, which belong to the data set,
come after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.operations import LEVELS, OPERATIONS
from spaces.policy.policy import TENTHS, Entry, Policy
from spaces.policy.scaled import AnyPolicy, ScaledEntry, ScaledPolicy

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
        levels: Levels (B, P), int64, 0 to 9; scaled policies use 10 to 12, too, for Posterize.
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


def sample(policy: AnyPolicy, batch: int, generator: torch.Generator) -> Parameters:
    """Sample the operations for a batch of images, on the device of `generator`.

    PBA's random walk over shuffled entries is vectorized. Each entry gets a uniform number u and is a hit if u < p.
    Given a hit, u / p is uniform and independent of all else, so the hits sorted by u / p are the hits of a random
    shuffle in its order, and the first `count` of them are applied.

    A scaled policy draws by weight: each entry gets an exponential number divided by its weight, and the smallest come
    first (Efraimidis and Spirakis 2006, https://doi.org/10.1016/j.ipl.2005.11.003). A level is drawn uniformly up to
    the entry's strength and rounded; level 0 is no operation.

    The number of random numbers depends on the policy alone.

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
    if isinstance(policy, ScaledPolicy):
        return _sample_scaled(policy, batch, generator)
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

    def __init__(self, policy: AnyPolicy, generator: torch.Generator) -> None:
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


def _sample_scaled(policy: ScaledPolicy, batch: int, generator: torch.Generator) -> Parameters:
    device, places = generator.device, policy.operations
    entries = _scaled_entries(policy, device)
    total = len(entries.operation)
    numbers = torch.rand(batch, total + 1 + 4 * places, generator=generator, device=device)
    draws, changed, reach, signs, positions = numbers.split((total, 1, places, places, 2 * places), dim=1)
    # 1 - u is in (0, 1], so that the logarithm is finite.
    order, first = torch.addcmul(entries.never, torch.log(1 - draws), entries.inverse).topk(places, dim=1)
    signs = (signs < 0.5).long() * 2 - 1
    operations, strengths = entries.operation[first], entries.strength[first]
    steps = torch.where(
        entries.leveled[operations], reach * strengths * (LEVELS - 1) + 0.5, LEVELS * (reach < strengths)
    ).long()
    levels = entries.levels[operations, (signs + 1) // 2, steps.clamp(max=LEVELS - 1)]
    found = (changed < policy.amount) & (order > -torch.inf) & (levels >= 0)
    return Parameters(
        operations=torch.where(found, operations, NO_OPERATION),
        levels=levels * found,
        signs=signs,
        positions=positions.reshape(batch, places, 2),
    )


@dataclass(frozen=True)
class _ScaledEntries:
    """Scaled policy as tensors, padded by entries of weight 0 so that `topk` always has enough.

    Letters: E entries, O operations, S steps of strength, 0 to 9.

    Args:
        inverse: 1 / weight, (E,); 0 where the weight is 0.
        never: 0, (E,); minus infinity where the weight is 0.
        operation: Indices into `OPERATIONS`, (E,) int64.
        strength: Largest strengths, (E,), 0 to 1.
        leveled: True for operations with a level, (O,).
        levels: Level of each operation, sign and step, (O, 2, S) int64; -1 where that is the identity.
    """

    inverse: Tensor
    never: Tensor
    operation: Tensor
    strength: Tensor
    leveled: Tensor
    levels: Tensor


@lru_cache(maxsize=64)
def _scaled_entries(policy: ScaledPolicy, device: torch.device) -> _ScaledEntries:
    entries = [*policy, *[ScaledEntry(next(iter(OPERATIONS)), 0, 0)] * policy.operations]
    parts = (
        torch.tensor([1 / entry.weight if entry.weight else 0.0 for entry in entries]),
        torch.tensor([0.0 if entry.weight else -torch.inf for entry in entries]),
        torch.tensor([_INDEX[entry.op] for entry in entries]),
        torch.tensor([entry.strength for entry in entries]),
        torch.tensor([operation.uses_level for operation in OPERATIONS.values()]),
        torch.tensor([[[level(op, sign, step) for step in range(LEVELS)] for sign in (-1, 1)] for op in OPERATIONS]),
    )
    return _ScaledEntries(*(part.to(device, non_blocking=True) for part in parts))


def level(op: str, sign: int, step: int) -> int:
    """Return the level of an operation at a step of strength, from the identity in both directions.

    Args:
        op: Name of the operation.
        sign: Direction, -1 or +1: weaker or stronger for Brightness, Color, Contrast and Sharpness.
        step: Step, 0 to 9: the strength times 9, rounded.

    Returns:
        Level, 0 to 12; -1 where the step is the identity.

    Example:
        >>> from spaces.policy.sampling import level
        >>> [level("Brightness", -1, step) for step in (0, 3, 9)], [level("Rotate", 1, step) for step in (0, 3, 9)]
        ([-1, 3, 0], [-1, 3, 9])
    """
    if not OPERATIONS[op].uses_level:
        return 0 if step else -1
    top = LEVELS - 1
    if op in _ENHANCEMENTS:
        found = (2 * _IDENTITY * top + sign * 2 * step * (top - _IDENTITY if sign > 0 else _IDENTITY) + top) // (
            2 * top
        )
        return found if found != _IDENTITY else -1
    if op == "Posterize":
        return _POSTERIZE_LEVELS[8 - (2 * 7 * step + top) // (2 * top)]
    return step or -1


_ENHANCEMENTS = ("Brightness", "Color", "Contrast", "Sharpness")
_IDENTITY = 5
"""Level at which an enhancement is the identity: 0.1 + 0.18·5 = 1."""

_POSTERIZE_LEVELS = {8: -1, 7: 12, 6: 11, 5: 10, 4: 0, 3: 3, 2: 5, 1: 8}
"""Level by the number of bits that Posterize keeps."""
