"""The space of genomes: its bounds, where a search starts in it, and how one genome becomes a neighbour.

Source: PBA (Ho et al. 2019, https://arxiv.org/abs/1905.05393), whose explore rule is taken as its authors released it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spaces.augmentations import Augmentation, Identity, augmentation, imported
from spaces.errors import RequestError, unknown
from spaces.genome import Genome
from spaces.operations import LEVELS, OPERATIONS
from spaces.policy import TENTHS, Entry, Policy

ANEW = 0.2
"""How probable it is that exploring draws a number, or a choice, anew."""


@dataclass(frozen=True)
class Space:
    """Where an agent may move: which operations its genomes hold, and how often each.

    Args:
        operations: names of `spaces.OPERATIONS`, each once. All 15 by default.
        copies: entries per operation. PBA has 2, so 30 entries.
        augment: what may make a student's second view, by name or with parameters; the first is where a search starts.

    Raises:
        RequestError: an unknown or repeated operation or augmentation, or fewer than one copy.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    operations: tuple[str, ...] = field(default_factory=lambda: tuple(OPERATIONS))
    copies: int = 2
    augment: tuple[Any, ...] = (Identity.kind,)

    def __post_init__(self) -> None:
        """Refuse what is no space."""
        for op in self.operations:
            if op not in OPERATIONS:
                raise unknown("operation", op, OPERATIONS)
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise RequestError("a space names one operation or more, each once", got=list(self.operations))
        if isinstance(self.copies, bool) or not isinstance(self.copies, int) or self.copies < 1:
            raise RequestError("copies is a whole number, at least 1", got=self.copies)
        if not self.augment or len(set(self.augmentations)) < len(self.augment):
            raise RequestError("a space names one augmentation or more, each once", got=list(self.augment))

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The values that `augment` names."""
        return tuple(augmentation(choice) for choice in self.augment)

    @property
    def own(self) -> tuple[str, ...]:
        """The dotted names among them."""
        return tuple(name for choice in self.augmentations if (name := imported(choice)))

    @property
    def _ops(self) -> tuple[str, ...]:
        return self.operations * self.copies

    def zero(self) -> Genome:
        """The genome where a search starts: every probability and magnitude 0, and the first augmentation."""
        return Genome(Policy(tuple(Entry(op, 0, 0) for op in self._ops)), self.augmentations[0])

    def random(self, generator: np.random.Generator) -> Genome:
        """A genome whose numbers, and whose augmentation, are uniform over their ranges."""
        numbers = (Entry(op, _uniform(generator, TENTHS), _uniform(generator, LEVELS - 1)) for op in self._ops)
        return Genome(Policy(tuple(numbers)), self._drawn(generator))

    def explore(self, genome: Genome, generator: np.random.Generator) -> Genome:
        """A neighbour of `genome` by PBA's rule.

        Each whole number is, with probability 0.2, drawn anew from its range; else it moves by 0, 1, 2 or 3
        (uniform) up or down, and is clipped to its range. The augmentation is drawn anew with probability 0.2;
        else one that learns moves the numbers of its game, each by a factor of 0.8 or 1.25.
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
        return Genome(Policy(moved), self._drawn(generator) if anew else genome.augment.explored(generator))

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
