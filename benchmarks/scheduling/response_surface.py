"""Response surface in place of training: the value of each genome at each epoch, in closed form.

A genome is a vector x in [0, 1]^d (`spaces.search_space.encoding`): the probability and the magnitude of each
operation. The optimum at epoch t of T moves from `start` to `end`, x*(t) = start + (end − start) · (t − ½) / T. One
epoch under x adds to the progress z of a member

    z(t) = z(t − 1) + TOTAL_PROGRESS / T · (1 − CURVATURE · mean((x − x*(t))²)).

Its skill is 1 − exp(−z), and its validation score the skill plus noise of standard deviation `NOISE`. Copying weights
means copying z. The last epochs change the score less than the first ones, but z equally. The best genome of an epoch
is, number by number, the grid point nearest to x*(t). So the best schedule and the best constant genome are known
without a search.

`moving`: the optimum of every number starts near one end of its range and ends near the other; the direction is random.
No constant genome comes close to the best schedule. `still`: start and end are the same random point. Changing a genome
then gains nothing except better knowledge of the optimum, so searching schedules has a cost only.

Limits: real training has no such optimum, or several. A genome may pay off much later than it is used; here each epoch
counts by itself, as a greedy search such as PBT assumes. Operations are not independent. Noise is not the same
everywhere. And here the members of a search are trained as long as the final training. The surface shows how searches
compare where their assumptions hold or fail in a known way, not how much augmentation helps.
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

TOTAL_PROGRESS = 3.0
"""z after a training under the best genome in every epoch: a skill of 0.95."""

CURVATURE = 3.0
"""Loss of an epoch's progress per mean squared distance from the optimum. Far from it, progress is negative."""

NOISE = 0.005
"""Standard deviation of a score: that of an accuracy of 0.95 on 2,000 images."""

EDGE = 0.2
"""Maximum distance of the first and the last optimum of `moving` from an end of the range."""

KINDS = ("moving", "still")


@dataclass(frozen=True)
class Surface:
    """Response surface over the genomes of a search space.

    Args:
        space: Search space without ranges in `distill`, so that all numbers belong to the policy.
        epochs: Epochs T of a training and of each member.
        start: Optimum (d,) before the first epoch.
        end: Optimum (d,) after the last epoch.
    """

    space: Space
    epochs: int
    start: Array
    end: Array

    @classmethod
    def sample(cls, kind: str, space: Space, epochs: int, seed: int) -> Surface:
        """Draw a surface of one of `KINDS`."""
        generator, size = np.random.default_rng([seed, KINDS.index(kind)]), len(encode(space, space.zero()))
        if kind == "still":
            optimum = generator.uniform(0, 1, size)
            return cls(space, epochs, optimum, optimum)
        start, end = generator.uniform(0, EDGE, size), generator.uniform(1 - EDGE, 1, size)
        falls = generator.random(size) < 0.5
        return cls(space, epochs, np.where(falls, end, start), np.where(falls, start, end))

    def optimum(self, epoch: float) -> Array:
        """Return x*(t), (d,), for t from 1 to `epochs`."""
        return self.start + (self.end - self.start) * (epoch - 0.5) / self.epochs

    def gain(self, x: Array, epoch: int) -> float:
        """Return the progress of epoch t under the numbers x (d,)."""
        return TOTAL_PROGRESS / self.epochs * (1 - CURVATURE * float(np.mean((x - self.optimum(epoch)) ** 2)))

    def final_skill(self, phases: Iterable[Phase]) -> float:
        """Return the skill after a training under `phases`, without noise."""
        z, epoch = 0.0, 0
        for phase in phases:
            x = encode(self.space, phase.genome)
            z += sum(self.gain(x, epoch + offset) for offset in range(1, phase.epochs + 1))
            epoch += phase.epochs
        return skill(z)

    def best_phases(self, interval: int) -> list[Phase]:
        """Return the best schedule that changes its genome every `interval` epochs; `epochs` gives the best constant.

        The sum of squares over some epochs is smallest at the mean of x*(t) and grows with the distance from it. So the
        best genome is, number by number, the grid point nearest to that mean.
        """
        phases = []
        for first in range(0, self.epochs, interval):
            count = min(interval, self.epochs - first)
            mean = self.optimum(first + (count + 1) / 2)
            phases.append(Phase(count, decode(self.space, self.space.zero(), mean)))
        return phases


def skill(z: float) -> float:
    """Return the skill of a member with progress z."""
    return 1 - math.exp(-z)


@dataclass(frozen=True)
class State:
    """State of a simulated training.

    Args:
        epoch: Epochs trained.
        z: Progress.
        history: Genomes as JSON, each with the number of epochs that it was used.
    """

    epoch: int = 0
    z: float = 0.0
    history: tuple[dict[str, Any], ...] = ()


class SimulatedTraining:
    """Simulated training, in place of `RoleTrial`.

    Args:
        surface: Surface that gives the progress.
        validate_every: Epochs between two validation scores.
    """

    def __init__(self, surface: Surface, validate_every: int) -> None:
        """Start with an empty cache."""
        self.surface, self._validate_every = surface, validate_every
        self._cached: tuple[Any, Array, dict[str, float]] | None = None

    def step(self, member: dict[str, Any], state: State) -> tuple[State, dict[str, Any]]:
        """Train a member for one epoch, and return the new state and the metrics that a real training reports."""
        x, strength = self._read(member["genome"])
        epoch, z = state.epoch + 1, state.z + self.surface.gain(x, state.epoch + 1)
        accuracy = skill(z)
        metrics: dict[str, Any] = {
            "epoch": epoch,
            "loss": 1 - accuracy,
            "task_loss": 1 - accuracy,
            "train_accuracy": accuracy,
            "learning_rate": 0.1 * (1 - epoch / self.surface.epochs),
            "images_per_s": 10_000.0,
            "seconds/train": 1.0,
            "seconds/augment": 0.1,
            **strength,
        }
        if epoch % self._validate_every == 0 or epoch == self.surface.epochs:
            noise = float(np.random.default_rng([member["seed"], epoch]).normal(0, NOISE))
            metrics |= {
                "validation_accuracy": accuracy + noise,
                "validation_loss": 1 - accuracy,
                "seconds/validate": 0.1,
            }
        return State(epoch, z, _extend(state.history, member["genome"])), metrics

    def _read(self, genome: dict[str, Any]) -> tuple[Array, dict[str, float]]:
        """Return the numbers of a genome and the strengths of its report; the last genome is cached."""
        if self._cached is None or self._cached[0] is not genome:
            value = Genome.from_json(genome)
            strength = {f"policy/{op}/strength": part for op, part in value.policy.strength().items()}
            self._cached = genome, encode(self.surface.space, value), strength
        return self._cached[1:]


def _extend(history: Sequence[dict[str, Any]], genome: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    if history and (history[-1]["genome"] is genome or history[-1]["genome"] == genome):
        return (*history[:-1], {"epochs": history[-1]["epochs"] + 1, "genome": genome})
    return (*history, {"epochs": 1, "genome": genome})
