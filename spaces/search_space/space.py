"""Search space of genomes: initial, random, suggested and neighboring genomes.

The genome of a space has one of two kinds of policy, see `spaces.search_space.policy_genes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from spaces.augmentations import Augmentation, Identity, augmentation, imported_name
from spaces.core.errors import RequestError, unknown
from spaces.core.validation import check_choice, check_integer
from spaces.operations import OPERATIONS
from spaces.schedule.genome import Genome, custom_losses
from spaces.search_space.domain import (
    RESAMPLE_PROBABILITY,
    Sampler,
    UniformSampler,
    check_domain,
    draw,
    drawn_values,
    explore,
    initial,
    is_constant,
)
from spaces.search_space.policy_genes import PBAGenes, PolicyGenes, ScaledGenes

GENES: Mapping[str, type[PolicyGenes]] = {"pba": PBAGenes, "scaled": ScaledGenes}
"""Kinds of policy genome by name."""


@dataclass(frozen=True)
class Space:
    """Search space of genomes.

    Args:
        operations: Names in `spaces.OPERATIONS`, each once; by default all 15.
        copies: Entries per operation of a `pba` genome; 2 in PBA, which makes 30 entries.
        augment: Augmentations for the second view, by name or as a mapping with parameters.
        distill: Domains of the distillation settings `loss`, `temperature` and `alpha`, each a list of choices or a
            range `{low, high, log}`, see `spaces.search_space.domain`.
        bits: Domains of the student's `weights` and `activations` bits, each a list of choices.
        genome: Kind of policy: `pba`, entries of probability and magnitude as in PBA, or `scaled`, with an amount, a
            number of operations, and a weight and a strength for each operation.

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
    genome: Literal["pba", "scaled"] = "pba"

    def __post_init__(self) -> None:
        """Check the values."""
        for op in self.operations:
            if op not in OPERATIONS:
                raise unknown("operation", op, OPERATIONS)
        if len(set(self.operations)) < len(self.operations):
            raise RequestError("a space must name each operation once", value=list(self.operations))
        check_choice("space.genome", self.genome, GENES)
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
    def genes(self) -> PolicyGenes:
        """Rules of the policies of this space."""
        return GENES[self.genome](self.operations, self.copies)

    @property
    def is_constant(self) -> bool:
        """True if the space has a single genome."""
        free = bool(self.operations) or len(self.augment) > 1
        return not free and is_constant(self.distill) and is_constant(self.bits)

    def zero(self) -> Genome:
        """Return the genome without augmentation: no image is changed; the first item of each choice."""
        return Genome(self.genes.zero(), self.augmentations[0], initial(self.distill), initial(self.bits))

    def uniform(self) -> Genome:
        """Return the genome with every operation alike, at mild and strong levels; the first item of each choice."""
        return replace(self.zero(), policy=self.genes.uniform())

    def random(self, generator: np.random.Generator) -> Genome:
        """Return a random genome: see the genes for the policy; all else is uniform over the space."""
        policy, uniform = self.genes.random(generator), UniformSampler(generator)
        augment = self._random_augment(generator)
        return Genome(policy, augment, draw(self.distill, uniform, "distill"), draw(self.bits, uniform, "bits"))

    def suggest(self, sampler: Sampler) -> Genome:
        """Return a genome whose values come from `sampler`, each under a unique name, such as from an Optuna trial."""
        policy, choices = self.genes.suggest(sampler), self.augmentations
        augment = choices[sampler.choice("augment", len(choices)) if len(choices) > 1 else 0]
        return Genome(policy, augment, draw(self.distill, sampler, "distill"), draw(self.bits, sampler, "bits"))

    def suggested(self, genome: Genome) -> dict[str, float]:
        """Return what a sampler must give, by name, for `suggest` to return `genome`.

        A choice or setting of the genome that the space does not have is left out.

        Raises:
            RequestError: The policy is of the other kind, or has other operations.

        Example:
            >>> from spaces import Space
            >>> space = Space(operations=("Rotate",), copies=1, augment=("identity", "cutmix"))
            >>> space.suggested(space.zero())
            {'policy[0].probability': 0, 'policy[0].magnitude': 0, 'augment': 0}
        """
        found, choices = self.genes.suggested(genome.policy), self.augmentations
        if len(choices) > 1 and genome.augment in choices:
            found["augment"] = choices.index(genome.augment)
        distill = drawn_values(self.distill, genome.distill, "distill")
        return {**found, **distill, **drawn_values(self.bits, genome.bits, "bits")}

    def explore(self, genome: Genome, generator: np.random.Generator) -> Genome:
        """Return a neighbor of a genome.

        The policy moves by the rule of its genes. The augmentation is resampled with probability 0.2; else a learned
        one multiplies the settings of its game by 0.8 or 1.25. Distillation and bits follow
        `spaces.search_space.domain.explore`.

        Args:
            genome: Genome of this space.
            generator: Source of all random numbers.
        """
        policy = self.genes.explore(genome.policy, generator)
        resample = len(self.augment) > 1 and generator.random() < RESAMPLE_PROBABILITY
        augment = self._random_augment(generator) if resample else genome.augment.explore(generator)
        distill = explore(self.distill, genome.distill, generator)
        return Genome(policy, augment, distill, explore(self.bits, genome.bits, generator))

    def check(self, genome: Genome) -> None:
        """Check that the policy of a genome is one of this space.

        Raises:
            RequestError: It is of the other kind, or has other operations.
        """
        self.genes.check(genome.policy)

    def _random_augment(self, generator: np.random.Generator) -> Augmentation:
        choices = self.augmentations
        return choices[int(generator.integers(len(choices)))] if len(choices) > 1 else choices[0]
