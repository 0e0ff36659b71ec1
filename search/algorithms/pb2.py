"""Where a copy goes on: the numbers of its genome, chosen by a bandit that learns from all members what has paid.

A Gaussian process models what a genome's numbers gain in score per epoch, and that this changes as training goes on.
The space's own explore rule proposes a genome; of the numbers within reach of the proposal's, the copy gets those with
the highest upper confidence bound. Choices, such as that of an augmentation, stay as they were proposed, and so does
everything until there is enough to learn from.

Here this departs from the paper, which takes the highest bound of the whole cube: with dozens of numbers, and fewer
observations, that lies in the corner where nobody was, and does worse than the explore rule alone.

Source: PB2 (Parker-Holder et al. 2020, https://arxiv.org/abs/2002.02518), with its kernel (Bogunovic et al. 2016,
https://arxiv.org/abs/1601.06650) and its batches (GP-BUCB, Desautels et al. 2014,
https://jmlr.org/papers/v15/desautels14a.html).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from results.runlog.lineage import Exploit
from spaces import Genome, Space
from spaces.search_space.encoding import active_mask, decode, encode

Array: TypeAlias = npt.NDArray[np.float64]

LEAST = 4
"""So many different genomes, or more, have to be observed before numbers are chosen."""

SAME = 1e-9
"""Gains that are this close do not differ: they come from the rounding of scores."""

MOST = 500
"""So many of the latest observations are learned from."""

REACH = 0.2
"""How far each number may be from the proposal's, as a share of its range."""

STARTS = 4
"""So many random places, beside the proposal itself, where the search for the highest bound starts."""

TRIES = {"maxiter": 50}
"""Steps from each of them."""

LENGTHS = (0.1, 0.25, 0.6, 1.5)
FORGETTING = (0.01, 0.1, 0.4)
NOISES = (0.03, 0.2, 0.6)
"""Where the likelihood is looked at; lengths are relative to the cube's diagonal."""


