"""roletune's contestants on the CPU, and the parameters that give every image two operations."""

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
"""Entries of each operation in PBA's policies."""

ROLETUNE = "roletune"
"""Contestant that the summary reports."""


def policies() -> list[Policy]:
    """Return ten policies of 30 entries with probability 1, which batches use one after the other.

    Together they hold all operations at all levels equally often.
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


def two_operation_parameters(policy: Policy, batch: int, generator: torch.Generator) -> Parameters:
    """Return those parameters of `sample` that have two operations, one set for each image of the batch."""
    drawn = sample(policy, max(64, 8 * batch), generator)  # about half of them have two
    return drawn[(drawn.operations[:, 1] != NO_OPERATION).nonzero().squeeze(1)[:batch]]


def roletune_contestants(case: Case) -> Iterator[Contestant]:
    """Yield roletune's contestants. The first one draws and applies two operations per image, like the other libraries.

    `sample` follows PBA and draws 0, 1 or 2 operations, 1.3 per image on average. For two operations per image, a run
    draws parameters with `sample`, whose time does not depend on the outcome, and then applies others of the same
    policy that were drawn before and have two operations for every image. So drawing and applying are timed, and
    nothing else.
    """
    every_policy = policies()
    generator = seeded_generator(case.seed)
    fixed = [two_operation_parameters(policy, case.batch, generator) for policy in every_policy]
    transforms = [Transform(policy, fill=FILL, seed=(case.seed, index)) for index, policy in enumerate(every_policy)]
    color = torch.tensor(FILL, dtype=torch.uint8)

    def drawn_and_applied(number: int) -> torch.Tensor:
        sample(every_policy[number % LEVELS], case.batch, generator)
        return apply(case.images[case.batch_slice(number)], fixed[number % LEVELS], FILL)

    def applied(number: int) -> torch.Tensor:
        return apply(case.images[case.batch_slice(number)], fixed[number % LEVELS], FILL)

    def transformed(number: int) -> object:
        return transforms[number % LEVELS](case.images[case.batch_slice(number)])

    def by_dense_plan(number: int) -> torch.Tensor:
        sample(every_policy[number % LEVELS], case.batch, generator)
        return dense.apply(case.images[case.batch_slice(number)], fixed[number % LEVELS], color)

    batch = "uint8 batch"
    yield Contestant(ROLETUNE, batch, 2, drawn_and_applied, "roletune", threaded=True)
    yield Contestant(f"{ROLETUNE}, apply alone", batch, 2, applied, "roletune", threaded=True)
    yield Contestant(f"{ROLETUNE}, PBA's own counts", batch, 1.3, transformed, "roletune", threaded=True)
    yield Contestant(f"{ROLETUNE}, dense plan on the CPU", batch, 2, by_dense_plan, "roletune", threaded=True)
