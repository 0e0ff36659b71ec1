"""The state of HARD's game, read back: its augmentation, and phases that replay without a game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from spaces import Phase, RequestError
from spaces.augmentations import Hard, augmentation
from spaces.augmentations.hard_weights import with_weights
from spaces.core.weights import Learned
from spaces.schedule.schedule import merge


def augmentation_of(state: Mapping[str, Any], weights: Mapping[str, Mapping[str, Tensor]]) -> Hard:
    """Return the hard augmentation, with its augmentor and rules, that the game in `state` had last.

    Args:
        state: State of a game.
        weights: Learned weights that the augmentation may refer to, by their hash.
    """
    found = with_weights(augmentation(state["augment"]), weights)
    if not isinstance(found, Hard):
        raise RequestError("the state of a game must name a hard augmentation", value=found.kind)
    return found


def replayable_phases(
    phases: Sequence[Phase], state: Mapping[str, Any] | None, weights: Mapping[str, Mapping[str, Tensor]]
) -> tuple[Phase, ...]:
    """Return `phases` with each learning augmentor replaced by its weights after each epoch.

    Args:
        phases: Phases from the first epoch of the training on.
        state: State of the game at the end; None if there was none.
        weights: Learned weights that the genomes refer to, by their hash.
    """
    replayed: list[Phase] = []
    for epoch, genome in enumerate(phase.genome for phase in phases for _ in range(phase.epochs)):
        augment = with_weights(genome.augment, weights)
        if isinstance(augment, Hard) and augment.learns and state is not None:
            augment = replace(augment, learned=Learned.of(state["snapshots"][epoch]))
        replayed.append(Phase(1, replace(genome, augment=augment)))
    return merge(replayed)