@dataclass(frozen=True)
class Posterior:
    """A Gaussian process, given what was observed; its prior has mean 0 and variance 1 − `noise`.

    k((x, t), (x', t')) = (1 − `noise`) · exp(−‖x − x'‖² / 2`length`²) · (1 − `epsilon`)^(|t − t'| / 2)

    Args:
        x: (n, d).
        t: (n,), in the unit of which `epsilon` is forgotten.
        y: (n,).
        length: > 0.
        epsilon: in [0, 1).
        noise: variance of an observation of `y`, in (0, 1).
    """

    x: Array
    t: Array
    y: Array
    length: float
    epsilon: float
    noise: float

    def kernel(self, x: Array, t: Array) -> Array:
        """Of all observed places, and those at x, (m, d), and t, (m,): (n, m)."""
        squares = (self.x**2).sum(1)[:, None] + (x**2).sum(1)[None, :] - 2 * self.x @ x.T
        apart = np.abs(self.t[:, None] - t[None, :])
        near = np.maximum(squares, 0) / (2 * self.length**2) - math.log1p(-self.epsilon) / 2 * apart
        return np.asarray((1 - self.noise) * np.exp(-near))

    @cached_property
    def factor(self) -> Array:
        """L, (n, n), with LLᵀ = K + noise."""
        return np.asarray(cholesky(self.kernel(self.x, self.t) + self.noise * np.eye(len(self.t)), lower=True))

    @cached_property
    def weights(self) -> Array:
        """(K + noise)⁻¹y: (n,)."""
        return np.asarray(cho_solve((self.factor, True), self.y))

    @property
    def evidence(self) -> float:
        """The logarithm of the marginal likelihood, but for a constant."""
        return float(-0.5 * self.y @ self.weights - np.log(np.diag(self.factor)).sum())

    def at(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at x, (m, d), and t, (m,): (m,) each."""
        k = self.kernel(x, t)
        half = solve_triangular(self.factor, k, lower=True)
        return k.T @ self.weights, np.sqrt(np.maximum(1 - self.noise - (half**2).sum(0), 1e-12))


def fitted(x: Array, t: Array, y: Array) -> Posterior:
    """Of all processes that are looked at the one that makes `y` likeliest; shapes as `Posterior` has them."""
    diagonal = math.sqrt(x.shape[1])
    grid = itertools.product((share * diagonal for share in LENGTHS), FORGETTING, NOISES)
    return max((Posterior(x, t, y, *place) for place in grid), key=lambda model: model.evidence)


class Bound:
    """The upper confidence bound at one time, and its slope.

    It is mean + √β · standard deviation, with β = 0.2 + ln(0.4 n) for n observations, as PB2's authors have it; where
    the logarithm is negative, 0.2. The mean follows from what was observed, the deviation also from where somebody is
    already: whatever will be seen there, that place will be known better (GP-BUCB).

    Args:
        model: what was observed.
        x: (m, d), where somebody is already.
        t: (m,), when.
        time: at which the bound is asked for.
    """

    def __init__(self, model: Posterior, x: Array, t: Array, time: float) -> None:
        """Invert once what every place needs."""
        places, times = np.concatenate([model.x, x]), np.concatenate([model.t, t])
        self._all = replace(model, x=places, t=times, y=np.zeros(len(times)))
        self._inverse = np.asarray(cho_solve((self._all.factor, True), np.eye(len(times))))
        self._weights = np.concatenate([model.weights, np.zeros(len(t))])
        self._root = math.sqrt(0.2 + max(0.0, math.log(0.4 * len(model.t))))
        self._time = np.array([time])

    def __call__(self, x: Array) -> tuple[float, Array]:
        """The bound at x, (d,), and its gradient, (d,)."""
        k = self._all.kernel(x[None], self._time)[:, 0]
        spread = self._inverse @ k
        deviation = math.sqrt(max(1 - self._all.noise - float(k @ spread), 1e-12))
        pull = k * (self._root / deviation * spread - self._weights)
        slope = (pull.sum() * x - pull @ self._all.x) / self._all.length**2
        return float(k @ self._weights) + self._root * deviation, slope


class TimeVaryingBandit:
    """What chooses the numbers of copies. Its state follows from the calls, in their order, and from nothing else.

    Args:
        space: where genomes may move.
        interval: epochs from one perturbation to the next.
    """

    def __init__(self, space: Space, interval: int) -> None:
        """Nothing is known."""
        self._space, self._interval = space, interval
        self._seen: list[tuple[float, Array, float]] = []
        self._chosen: list[tuple[float, Array]] = []
        self._model: Posterior | None = None

    def observe(self, epoch: int, genome: Genome, gain: float) -> None:
        """Learn what a member gained.

        Args:
            epoch: at which the interval ended.
            genome: that it was trained with.
            gain: in score per epoch, over the interval; one that is not finite says nothing.
        """
        if not math.isfinite(gain):
            return
        self._seen = [*self._seen, (epoch / self._interval, encode(self._space, genome), gain)][-MOST:]
        self._model = None

    def begin(self, epoch: int) -> None:
        """A perturbation begins: what was chosen for intervals that have ended by now is awaited no more."""
        self._chosen = [(time, vector) for time, vector in self._chosen if time > epoch / self._interval]

    def explore(self, genome: Genome, generator: np.random.Generator, epoch: int) -> Genome:
        """The genome that a copy goes on with.

        Args:
            genome: the donor's.
            generator: of all draws.
            epoch: that the copy goes on from.
        """
        explored = self._space.explore(genome, generator)
        time = epoch / self._interval + 1
        free = active_mask(self._space, explored)
        if free.any() and self._knows_enough():
            explored = decode(self._space, explored, self._highest(explored, free, time, generator))
        self._chosen.append((time, encode(self._space, explored)))
        return explored

    def _knows_enough(self) -> bool:
        """Whether different genomes gained differently."""
        genomes = {vector.tobytes() for _, vector, _ in self._seen}
        return len(genomes) >= LEAST and bool(np.ptp([gain for *_, gain in self._seen]) > SAME)

    def _fitted(self) -> Posterior:
        if self._model is None:
            t, x, y = map(np.array, zip(*self._seen, strict=True))
            self._model = fitted(x, t, (y - y.mean()) / y.std())
        return self._model

    def _highest(
        self, proposal: Genome, free: npt.NDArray[np.bool_], time: float, generator: np.random.Generator
    ) -> Array:
        """The numbers within reach of those of `proposal` that have the highest bound."""
        vector = encode(self._space, proposal)
        x = np.array([there for _, there in self._chosen]).reshape(-1, len(vector))
        bound = Bound(self._fitted(), x, np.array([when for when, _ in self._chosen]), time)

        def cost(part: Array) -> tuple[float, Array]:
            vector[free] = part
            value, slope = bound(vector)
            return -value, -slope[free]

        low, high = np.maximum(vector[free] - REACH, 0), np.minimum(vector[free] + REACH, 1)
        starts = [vector[free], *generator.uniform(low, high, (STARTS, len(low)))]
        limits = list(zip(low, high, strict=True))
        found = [minimize(cost, start, jac=True, method="L-BFGS-B", bounds=limits, options=TRIES) for start in starts]
        vector[free] = min(found, key=lambda result: float(result.fun)).x
        return vector


class RewardHistory:
    """What each genome gained from one perturbation to the next, for a bandit to learn from.

    Args:
        bandit: that learns.
        starts: each member's first genome, by its name.
    """

    def __init__(self, bandit: TimeVaryingBandit, starts: Mapping[str, Genome]) -> None:
        """Nobody was scored yet."""
        self.bandit = bandit
        self._now = {name: (genome, 0, math.nan) for name, genome in starts.items()}

    def scored(self, epoch: int, scores: Mapping[str, float]) -> None:
        """A perturbation begins, of members that had these scores."""
        self.bandit.begin(epoch)
        for name, score in scores.items():
            genome, since, before = self._now[name]
            if epoch > since:
                self.bandit.observe(epoch, genome, (score - before) / (epoch - since))
            self._now[name] = genome, epoch, score

    def copied(self, copies: Iterable[Exploit]) -> None:
        """It ended with these copies: a target goes on from its donor's score with a genome of its own."""
        for copy in copies:
            _, _, score = self._now[copy.donor]
            self._now[copy.target] = copy.after, copy.epoch, score
