"""T. stddev: how far a teacher's mean answer wanders from one handful of images to the next. Lower is better.

A good augmentation for distillation lowers the covariance of the cross-entropy between teacher and student; the
spread of the teacher's own mean answer follows it, and needs no student.

Source: Wang et al. 2022 (NeurIPS), https://arxiv.org/abs/2012.02909.
Letters: K classes, M means, R replicates, N images in the set, n different images a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spaces import Genome, RequestError

BATCHES = 5
"""Batches a mean, as in the authors' code."""

SAMPLE = 2048
"""Of so many images at most the spread without augmentation is taken."""


class TStddev:
    """The mean over the K classes of the unbiased standard deviation, over the M means, of the mean probability.

    Answers stream in; memory does not grow with M. The interval is a Poisson bootstrap over the means: each of R
    replicates counts each mean as often as a Poisson variable of mean 1 says. Two of these with the same seed weigh
    their means alike, so that their ratio is a paired one. Since a replicate repeats means, its own spread is smaller,
    by about 3/(4M), which over many classes is more than the interval is wide: so the replicates are scaled to have the
    value as their mean.

    Args:
        rows: answers a mean.
        seed: of the bootstrap.
        replicates: R; 0: no interval.
    """

    def __init__(self, rows: int, *, seed: int = 0, replicates: int = 0) -> None:
        """Nothing was seen yet."""
        if rows < 1:
            raise RequestError("a mean takes one row or more", value=rows)
        self.rows = rows
        self._generator = torch.Generator().manual_seed(seed)
        self._replicates = replicates
        self._pending: Tensor | None = None
        self._seen = 0
        self._sums: Tensor | None = None
        self.means = 0

    def add(self, probabilities: Tensor) -> None:
        """Take in answers (B, K), each a distribution over the classes; B may be anything."""
        start = 0
        while start < len(probabilities):
            part = probabilities[start : start + self.rows - self._seen].detach().double()
            total = part.sum(dim=0)
            # A state comes from its file on the CPU, wherever the answers are.
            self._pending = total if self._pending is None else self._pending.to(total.device) + total
            self._seen += len(part)
            start += len(part)
            if self._seen == self.rows:
                self._close(self._pending / self.rows)
                self._pending, self._seen = None, 0

    @property
    def value(self) -> float:
        """T. stddev so far; NaN before the second mean."""
        return float(self.replicates()[0])

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The bootstrap's interval for `value`; NaN without replicates."""
        return percentiles(self.replicates()[1:], level)

    def replicates(self) -> Tensor:
        """The value, and that of each replicate, (1 + R,)."""
        if self._sums is None:
            return torch.full((1 + self._replicates,), math.nan, dtype=torch.float64)
        count, first, second = self._sums
        spread = (second - first * first / count).clamp(min=0) / (count - 1)
        values = torch.where(count[:, 0] > 1, spread.sqrt().mean(dim=1), math.nan)
        values[1:] *= values[0] / values[1:].nanmean().clamp(min=torch.finfo(values.dtype).tiny)
        return values

    def _close(self, mean: Tensor) -> None:
        weights = torch.ones(1 + self._replicates, dtype=torch.float64)
        if self._replicates:
            weights[1:] = torch.poisson(weights[1:], generator=self._generator)
        weights = weights.to(mean.device).unsqueeze(1).expand(-1, len(mean))
        added = torch.stack((weights, weights * mean, weights * mean * mean))
        self._sums = added if self._sums is None else self._sums.to(added.device) + added
        self.means += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that was seen."""
        state = {"rows": self.rows, "seen": self._seen, "means": self.means}
        return state | {"pending": self._pending, "sums": self._sums, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.rows, self._seen, self.means = state["rows"], state["seen"], state["means"]
        self._pending, self._sums = state["pending"], state["sums"]
        self._generator.set_state(state["generator"])


class RunningTStddev:
    """T. stddev of what a student in training is shown, over what it would be without augmentation.

    It starts anew with every genome. A mean takes up to five batches, fewer where an epoch has fewer than ten.

    Args:
        ask: rows of the training set (M,) → the teacher's logits on these images as they are, (M, K).
        total: images in the training set.
        batch: images in a batch.
    """

    def __init__(self, ask: Callable[[Tensor], Tensor], total: int, batch: int) -> None:
        """Nothing was seen yet."""
        self._ask, self._total, self._batch = ask, total, batch
        steps = max(1, total // batch)
        self._batches = max(1, min(BATCHES, steps // 2))
        self._per_epoch = max(1, steps // self._batches)
        self._deviation: float | None = None
        self._genome: Genome | None = None
        self._metric = TStddev(1)

    def begin(self, genome: Genome) -> None:
        """An epoch under `genome` begins."""
        if genome != self._genome:
            views = 2 if genome.has_view else 1
            self._genome, self._metric = genome, TStddev(views * self._batches * self._batch)

    def add(self, *logits: Tensor) -> None:
        """Take in the teacher's logits on one batch, (B, K) for each of its views."""
        self._metric.add(torch.cat([part.detach().float() for part in logits]).softmax(dim=1))

    def ratio(self) -> float | None:
        """Below 1 is better than no augmentation; None while there is nothing to compare."""
        if self._metric.means < 2:
            return None
        if self._deviation is None:
            rows = torch.randperm(self._total, generator=torch.Generator().manual_seed(0))[:SAMPLE]
            self._deviation = mean_deviation(self._ask(rows).float().softmax(dim=1))
        images, means = self._batches * self._batch, self._metric.means
        reference = identity_reference(self._deviation, self._total, images, means, self._per_epoch)
        return self._metric.value / reference if reference > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """What was seen, and under which genome."""
        genome = self._genome.to_json() if self._genome is not None else None
        return {"genome": genome, "metric": self._metric.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._genome = Genome.from_json(state["genome"]) if state["genome"] is not None else None
        self._metric = TStddev(1)
        self._metric.load_state_dict(state["metric"])


def identity_reference(
    deviation: float, total: int, images: int, means: float = math.inf, means_per_epoch: float = 1
) -> float:
    """What T. stddev is expected to be without any augmentation, in closed form.

    A mean of n different images has the variance σ²/n in each class. Drawn with replacement that is all. An epoch
    draws without: of J means an epoch and M in all, the factor is (N − n)/(N − 1) + (J − 1)/(M − 1) · n/(N − 1).

    Args:
        deviation: σ, the `mean_deviation` of the teacher's answers to the images as they are.
        total: N.
        images: n.
        means: M; infinite: drawn with replacement.
        means_per_epoch: J.

    Returns:
        σ·√(factor / n).
    """
    factor = 1.0
    if math.isfinite(means) and total > 1:
        apart = min(1.0, (means_per_epoch - 1) / (means - 1)) if means > 1 else 0.0
        factor = (total - images) / (total - 1) + apart * images / (total - 1)
    return deviation * math.sqrt(max(0.0, factor) / images) * _c4(means)


def _c4(count: float) -> float:
    """What the sample standard deviation of `count` normal numbers is on average, over the true one."""
    if not math.isfinite(count):
        return 1.0
    return math.sqrt(2 / (count - 1)) * math.exp(math.lgamma(count / 2) - math.lgamma((count - 1) / 2))


def mean_deviation(probabilities: Tensor) -> float:
    """σ: the standard deviation of each class's probability over the rows of (rows, K), averaged over the classes."""
    return float(probabilities.double().std(dim=0, correction=0).mean())


def percentiles(values: Tensor, level: float) -> tuple[float, float]:
    """The middle `level` of `values`, NaN left out; NaN where nothing is left."""
    values = values[~values.isnan()]
    if not len(values):
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = torch.quantile(
        values, torch.tensor([tail, 1 - tail], dtype=values.dtype, device=values.device)
    ).tolist()
    return low, high
