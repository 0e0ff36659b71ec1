"""How often a noisy score picks the better members: from who answers which image rightly, measured or simulated.

Everything starts from `right`, (M, K, P): whether member m, after the k-th of its last K epochs, answers image p of a
pool. The truth is the share of the pool; a score is that of N images drawn from the pool *with replacement*, the same
ones for all members and epochs, as a sweep has it. So N may be more than P, and no image is both scored and true.

The simulated `right` has a threshold for each image: a member answers rightly where

    a_m + w_mk + √ρ·d_p + √(κ − ρ)·u_mp + √(1 − κ)·v_mkp > 0,     d, u, v normal,

so that ρ says how alike two members err (hard images are hard for both), κ how alike one member does from epoch to
epoch, and w how much an epoch's luck moves its true accuracy. `fitted` takes all of them off a measured one.
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
Right: TypeAlias = npt.NDArray[np.bool_]

RULES = ("last", "mean", "max")
"""What is made of the scores of the last epochs."""


@dataclass(frozen=True)
class Quality:
    """How good a choice by score is; each the mean over many draws of the images.

    Args:
        right: share of all pairs that are in their right order; a tie counts one half.
        best: the member of the highest score is the best.
        quantile: share of the members in the upper and in the lower quantile that belong there.
        regret: the best member's true accuracy less that of the one with the highest score.
    """

    right: float
    best: float
    quantile: float
    regret: float


def scores(right: Right, size: int, *, draws: int, seed: int) -> Array:
    """The scores of all members and epochs, (draws, M, K), each with other `size` images of the pool."""
    members, epochs, pool = right.shape
    draw = np.random.default_rng([seed, size])
    counts = draw.multinomial(size, np.full(pool, 1 / pool), draws).astype(np.float32)
    hits = counts @ right.reshape(-1, pool).astype(np.float32).T
    return np.rint(hits).astype(np.float64).reshape(draws, members, epochs) / size


def ruled(scored: Array, rule: str, epochs: int) -> Array:
    """What a rule of `RULES` makes of the scores (…, K) of the last `epochs` epochs; `last` takes one alone."""
    recent = scored[..., -epochs:]
    return {"last": recent[..., -1], "mean": recent.mean(axis=-1), "max": recent.max(axis=-1)}[rule]


def judged(score: Array, truth: Array, share: float) -> Quality:
    """What choosing by scores (draws, M) is worth, where the true accuracy is `truth`, (M,); ties go to the first.

    The truth is the accuracy of the last weights: these are what is copied. A quantile has `share` of the members.
    """
    first, second = np.triu_indices(len(truth), 1)
    true = np.sign(truth[first] - truth[second])
    agree = (1 + np.sign(score[:, first] - score[:, second]) * true) / 2
    ordered = float(agree[:, true != 0].mean()) if true.any() else math.nan
    ranked, ideal = np.argsort(-score, axis=1, kind="stable"), -np.sort(-truth)
    count = min(math.ceil(len(truth) * share), len(truth) // 2)
    # Who has the same accuracy as the last that belongs there, belongs there too.
    upper, lower = truth[ranked[:, :count]] >= ideal[count - 1], truth[ranked[:, -count:]] <= ideal[-count]
    chosen = truth[ranked[:, 0]]
    return Quality(
        ordered,
        float((chosen == ideal[0]).mean()),
        float((upper.mean() + lower.mean()) / 2),
        float((ideal[0] - chosen).mean()),
    )


@dataclass(frozen=True)
class Population:
    """What `right` is drawn from.

    Args:
        level: mean of a.
        spread: standard deviation of a between members.
        luck: of w between a member's epochs.
        alike: ρ.
        steady: κ, at least ρ.
    """

    level: float
    spread: float
    luck: float
    alike: float
    steady: float

    def draw(self, members: int, epochs: int, pool: int, seed: int) -> Right:
        """(M, K, P)."""
        draw = np.random.default_rng(seed)
        place = self.level + self.spread * draw.standard_normal((members, 1))
        place = place + self.luck * draw.standard_normal((members, epochs))
        own = math.sqrt(max(0.0, self.steady - self.alike)) * draw.standard_normal((members, 1, pool), np.float32)
        moving = math.sqrt(1 - self.steady) * draw.standard_normal((members, epochs, pool), np.float32)
        hard = math.sqrt(self.alike) * draw.standard_normal(pool, np.float32)
        return np.asarray(place[..., None] + hard + own + moving > 0)


@dataclass(frozen=True)
class Figures:
    """What a population looks like.

    Args:
        accuracy: mean over members and epochs.
        spread: standard deviation of the members' mean accuracy.
        luck: that of a member's accuracy between its epochs.
        apart: share of the images that one of two members answers rightly, and the other not.
        changed: the same of one member's epochs.
    """

    accuracy: float
    spread: float
    luck: float
    apart: float
    changed: float

    @classmethod
    def of(cls, right: Right) -> Figures:
        """Those of (M, K, P)."""
        members, epochs, pool = right.shape
        flat = right.reshape(members * epochs, pool).astype(np.float32)
        both = flat @ flat.T / pool
        each = np.diag(both)
        apart = (each[:, None] + each[None, :] - 2 * both).reshape(members, epochs, members, epochs)
        own, at = np.eye(members, dtype=bool), np.eye(epochs, dtype=bool)
        same_epoch = apart.transpose(0, 2, 1, 3)[..., at]
        accuracy = each.reshape(members, epochs)
        return cls(
            float(accuracy.mean()),
            float(accuracy.mean(axis=1).std(ddof=1)),
            float(np.sqrt(accuracy.var(axis=1, ddof=1).mean())) if epochs > 1 else 0.0,
            float(same_epoch[~own].mean()),
            float(apart.transpose(0, 2, 1, 3)[own][:, ~at].mean()) if epochs > 1 else 0.0,
        )

    def fitted(self, pool: int, epochs: int) -> Population:
        """The population that looks like this in a pool of so many images, whose own chance is taken off."""
        accuracy = min(max(self.accuracy, 0.01), 0.99)
        level = float(stats.norm.ppf(accuracy))
        slope = float(stats.norm.pdf(level))
        by_chance = (self.apart - self.changed * (1 - 1 / epochs)) / (2 * pool)
        spread = math.sqrt(max(0.0, self.spread**2 - max(0.0, by_chance) - self.luck**2 / epochs)) / slope
        luck = math.sqrt(max(0.0, self.luck**2 - self.changed / (2 * pool))) / slope
        alike = correlation(level, self.apart)
        return Population(level, spread, luck, alike, max(alike, correlation(level, self.changed)))


def correlation(level: float, apart: float) -> float:
    """ρ of two normal variables that lie on different sides of −`level` with probability `apart`."""
    least, most = 0.0, 0.999

    def excess(rho: float) -> float:
        both = stats.multivariate_normal.cdf([level, level], mean=[0, 0], cov=[[1, rho], [rho, 1]])
        return 2 * (float(stats.norm.cdf(level)) - float(both)) - apart

    if excess(least) <= 0:
        return least
    return most if excess(most) >= 0 else float(brentq(excess, least, most, xtol=1e-4))
