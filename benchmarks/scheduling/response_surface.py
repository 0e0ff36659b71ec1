"""A response surface in place of training: what each genome is worth at which epoch, all of it in closed form.

A genome is its numbers, x in [0, 1]^d (`spaces.search_space.encoding`): each operation's probability and magnitude. The best place at
epoch t of T moves from `start` to `end`, x*(t) = start + (end − start) · (t − ½) / T. One epoch under x adds to what a
member has learned

    z(t) = z(t − 1) + LEARNED / T · (1 − CURVATURE · mean((x − x*(t))²)),

its skill is 1 − exp(−z), and its validation score the skill with noise of deviation `NOISE`. So a copy of weights is a
copy of z, the end matters less than the beginning in score and as much in z, and the best genome of an epoch is, number
by number, the one of its grid that is next to x*(t): best schedules and best constants are read off, not searched for.

`moving`: every number has its best place near one end of its range at first, and near the other at last, which way is
drawn; no constant genome comes close to the best schedule. `still`: start and end are one place, drawn anywhere;
nothing is gained by changing a genome but knowing it better, and whoever searches schedules pays for that.

What such a surface cannot show: real training has no such optimum, or several; a genome may pay off much later than it
is in force (here each epoch counts by itself, which is what a greedy search such as PBT assumes); operations are not
independent; noise is not the same everywhere; and here a search's members are trained as long as the full training is.
It says how searches compare where their own assumptions hold or fail in a known way, not how much augmentation helps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from spaces import Genome, Phase, Space
from spaces.search_space.encoding import decode, encode

Array: TypeAlias = npt.NDArray[np.float64]

LEARNED = 3.0
"""z after a full training that was at its best in every epoch: a skill of 0.95."""

CURVATURE = 3.0
"""How much of an epoch's worth is lost by the mean square of the distance; far off, an epoch does harm."""

NOISE = 0.005
"""Of a score: that of a share of 0.95, measured with 2,000 images."""

EDGE = 0.2
"""`moving` begins and ends at most so far from an end of each range."""

KINDS = ("moving", "still")


@dataclass(frozen=True)
class Surface:
    """A surface over the genomes of `space`.

    Args:
        space: without ranges in `distill`: the numbers are the policy's.
        epochs: T, of a full training, and of each member.
        start: (d,), the best place before the first epoch.
        end: (d,), and after the last.
    """

    space: Space
    epochs: int
    start: Array
    end: Array

    @classmethod
    def drawn(cls, kind: str, space: Space, epochs: int, seed: int) -> Surface:
        """One of `KINDS`, drawn with a seed."""
        draw, size = np.random.default_rng([seed, KINDS.index(kind)]), len(encode(space, space.zero()))
        if kind == "still":
            place = draw.uniform(0, 1, size)
            return cls(space, epochs, place, place)
        start, end = draw.uniform(0, EDGE, size), draw.uniform(1 - EDGE, 1, size)
        falls = draw.random(size) < 0.5
        return cls(space, epochs, np.where(falls, end, start), np.where(falls, start, end))

    def best(self, epoch: float) -> Array:
        """x*(t), (d,), for t in 1 … `epochs`."""
        return self.start + (self.end - self.start) * (epoch - 0.5) / self.epochs

    def gain(self, x: Array, epoch: int) -> float:
        """What epoch t under the numbers x, (d,), adds to z."""
        return LEARNED / self.epochs * (1 - CURVATURE * float(np.mean((x - self.best(epoch)) ** 2)))

    def trained(self, phases: Iterable[Phase]) -> float:
        """The skill after a training from the first epoch on under `phases`, without noise."""
        z, epoch = 0.0, 0
        for phase in phases:
            x = encode(self.space, phase.genome)
            z += sum(self.gain(x, epoch + one) for one in range(1, phase.epochs + 1))
            epoch += phase.epochs
        return skill(z)

    def best_phases(self, interval: int) -> list[Phase]:
        """The best schedule that changes its genome every `interval` epochs; `epochs`: the best constant.

        The sum of squares over some epochs is least at the mean of x*(t), and grows with the distance from it: the best
        genome is, number by number, the nearest to that mean.
        """
        phases = []
        for first in range(0, self.epochs, interval):
            count = min(interval, self.epochs - first)
            middle = self.best(first + (count + 1) / 2)
            phases.append(Phase(count, decode(self.space, self.space.zero(), middle)))
        return phases


def skill(z: float) -> float:
    """What a member can do that has learned z."""
    return 1 - math.exp(-z)


@dataclass(frozen=True)
class State:
    """What a checkpoint of a simulated training holds.

    Args:
        epoch: epochs trained.
        z: learned so far.
        history: genomes as plain data, each with the epochs that it was in force.
    """

    epoch: int = 0
    z: float = 0.0
    history: tuple[dict[str, Any], ...] = ()


class Training:
    """A simulated training: what a `RoleTrial` is to a trial, without its training.

    Args:
        surface: that it is trained on.
        validate_every: epochs from one score to the next.
    """

    def __init__(self, surface: Surface, validate_every: int) -> None:
        """Nothing is cached yet."""
        self.surface, self._every = surface, validate_every
        self._known: tuple[Any, Array, dict[str, float]] | None = None

    def step(self, member: dict[str, Any], state: State) -> tuple[State, dict[str, Any]]:
        """One epoch of a member, from `state`: the state after it, and what a real training would report of it."""
        x, strength = self._read(member["genome"])
        epoch, z = state.epoch + 1, state.z + self.surface.gain(x, state.epoch + 1)
        reached = skill(z)
        metrics: dict[str, Any] = {
            "epoch": epoch,
            "loss": 1 - reached,
            "task_loss": 1 - reached,
            "train_accuracy": reached,
            "learning_rate": 0.1 * (1 - epoch / self.surface.epochs),
            "images_per_s": 10_000.0,
            "seconds/train": 1.0,
            "seconds/augment": 0.1,
            **strength,
        }
        if epoch % self._every == 0 or epoch == self.surface.epochs:
            noise = float(np.random.default_rng([member["seed"], epoch]).normal(0, NOISE))
            metrics |= {"validation_accuracy": reached + noise, "validation_loss": 1 - reached, "seconds/validate": 0.1}
        return State(epoch, z, _longer(state.history, member["genome"])), metrics

    def _read(self, genome: dict[str, Any]) -> tuple[Array, dict[str, float]]:
        """The numbers of a genome, and the strengths that a report names; the last one read is remembered."""
        if self._known is None or self._known[0] is not genome:
            value = Genome.from_json(genome)
            strength = {f"policy/{op}/strength": part for op, part in value.policy.strength().items()}
            self._known = genome, encode(self.surface.space, value), strength
        return self._known[1:]


def _longer(history: Sequence[dict[str, Any]], genome: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    if history and (history[-1]["genome"] is genome or history[-1]["genome"] == genome):
        return (*history[:-1], {"epochs": history[-1]["epochs"] + 1, "genome": genome})
    return (*history, {"epochs": 1, "genome": genome})
