"""How often a noisy validation score selects the better members, for measured or simulated predictions.

Everything starts from `correct`, a boolean array (M, K, P): True if member m classifies image p of a pool correctly
after the k-th of its last K epochs. The true accuracy is the share of the pool. A score is the share of N images drawn
from the pool *with replacement*, the same images for all members and epochs, as in a sweep. So N may exceed P.

The simulated `correct` has one threshold per image. A member is correct where

    a_m + w_mk + √ρ·d_p + √(κ − ρ)·u_mp + √(1 − κ)·v_mkp > 0,     d, u, v standard normal.

ρ is the correlation between members (images that are hard for all), κ the correlation between epochs of one member, and
w the variation of a member's true accuracy between epochs. `PopulationStatistics.fit` estimates all of them from a
measured `correct`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq

Array: TypeAlias = npt.NDArray[np.float64]
Correct: TypeAlias = npt.NDArray[np.bool_]

RULES = ("last", "mean", "max")
"""Rules that combine the scores of the last epochs."""


@dataclass(frozen=True)
class SelectionQuality:
    """Quality of a selection by score, as the mean over many draws of the images.

    Args:
        ordered_pairs: Share of all pairs in the right order. A tie counts one half.
        best: Share of draws in which the member with the highest score is the best.
        quantile: Share of the members selected for the upper and the lower quantile that belong there.
        regret: True accuracy of the best member minus that of the member with the highest score.
    """

    ordered_pairs: float
    best: float
    quantile: float
    regret: float


def sample_scores(correct: Correct, size: int, *, draws: int, seed: int) -> Array:
    """Return the scores of all members and epochs, (draws, M, K), each draw with `size` other images of the pool."""
    members, epochs, pool = correct.shape
    generator = np.random.default_rng([seed, size])
    counts = generator.multinomial(size, np.full(pool, 1 / pool), draws).astype(np.float32)
    hits = counts @ correct.reshape(-1, pool).astype(np.float32).T
    return np.rint(hits).astype(np.float64).reshape(draws, members, epochs) / size


def apply_rule(scores: Array, rule: str, epochs: int) -> Array:
    """Combine the scores (…, K) of the last `epochs` epochs by a rule of `RULES`; `last` uses one epoch only."""
    recent = scores[..., -epochs:]
    return {"last": recent[..., -1], "mean": recent.mean(axis=-1), "max": recent.max(axis=-1)}[rule]


def selection_quality(scores: Array, truth: Array, share: float) -> SelectionQuality:
    """Return the quality of selections by score. Ties go to the first member.

    Args:
        scores: Scores (draws, M).
        truth: True accuracies (M,) of the last weights, which are the ones that a search copies.
        share: Share of the members in a quantile.
    """
    first, second = np.triu_indices(len(truth), 1)
    order = np.sign(truth[first] - truth[second])
    agreement = (1 + np.sign(scores[:, first] - scores[:, second]) * order) / 2
    ordered = float(agreement[:, order != 0].mean()) if order.any() else math.nan
    ranked, ideal = np.argsort(-scores, axis=1, kind="stable"), -np.sort(-truth)
    count = min(math.ceil(len(truth) * share), len(truth) // 2)
    # A member as accurate as the last one of a quantile belongs there, too.
    upper, lower = truth[ranked[:, :count]] >= ideal[count - 1], truth[ranked[:, -count:]] <= ideal[-count]
    selected = truth[ranked[:, 0]]
    return SelectionQuality(
        ordered,
        float((selected == ideal[0]).mean()),
        float((upper.mean() + lower.mean()) / 2),
        float((ideal[0] - selected).mean()),
    )


@dataclass(frozen=True)
class PopulationModel:
    """Distribution of simulated predictions.

    Args:
        level: Mean of a.
        spread: Standard deviation of a between members.
        epoch_noise: Standard deviation of w between the epochs of a member.
        member_correlation: ρ.
        epoch_correlation: κ, at least ρ.
    """

    level: float
    spread: float
    epoch_noise: float
    member_correlation: float
    epoch_correlation: float

    def sample(self, members: int, epochs: int, pool: int, seed: int) -> Correct:
        """Draw predictions (M, K, P)."""
        generator = np.random.default_rng(seed)
        ability = self.level + self.spread * generator.standard_normal((members, 1))
        ability = ability + self.epoch_noise * generator.standard_normal((members, epochs))
        of_member = math.sqrt(max(0.0, self.epoch_correlation - self.member_correlation))
        member = of_member * generator.standard_normal((members, 1, pool), np.float32)
        epoch = math.sqrt(1 - self.epoch_correlation) * generator.standard_normal((members, epochs, pool), np.float32)
        image = math.sqrt(self.member_correlation) * generator.standard_normal(pool, np.float32)
        return np.asarray(ability[..., None] + image + member + epoch > 0)


@dataclass(frozen=True)
class PopulationStatistics:
    """Accuracy and agreement of the members of a population.

    Args:
        accuracy: Mean over members and epochs.
        spread: Standard deviation of the members' mean accuracy.
        epoch_noise: Standard deviation of a member's accuracy between its epochs.
        disagreement: Share of the images that exactly one of two members classifies correctly.
        epoch_disagreement: The same for two epochs of one member.
    """

    accuracy: float
    spread: float
    epoch_noise: float
    disagreement: float
    epoch_disagreement: float

    @classmethod
    def measure(cls, correct: Correct) -> PopulationStatistics:
        """Return the statistics of predictions (M, K, P)."""
        members, epochs, pool = correct.shape
        flat = correct.reshape(members * epochs, pool).astype(np.float32)
        both = flat @ flat.T / pool
        each = np.diag(both)
        differ = (each[:, None] + each[None, :] - 2 * both).reshape(members, epochs, members, epochs)
        same_member, same_epoch = np.eye(members, dtype=bool), np.eye(epochs, dtype=bool)
        by_pair = differ.transpose(0, 2, 1, 3)
        accuracy = each.reshape(members, epochs)
        return cls(
            float(accuracy.mean()),
            float(accuracy.mean(axis=1).std(ddof=1)),
            float(np.sqrt(accuracy.var(axis=1, ddof=1).mean())) if epochs > 1 else 0.0,
            float(by_pair[..., same_epoch][~same_member].mean()),
            float(by_pair[same_member][:, ~same_epoch].mean()) if epochs > 1 else 0.0,
        )

    def fit(self, pool: int, epochs: int) -> PopulationModel:
        """Return the model with these statistics in a pool of that size, whose sampling noise is subtracted."""
        accuracy = min(max(self.accuracy, 0.01), 0.99)
        level = float(stats.norm.ppf(accuracy))
        slope = float(stats.norm.pdf(level))
        sampling = (self.disagreement - self.epoch_disagreement * (1 - 1 / epochs)) / (2 * pool)
        variance = self.spread**2 - max(0.0, sampling) - self.epoch_noise**2 / epochs
        epoch_variance = self.epoch_noise**2 - self.epoch_disagreement / (2 * pool)
        rho = correlation(level, self.disagreement)
        return PopulationModel(
            level,
            math.sqrt(max(0.0, variance)) / slope,
            math.sqrt(max(0.0, epoch_variance)) / slope,
            rho,
            max(rho, correlation(level, self.epoch_disagreement)),
        )


def correlation(level: float, disagreement: float) -> float:
    """Return ρ of two standard normals that lie on different sides of −`level` with probability `disagreement`."""
    least, most = 0.0, 0.999

    def excess(rho: float) -> float:
        both = stats.multivariate_normal.cdf([level, level], mean=[0, 0], cov=[[1, rho], [rho, 1]])
        return 2 * (float(stats.norm.cdf(level)) - float(both)) - disagreement

    if excess(least) <= 0:
        return least
    return most if excess(most) >= 0 else float(brentq(excess, least, most, xtol=1e-4))
