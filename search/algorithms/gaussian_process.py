"""PB2's time-varying bandit, which chooses the numbers of a copied genome.

A Gaussian process models the gain in score per epoch as a function of a genome's numbers and of time. The space's own
explore rule proposes a genome; of the numbers within `REACH` of the proposal's, the copy gets those with the highest
upper confidence bound. Choices, such as that of an augmentation, stay as proposed, and so does everything until there
are enough observations.

This departs from the paper, which takes the highest bound of the whole cube: with dozens of numbers and fewer
observations, that lies in an unexplored corner, and does worse than the explore rule alone.

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
"""Number of different genomes that must be observed before numbers are chosen."""

SAME = 1e-9
"""Gains that differ by less are equal: the difference is the rounding of scores."""

MOST = 500
"""Number of the latest observations that the process is fitted to."""

REACH = 0.2
"""Largest distance of each number from the proposal's, as a share of its range."""

STARTS = 4
"""Number of random starts of the search for the highest bound, beside the proposal."""

TRIES = {"maxiter": 50}
"""Optimizer steps from each start."""

LENGTHS = (0.1, 0.25, 0.6, 1.5)
FORGETTING = (0.01, 0.1, 0.4)
NOISES = (0.03, 0.2, 0.6)
"""Grid of hyperparameters; lengths are relative to the cube's diagonal."""


@dataclass(frozen=True)
class Posterior:
    """Posterior of a Gaussian process whose prior has mean 0 and variance 1 − `noise`.

    k((x, t), (x', t')) = (1 − `noise`) · exp(−‖x − x'‖² / 2`length`²) · (1 − `epsilon`)^(|t − t'| / 2)

    Args:
        x: Observed places, (n, d).
        t: Times of the observations, (n,), in intervals.
        y: Observed values, (n,).
        length: Length scale, > 0.
        epsilon: Share that is forgotten per interval, in [0, 1).
        noise: Variance of an observation of `y`, in (0, 1).
    """

    x: Array
    t: Array
    y: Array
    length: float
    epsilon: float
    noise: float

    def kernel(self, x: Array, t: Array) -> Array:
        """Return the kernel, (n, m), of all observed places and those at x, (m, d), and t, (m,)."""
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
        """Logarithm of the marginal likelihood, up to a constant."""
        return float(-0.5 * self.y @ self.weights - np.log(np.diag(self.factor)).sum())

    def at(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation, (m,) each, at x, (m, d), and t, (m,)."""
        k = self.kernel(x, t)
        half = solve_triangular(self.factor, k, lower=True)
        return k.T @ self.weights, np.sqrt(np.maximum(1 - self.noise - (half**2).sum(0), 1e-12))


def fitted(x: Array, t: Array, y: Array) -> Posterior:
    """Return the process of the grid with the highest likelihood of `y`; shapes as in `Posterior`."""
    diagonal = math.sqrt(x.shape[1])
    grid = itertools.product((share * diagonal for share in LENGTHS), FORGETTING, NOISES)
    return max((Posterior(x, t, y, *place) for place in grid), key=lambda model: model.evidence)


class Bound:
    """Upper confidence bound at one time, and its gradient.

    It is mean + √β · standard deviation, with β = 0.2 + ln(0.4 n) for n observations, as PB2's authors have it; where
    the logarithm is negative, 0.2. The mean follows from the observations, the deviation also from the places of other
    pending members, which will be observed whatever the result (GP-BUCB).

    Args:
        model: Posterior of the observations.
        x: Places of pending members, (m, d).
        t: Times of pending members, (m,).
        time: Time of the bound.
    """

    def __init__(self, model: Posterior, x: Array, t: Array, time: float) -> None:
        """Invert the kernel once for all places."""
        places, times = np.concatenate([model.x, x]), np.concatenate([model.t, t])
        self._all = replace(model, x=places, t=times, y=np.zeros(len(times)))
        self._inverse = np.asarray(cho_solve((self._all.factor, True), np.eye(len(times))))
        self._weights = np.concatenate([model.weights, np.zeros(len(t))])
        self._root = math.sqrt(0.2 + max(0.0, math.log(0.4 * len(model.t))))
        self._time = np.array([time])

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return the bound at x, (d,), and its gradient, (d,)."""
        k = self._all.kernel(x[None], self._time)[:, 0]
        spread = self._inverse @ k
        deviation = math.sqrt(max(1 - self._all.noise - float(k @ spread), 1e-12))
        pull = k * (self._root / deviation * spread - self._weights)
        slope = (pull.sum() * x - pull @ self._all.x) / self._all.length**2
        return float(k @ self._weights) + self._root * deviation, slope


class TimeVaryingBandit:
    """Bandit that chooses the numbers of copies; its state follows from the order of calls alone.

    Args:
        space: Space of genomes.
        interval: Epochs between perturbations.
    """

    def __init__(self, space: Space, interval: int) -> None:
        """Begin without observations."""
        self._space, self._interval = space, interval
        self._seen: list[tuple[float, Array, float]] = []
        self._chosen: list[tuple[float, Array]] = []
        self._model: Posterior | None = None

    def observe(self, epoch: int, genome: Genome, gain: float) -> None:
        """Add an observation.

        Args:
            epoch: Epoch at which the interval ended.
            genome: Genome that the member was trained with.
            gain: Gain in score per epoch over the interval; one that is not finite is ignored.
        """
        if not math.isfinite(gain):
            return
        self._seen = [*self._seen, (epoch / self._interval, encode(self._space, genome), gain)][-MOST:]
        self._model = None

    def begin(self, epoch: int) -> None:
        """Begin a perturbation: drop the pending members whose intervals have ended."""
        self._chosen = [(time, vector) for time, vector in self._chosen if time > epoch / self._interval]

    def explore(self, genome: Genome, generator: np.random.Generator, epoch: int) -> Genome:
        """Return the genome of a copy.

        Args:
            genome: Genome of the donor.
            generator: Generator of all draws.
            epoch: Epoch that the copy continues from.
        """
        explored = self._space.explore(genome, generator)
        time = epoch / self._interval + 1
        free = active_mask(self._space, explored)
        if free.any() and self._knows_enough():
            explored = decode(self._space, explored, self._highest(explored, free, time, generator))
        self._chosen.append((time, encode(self._space, explored)))
        return explored

    def _knows_enough(self) -> bool:
        """Return True once different genomes had different gains."""
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
        """Return the numbers with the highest bound within `REACH` of those of `proposal`."""
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
    """Gains of genomes between perturbations, for a bandit to learn from.

    Args:
        bandit: Bandit that learns.
        starts: First genome of each member, by its name.
    """

    def __init__(self, bandit: TimeVaryingBandit, starts: Mapping[str, Genome]) -> None:
        """Begin before the first score."""
        self.bandit = bandit
        self._now = {name: (genome, 0, math.nan) for name, genome in starts.items()}

    def scored(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Begin a perturbation of members with these scores."""
        self.bandit.begin(epoch)
        for name, score in scores.items():
            genome, since, before = self._now[name]
            if epoch > since:
                self.bandit.observe(epoch, genome, (score - before) / (epoch - since))
            self._now[name] = genome, epoch, score

    def copied(self, copies: Iterable[Exploit]) -> None:
        """End a perturbation with these copies: a target continues from its donor's score."""
        for copy in copies:
            _, _, score = self._now[copy.donor]
            self._now[copy.target] = copy.after, copy.epoch, score
