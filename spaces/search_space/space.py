"""The space of genomes: its bounds, where a search starts in it, and how one genome becomes a neighbor.

Source: PBA (Ho et al. 2019, https://arxiv.org/abs/1905.05393), whose explore rule is taken as its authors released it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spaces.augmentations import Augmentation, Identity, augmentation, imported
from spaces.core.errors import RequestError, unknown
from spaces.operations import LEVELS, OPERATIONS
from spaces.policy.policy import TENTHS, Entry, Policy
from spaces.schedule.genome import Genome, own_losses
from spaces.search_space.domain import ANEW, Draw, Uniform, check, constant, drawn, explored, first


@dataclass(frozen=True)
class Space:
    """Where an agent may move: which operations its genomes hold, and how often each.

    Args:
        operations: names of `spaces.OPERATIONS`, each once. All 15 by default.
        copies: entries per operation. PBA has 2, so 30 entries.
        augment: what may make a student's second view, by name or with parameters; the first is where a search starts.
        distill: what is free of how a student learns from its teacher: `loss`, `temperature`, `alpha`, each a list of
            choices or a range `{low, high, log}`, nested as `spaces.search_space.domain` has it. A search starts at their first.
        bits: what is free of a student's bits: `weights`, `activations`, each a list of choices. A search starts at
            their first.

    Raises:
        RequestError: an unknown or repeated operation or augmentation, fewer than one copy, or what is no domain.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    operations: tuple[str, ...] = field(default_factory=lambda: tuple(OPERATIONS))
    copies: int = 2
    augment: tuple[Any, ...] = (Identity.kind,)
    distill: Mapping[str, Any] = field(default_factory=dict, hash=False)
    bits: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse what is no space."""
        for op in self.operations:
            if op not in OPERATIONS:
                raise unknown("operation", op, OPERATIONS)
        if len(set(self.operations)) < len(self.operations):
            raise RequestError("a space names each operation once", value=list(self.operations))
        if isinstance(self.copies, bool) or not isinstance(self.copies, int) or self.copies < 1:
            raise RequestError("copies is a whole number, at least 1", value=self.copies)
        if not self.augment or len(set(self.augmentations)) < len(self.augment):
            raise RequestError("a space names one augmentation or more, each once", value=list(self.augment))
        check(self.distill, "space.distill")
        check(self.bits, "space.bits")

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The values that `augment` names."""
        return tuple(augmentation(choice) for choice in self.augment)

    @property
    def own(self) -> tuple[str, ...]:
        """The dotted names among them, and of losses of the user's own."""
        named = tuple(name for choice in self.augmentations if (name := imported(choice)))
        return named + own_losses(self.distill)

    @property
    def _ops(self) -> tuple[str, ...]:
        return self.operations * self.copies

    @property
    def is_constant(self) -> bool:
        """Whether it holds one genome alone."""
        free = bool(self.operations) or len(self.augment) > 1
        return not free and constant(self.distill) and constant(self.bits)

    def zero(self) -> Genome:
        """The genome where a search starts: every probability and magnitude 0, and the first augmentation."""
        policy = Policy(tuple(Entry(op, 0, 0) for op in self._ops))
        return Genome(policy, self.augmentations[0], first(self.distill), first(self.bits))

    def random(self, generator: np.random.Generator) -> Genome:
        """A genome whose numbers, and whose choices, are uniform over their ranges."""
        numbers = (Entry(op, _uniform(generator, TENTHS), _uniform(generator, LEVELS - 1)) for op in self._ops)
        policy, uniform = Policy(tuple(numbers)), Uniform(generator)
        augment = self._drawn(generator)
        return Genome(policy, augment, drawn(self.distill, uniform, "distill"), drawn(self.bits, uniform, "bits"))

    def suggested(self, draw: Draw) -> Genome:
        """A genome each of whose free values comes from `draw`, under a name of its own."""
        entries = []
        for index, op in enumerate(self._ops):
            probability = draw.whole(f"policy[{index}].probability", 0, TENTHS, log=False)
            entries.append(Entry(op, probability, draw.whole(f"policy[{index}].magnitude", 0, LEVELS - 1, log=False)))
        choices = self.augmentations
        augment = choices[draw.choice("augment", len(choices)) if len(choices) > 1 else 0]
        policy = Policy(tuple(entries))
        return Genome(policy, augment, drawn(self.distill, draw, "distill"), drawn(self.bits, draw, "bits"))

    def explore(self, genome: Genome, generator: np.random.Generator) -> Genome:
        """A neighbor of `genome` by PBA's rule.

        Each whole number is, with probability 0.2, drawn anew from its range; else it moves by 0, 1, 2 or 3
        (uniform) up or down, and is clipped to its range. The augmentation is drawn anew with probability 0.2;
        else one that learns moves the numbers of its game, each by a factor of 0.8 or 1.25; and so with what is free
        of the distillation and of the bits.
        """
        moved = tuple(
            Entry(
                entry.op,
                _move(entry.probability, TENTHS, generator),
                _move(entry.magnitude, LEVELS - 1, generator),
            )
            for entry in genome.policy
        )
        anew = len(self.augment) > 1 and generator.random() < ANEW
        augment = self._drawn(generator) if anew else genome.augment.explored(generator)
        distill = explored(self.distill, genome.distill, generator)
        return Genome(Policy(moved), augment, distill, explored(self.bits, genome.bits, generator))

    def _drawn(self, generator: np.random.Generator) -> Augmentation:
        choices = self.augmentations
        return choices[_uniform(generator, len(choices) - 1)] if len(choices) > 1 else choices[0]


def _move(value: int, most: int, generator: np.random.Generator) -> int:
    if generator.random() < ANEW:
        return _uniform(generator, most)
    step = _uniform(generator, 3)
    return int(np.clip(value + step if generator.random() < 0.5 else value - step, 0, most))


def _uniform(generator: np.random.Generator, most: int) -> int:
    return int(generator.integers(0, most, endpoint=True))
