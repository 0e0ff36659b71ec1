"""Search space of genomes: initial, random, suggested and neighboring genomes.

Source: PBA (Ho et al. 2019, https://arxiv.org/abs/1905.05393); the explore rule is that of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spaces.augmentations import Augmentation, Identity, augmentation, imported_name
from spaces.core.errors import RequestError, unknown
from spaces.core.validation import check_integer
from spaces.operations import LEVELS, OPERATIONS
from spaces.policy.policy import TENTHS, Entry, Policy
from spaces.schedule.genome import Genome, custom_losses
from spaces.search_space.domain import (
    RESAMPLE_PROBABILITY,
    Sampler,
    UniformSampler,
    check_domain,
    draw,
    explore,
    initial,
    is_constant,
)


@dataclass(frozen=True)
class Space:
    """Search space of genomes.

    A search starts at probability and magnitude 0, and at the first item of each choice.

    Args:
        operations: Names in `spaces.OPERATIONS`, each once; by default all 15.
        copies: Entries per operation; 2 in PBA, which makes 30 entries.
        augment: Augmentations for the second view, by name or as a mapping with parameters.
        distill: Domains of the distillation settings `loss`, `temperature` and `alpha`, each a list of choices or a
            range `{low, high, log}`, see `spaces.search_space.domain`.
        bits: Domains of the student's `weights` and `activations` bits, each a list of choices.

    Raises:
        RequestError: An operation or augmentation is unknown or repeated, `copies` is less than 1, or a domain is
            invalid.

    Example:
        >>> import numpy as np
        >>> from spaces import Space
        >>> space = Space(operations=("Rotate", "Invert"), augment=("identity", "cutmix"))
        >>> len(space.zero().policy)
        4
        >>> neighbor = space.explore(space.zero(), np.random.default_rng(0))
        >>> neighbor.policy.entries[0].op
        'Rotate'
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - for pydantic, which this room does not import

    operations: tuple[str, ...] = field(default_factory=lambda: tuple(OPERATIONS))
    copies: int = 2
    augment: tuple[Any, ...] = (Identity.kind,)
    distill: Mapping[str, Any] = field(default_factory=dict, hash=False)
    bits: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the values."""
        for op in self.operations:
            if op not in OPERATIONS:
                raise unknown("operation", op, OPERATIONS)
        if len(set(self.operations)) < len(self.operations):
            raise RequestError("a space must name each operation once", value=list(self.operations))
        check_integer("copies", self.copies, 1)
        if not self.augment or len(set(self.augmentations)) < len(self.augment):
            raise RequestError("a space must name at least one augmentation, each once", value=list(self.augment))
        check_domain(self.distill, "space.distill")
        check_domain(self.bits, "space.bits")

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """Augmentations that `augment` names."""
        return tuple(augmentation(choice) for choice in self.augment)

    @property
    def custom_names(self) -> tuple[str, ...]:
        """Dotted names of custom augmentations and losses in the space."""
        named = tuple(name for choice in self.augmentations if (name := imported_name(choice)))
        return named + custom_losses(self.distill)

    @property
    def _ops(self) -> tuple[str, ...]:
        return self.operations * self.copies

    @property
    def is_constant(self) -> bool:
        """True if the space has a single genome."""
        free = bool(self.operations) or len(self.augment) > 1
        return not free and is_constant(self.distill) and is_constant(self.bits)

    def zero(self) -> Genome:
        """Return the initial genome: probabilities and magnitudes 0, the first item of each choice."""
        policy = Policy(tuple(Entry(op, 0, 0) for op in self._ops))
        return Genome(policy, self.augmentations[0], initial(self.distill), initial(self.bits))

    def random(self, generator: np.random.Generator) -> Genome:
        """Return a genome that is uniform over the space."""
        numbers = (Entry(op, _uniform(generator, TENTHS), _uniform(generator, LEVELS - 1)) for op in self._ops)
        policy, uniform = Policy(tuple(numbers)), UniformSampler(generator)
        augment = self._random_augment(generator)
        return Genome(policy, augment, draw(self.distill, uniform, "distill"), draw(self.bits, uniform, "bits"))

    def suggest(self, sampler: Sampler) -> Genome:
        """Return a genome whose values come from `sampler`, each under a unique name, such as from an Optuna trial."""
        entries = []
        for index, op in enumerate(self._ops):
            probability = sampler.integer(f"policy[{index}].probability", 0, TENTHS, log=False)
            entries.append(
                Entry(op, probability, sampler.integer(f"policy[{index}].magnitude", 0, LEVELS - 1, log=False))
            )
        choices = self.augmentations
        augment = choices[sampler.choice("augment", len(choices)) if len(choices) > 1 else 0]
        policy = Policy(tuple(entries))
        return Genome(policy, augment, draw(self.distill, sampler, "distill"), draw(self.bits, sampler, "bits"))

    def explore(self, genome: Genome, generator: np.random.Generator) -> Genome:
        """Return a neighbor of a genome by the explore rule of PBA.

        Each integer of the policy is resampled with probability 0.2; else it moves up or down by 0, 1, 2 or 3
        (uniform), and is clipped. The augmentation is resampled with probability 0.2; else a learned one multiplies the
        settings of its game by 0.8 or 1.25. Distillation and bits follow `spaces.search_space.domain.explore`.

        Args:
            genome: Genome of this space.
            generator: Source of all random numbers.
        """
        entries = tuple(
            Entry(
                entry.op,
                _move(entry.probability, TENTHS, generator),
                _move(entry.magnitude, LEVELS - 1, generator),
            )
            for entry in genome.policy
        )
        resample = len(self.augment) > 1 and generator.random() < RESAMPLE_PROBABILITY
        augment = self._random_augment(generator) if resample else genome.augment.explore(generator)
        distill = explore(self.distill, genome.distill, generator)
        return Genome(Policy(entries), augment, distill, explore(self.bits, genome.bits, generator))

    def _random_augment(self, generator: np.random.Generator) -> Augmentation:
        choices = self.augmentations
        return choices[_uniform(generator, len(choices) - 1)] if len(choices) > 1 else choices[0]


def _move(value: int, most: int, generator: np.random.Generator) -> int:
    if generator.random() < RESAMPLE_PROBABILITY:
        return _uniform(generator, most)
    step = _uniform(generator, 3)
    return int(np.clip(value + step if generator.random() < 0.5 else value - step, 0, most))


def _uniform(generator: np.random.Generator, most: int) -> int:
    return int(generator.integers(0, most, endpoint=True))
