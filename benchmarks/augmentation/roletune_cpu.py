"""roletune's own contestants on the CPU, and the parameters that make two operations an image of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.augmentation.cases import FILL, Case, Contestant
from spaces import OPERATIONS, Entry, Parameters, Policy, Transform, apply, sample
from spaces.core.seeding import seeded_generator
from spaces.engine import dense
from spaces.operations import LEVELS
from spaces.policy.policy import TENTHS
from spaces.policy.sampling import NO_OPERATION

COPIES = 2
"""Entries of each operation in a genome, as PBA has it."""

OURS = "roletune"
"""The contestant whose ratios are the summary's."""


def policies() -> list[Policy]:
    """Ten policies of 30 entries, each hit for certain; together they hold all operations at all levels equally often.

    One is in force for a batch, and the next for the next one.
    """
    shift = LEVELS // COPIES
    return [
        Policy(
            tuple(
                Entry(op, TENTHS, (first + index + copy * shift) % LEVELS)
                for copy in range(COPIES)
                for index, op in enumerate(OPERATIONS)
            )
        )
        for first in range(LEVELS)
    ]


def two_always(policy: Policy, batch: int, generator: torch.Generator) -> Parameters:
    """Parameters of a batch in which every image gets two operations: those of `sample` that came out so."""
    drawn = sample(policy, max(64, 8 * batch), generator)  # half of them have two
    return drawn[(drawn.operations[:, 1] != NO_OPERATION).nonzero().squeeze(1)[:batch]]


def ours(case: Case) -> Iterator[Contestant]:
    """Our engine; the first one is what a user pays with two operations always, as the peers have it.

    `sample` follows PBA's counts, 0, 1 or 2 operations, so that an image gets 1.3 on average. For two always a turn
    draws a batch's parameters by `sample`, whose work does not depend on what comes out, and then applies others, drawn
    before from the same policy, in which every image has two. So both halves of a user's work are in the figure, and
    nothing else is.
    """
    each = policies()
    generator = seeded_generator(case.seed)
    always = [two_always(policy, case.batch, generator) for policy in each]
    transforms = [Transform(policy, fill=FILL, seed=(case.seed, index)) for index, policy in enumerate(each)]
    color = torch.tensor(FILL, dtype=torch.uint8)

    def drawn_and_applied(turn: int) -> torch.Tensor:
        sample(each[turn % LEVELS], case.batch, generator)
        return apply(case.images[case.rows(turn)], always[turn % LEVELS], FILL)

    def applied(turn: int) -> torch.Tensor:
        return apply(case.images[case.rows(turn)], always[turn % LEVELS], FILL)

    def transformed(turn: int) -> object:
        return transforms[turn % LEVELS](case.images[case.rows(turn)])

    def by_dense_plan(turn: int) -> torch.Tensor:
        sample(each[turn % LEVELS], case.batch, generator)
        return dense.apply(case.images[case.rows(turn)], always[turn % LEVELS], color)

    batch = "uint8 batch"
    yield Contestant(OURS, batch, 2, drawn_and_applied, "ours", threaded=True)
    yield Contestant(f"{OURS}, apply alone", batch, 2, applied, "ours", threaded=True)
    yield Contestant(f"{OURS}, PBA's own counts", batch, 1.3, transformed, "ours", threaded=True)
    yield Contestant(f"{OURS}, dense plan on the CPU", batch, 2, by_dense_plan, "ours", threaded=True)
