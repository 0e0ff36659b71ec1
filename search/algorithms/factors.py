"""Factors of a space of genomes, and the genome that their levels name."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.analysis.contrasts import Factor, Levels
from results.analysis.effects import strength_name
from spaces import OPERATIONS, Entry, Genome, Policy, ScaledEntry, ScaledPolicy, Space
from spaces.policy.policy import TENTHS
from spaces.policy.scaled import AnyPolicy
from spaces.search_space.domain import draw, value_path

AMOUNT, OPERATIONS_PER_IMAGE, AUGMENT = "amount", "operations", "augment"

PBA_LEVELS = (3, 8)
"""Low and high level of an operation of a `pba` genome; the middle has the entries of the uniform policy."""

STRENGTHS, MIDDLE_STRENGTH = (0.5, 1.0), 0.75
"""Low and high strength of an operation of a `scaled` genome, and the one between."""

AMOUNTS, MIDDLE_AMOUNT = (0.5, 1.0), 0.8
"""Low and high amount of a `scaled` genome, and the one between, which is the uniform policy's."""

COUNTS = (1, 2)
"""Operations per image of a `scaled` genome; the better one is taken."""


def space_factors(space: Space) -> tuple[Factor, ...]:
    """Return all that a space leaves free as factors, each after the one that it is within.

    An operation is off or on, and if on, weak or strong. A list is a choice; a range is at its low or high end.

    Args:
        space: Space of one role.

    Example:
        >>> space = Space(operations=("Rotate",), genome="pba", distill={"temperature": {"low": 1.0, "high": 8.0}})
        >>> [factor.name for factor in space_factors(space)]
        ['Rotate', 'Rotate strength', 'distill.temperature']
    """
    found: list[Factor] = []
    scaled = space.genome == "scaled"
    for op in space.operations:
        found.append(Factor(op, "operation", ("off", "on")))
        if scaled or OPERATIONS[op].uses_level:  # a scaled strength is a probability where there is no level
            found.append(Factor(strength_name(op), "level", ("low", "high"), (op, 1)))
    if scaled and space.operations:
        found.append(Factor(AMOUNT, "setting", AMOUNTS))
    if scaled and len(space.operations) > 1:
        found.append(Factor(OPERATIONS_PER_IMAGE, "choice", COUNTS))
    if len(space.augment) > 1:
        found.append(Factor(AUGMENT, "choice", _labels([choice.label for choice in space.augmentations])))
    found += _domain_factors(space.distill, "distill", None)
    found += _domain_factors(space.bits, "bits", None)
    return tuple(found)


def genome_of(space: Space, levels: Levels) -> Genome:
    """Return the genome with these levels.

    Args:
        space: Space of one role.
        levels: Levels by factor. Without a level, an operation is off, a choice has its first item, and a number is
            between its low and high end.

    Example:
        >>> space = Space(operations=("Rotate", "Invert"), genome="pba", copies=1)
        >>> [entry.probability for entry in genome_of(space, {"Rotate": 1, "Rotate strength": 0}).policy]
        [10, 0]
    """
    sampler = _LevelSampler(levels)
    distill, bits = draw(space.distill, sampler, "distill"), draw(space.bits, sampler, "bits")
    return Genome(_policy(space, levels), space.augmentations[levels.get(AUGMENT, 0)], distill, bits)


def without_fixed(factors: Sequence[Factor], fixed: Levels) -> tuple[Factor, ...]:
    """Return the factors that are left when some have a fixed level.

    A factor within one that is fixed is in all trials, or in none.

    Example:
        >>> rotate = Factor("Rotate", "operation", ("off", "on"))
        >>> strength = Factor("Rotate strength", "level", ("low", "high"), ("Rotate", 1))
        >>> without_fixed([rotate, strength], {"Rotate": 0}), len(without_fixed([rotate, strength], {"Rotate": 1}))
        ((), 1)
    """
    left: list[Factor] = []
    gone: set[str] = set()
    for factor in factors:
        parent = factor.within[0] if factor.within else ""
        if parent in gone or (parent in fixed and not factor.active(fixed)):
            gone.add(factor.name)
        elif factor.name not in fixed:
            left.append(replace(factor, within=None) if parent in fixed else factor)
    return tuple(left)


def with_fixed(factors: Sequence[Factor], fixed: Levels, drawn: Levels) -> Levels:
    """Return the levels of a trial: those that are fixed, those that were drawn, and none that it does not have."""
    levels: dict[str, int] = {}
    for factor in factors:
        given = fixed.get(factor.name, drawn.get(factor.name))
        if given is not None and factor.active(levels):
            levels[factor.name] = given
    return levels


def _policy(space: Space, levels: Levels) -> AnyPolicy:
    if space.genome == "scaled":
        amount = _between(AMOUNTS, MIDDLE_AMOUNT, levels.get(AMOUNT))
        strengths = {op: _between(STRENGTHS, MIDDLE_STRENGTH, levels.get(strength_name(op))) for op in space.operations}
        entries = (ScaledEntry(op, float(levels.get(op, 0)), strengths[op]) for op in space.operations)
        return ScaledPolicy(amount, COUNTS[levels.get(OPERATIONS_PER_IMAGE, 0)], tuple(entries))
    uniform = space.genes.uniform()
    assert isinstance(uniform, Policy)
    return Policy(
        tuple(
            Entry(
                entry.op,
                TENTHS * levels.get(entry.op, 0),
                _between(PBA_LEVELS, entry.magnitude, levels.get(strength_name(entry.op))),
            )
            for entry in uniform
        )
    )


def _domain_factors(domain: Any, name: str, within: tuple[str, int] | None) -> Iterator[Factor]:
    """Yield the factors of a domain under the names that `draw` gives their places."""
    if isinstance(domain, list | tuple):
        if len(domain) > 1:
            yield Factor(name, "choice", _labels([_label(item) for item in domain]), within)
        for index, item in enumerate(domain):
            yield from _domain_factors(item, f"{name}[{index}]", (name, index) if len(domain) > 1 else within)
    elif isinstance(domain, Mapping) and {"low", "high"} <= domain.keys():
        yield Factor(name, "setting", (domain["low"], domain["high"]), within)
    elif isinstance(domain, Mapping):
        for key, inner in domain.items():
            yield from _domain_factors(inner, value_path(name, key), within)


def _label(item: Any) -> str:
    if isinstance(item, Mapping) and not {"low", "high"} <= item.keys():
        return " + ".join(item)
    return item if isinstance(item, str) else json.dumps(item)


def _between(ends: tuple[Any, Any], middle: Any, level: int | None) -> Any:
    return middle if level is None else ends[level]


def _labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return different labels: names that come twice get a number."""
    counts, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return tuple(found)


@dataclass(frozen=True)
class _LevelSampler:
    """Sampler of the values that levels name."""

    levels: Levels

    def choice(self, name: str, count: int) -> int:
        return self.levels.get(name, 0)

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        middle = math.sqrt(low * high) if log else (low + high) / 2
        return float(_between((low, high), middle, self.levels.get(name)))

    def integer(self, name: str, low: int, high: int, *, log: bool) -> int:
        return round(self.number(name, low, high, log=log))
