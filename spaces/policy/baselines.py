"""Free baselines: policies that ask for no search, scaled to the size of the image.

Sources: TrivialAugment, Müller and Hutter 2021, https://arxiv.org/abs/2103.10158; RandAugment, Cubuk et al. 2020,
https://arxiv.org/abs/1909.13719. Both are given by their rule, in the ranges of PBA, which scale with the image:
torchvision's TrivialAugmentWide translates by up to 32 pixels at any size, which leaves nothing of a small image.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spaces.operations import OPERATIONS
from spaces.policy.policy import TENTHS, Entry, Policy
from spaces.policy.scaled import AnyPolicy, ScaledEntry, ScaledPolicy

LOW_LEVEL, HIGH_LEVEL = 3, 8
"""Levels of each operation in the `uniform` policy."""

_CHOSEN_BY_AUTHORS = tuple(op for op in OPERATIONS if op not in ("Invert", "Cutout"))
"""Operations of TrivialAugment and RandAugment, which have neither Invert nor Cutout."""


def uniform_policy(operations: tuple[str, ...] = tuple(OPERATIONS)) -> Policy:
    """Return the policy with each operation at levels 3 and 8, with probability 1.

    Zero, one or two operations are applied to an image, each equally likely, as PBA walks its entries.

    Args:
        operations: Names of operations.

    Example:
        >>> from spaces.policy.baselines import uniform_policy
        >>> uniform_policy(("Rotate",)).entries[0]
        Entry(op='Rotate', probability=10, magnitude=3)
    """
    return Policy(tuple(Entry(op, TENTHS, level) for level in (LOW_LEVEL, HIGH_LEVEL) for op in operations))


BASELINES: Mapping[str, AnyPolicy] = MappingProxyType(
    {
        "none": Policy(),
        "uniform": uniform_policy(),
        "trivialaugment": ScaledPolicy(1.0, 1, tuple(ScaledEntry(op, 1.0, 1.0) for op in _CHOSEN_BY_AUTHORS)),
        "randaugment": ScaledPolicy(1.0, 2, tuple(ScaledEntry(op, 1.0, 0.6) for op in _CHOSEN_BY_AUTHORS)),
    }
)
"""Policy of each free baseline.

Example:
    >>> from spaces import BASELINES
    >>> list(BASELINES)
    ['none', 'uniform', 'trivialaugment', 'randaugment']
"""
