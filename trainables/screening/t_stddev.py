"""T. stddev: the standard deviation of a teacher's mean answer over samples of augmented images. Lower is better.

A good augmentation for distillation lowers the covariance of the cross-entropy between teacher and student. The spread
of the teacher's own mean answer is correlated with it, and needs no student.

Source: What Makes a "Good" Data Augmentation in Knowledge Distillation (Wang et al. 2022, NeurIPS,
https://arxiv.org/abs/2012.02909). K classes, M means, R replicates, N images in the set, n different images per mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spaces import Genome, RequestError

BATCHES = 5
"""Batches per mean, as in the authors' code."""

SAMPLE = 2048
"""Most images from which the spread without augmentation is estimated."""


class TStddev:
    """The standard deviation over the M means of the mean probability, averaged over the K classes.

    Answers stream in, and memory does not grow with M. The interval is a Poisson bootstrap over the means: each of R
    replicates counts each mean as often as a Poisson variable of mean 1. Two instances with the same seed weigh their
    means alike, so their ratio is paired. A replicate repeats means, which lowers its spread by about 3/(4M); over many
    classes this exceeds the interval's width, so the replicates are scaled to have the value as their mean.

    Args:
        rows: Answers per mean, >= 1.
        seed: Seed of the bootstrap.
        replicates: Number R of replicates; 0 for no interval.

    Example:
        >>> import torch
        >>> metric = TStddev(rows=2)
        >>> metric.add(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        >>> metric.means, round(metric.value, 4)  # the means are (1, 0) and (0, 1)
        (2, 0.7071)
    """

    def __init__(self, rows: int, *, seed: int = 0, replicates: int = 0) -> None:
        """Start without answers."""
        if rows < 1:
            raise RequestError("rows must be >= 1", value=rows)
        self.rows = rows
        self._generator = torch.Generator().manual_seed(seed)
        self._replicates = replicates
        self._pending: Tensor | None = None
        self._seen = 0
        self._sums: Tensor | None = None
        self.means = 0

    def add(self, probabilities: Tensor) -> None:
        """Add answers (B, K), each a distribution over the classes; B is arbitrary."""
        start = 0
        while start < len(probabilities):
            part = probabilities[start : start + self.rows - self._seen].detach().double()
            total = part.sum(dim=0)
            # A loaded state is on the CPU, wherever the answers are.
            self._pending = total if self._pending is None else self._pending.to(total.device) + total
            self._seen += len(part)
            start += len(part)
            if self._seen == self.rows:
                self._close(self._pending / self.rows)
                self._pending, self._seen = None, 0

    @property
    def value(self) -> float:
        """T. stddev so far; NaN with fewer than two means."""
        return float(self.replicates()[0])

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the bootstrap interval of `value`; NaN without replicates."""
        return percentiles(self.replicates()[1:], level)

    def replicates(self) -> Tensor:
        """Return the value, followed by that of each replicate, (1 + R,)."""
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
        """Return everything that `load_state_dict` needs."""
        state = {"rows": self.rows, "seen": self._seen, "means": self.means}
        return state | {"pending": self._pending, "sums": self._sums, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.rows, self._seen, self.means = state["rows"], state["seen"], state["means"]
        self._pending, self._sums = state["pending"], state["sums"]
        self._generator.set_state(state["generator"])


class RunningTStddev:
    """The ratio of T. stddev on a student's training images to its expected value without augmentation.

    It restarts with every new genome. A mean takes up to five batches, fewer if an epoch has fewer than ten.

    Args:
        ask: Function from rows of the training set (M,) to the teacher's logits on the unaugmented images, (M, K).
        total: Number N of training images.
        batch: Images per batch.
    """

    def __init__(self, ask: Callable[[Tensor], Tensor], total: int, batch: int) -> None:
        """Start without answers."""
        self._ask, self._total, self._batch = ask, total, batch
        steps = max(1, total // batch)
        self._batches = max(1, min(BATCHES, steps // 2))
        self._per_epoch = max(1, steps // self._batches)
        self._deviation: float | None = None
        self._genome: Genome | None = None
        self._metric = TStddev(1)

    def begin(self, genome: Genome) -> None:
        """Begin an epoch under `genome`."""
        if genome != self._genome:
            views = 2 if genome.has_view else 1
            self._genome, self._metric = genome, TStddev(views * self._batches * self._batch)

    def add(self, *logits: Tensor) -> None:
        """Add the teacher's logits on one batch, (B, K) for each of its views."""
        self._metric.add(torch.cat([part.detach().float() for part in logits]).softmax(dim=1))

    def ratio(self) -> float | None:
        """Return the ratio, below 1 for better than no augmentation; None with fewer than two means."""
        if self._metric.means < 2:
            return None
        if self._deviation is None:
            rows = torch.randperm(self._total, generator=torch.Generator().manual_seed(0))[:SAMPLE]
            self._deviation = mean_deviation(self._ask(rows).float().softmax(dim=1))
        images, means = self._batches * self._batch, self._metric.means
        reference = identity_reference(self._deviation, self._total, images, means, self._per_epoch)
        return self._metric.value / reference if reference > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """Return the running means and the genome that they belong to."""
        genome = self._genome.to_json() if self._genome is not None else None
        return {"genome": genome, "metric": self._metric.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._genome = Genome.from_json(state["genome"]) if state["genome"] is not None else None
        self._metric = TStddev(1)
        self._metric.load_state_dict(state["metric"])


def identity_reference(
    deviation: float, total: int, images: int, means: float = math.inf, means_per_epoch: float = 1
) -> float:
    """Return the expected T. stddev without augmentation, in closed form: σ · √(factor / n).

    A mean of n different images has variance σ²/n in each class; drawn with replacement, factor = 1. An epoch draws
    without replacement: with J means per epoch and M in all, factor = (N − n)/(N − 1) + (J − 1)/(M − 1) · n/(N − 1).

    Args:
        deviation: Standard deviation σ, the `mean_deviation` of the teacher's answers to unaugmented images.
        total: Number N of images.
        images: Number n of images per mean.
        means: Number M of means; infinite if drawn with replacement.
        means_per_epoch: Number J of means per epoch.

    Example:
        >>> round(identity_reference(deviation=0.4, total=1000, images=100), 4)
        0.04
    """
    factor = 1.0
    if math.isfinite(means) and total > 1:
        apart = min(1.0, (means_per_epoch - 1) / (means - 1)) if means > 1 else 0.0
        factor = (total - images) / (total - 1) + apart * images / (total - 1)
    return deviation * math.sqrt(max(0.0, factor) / images) * _c4(means)


def _c4(count: float) -> float:
    """Return the expected sample standard deviation of `count` normal numbers over the true one."""
    if not math.isfinite(count):
        return 1.0
    return math.sqrt(2 / (count - 1)) * math.exp(math.lgamma(count / 2) - math.lgamma((count - 1) / 2))


def mean_deviation(probabilities: Tensor) -> float:
    """Return the standard deviation σ of each class's probability over rows (rows, K), averaged over the classes."""
    return float(probabilities.double().std(dim=0, correction=0).mean())


def percentiles(values: Tensor, level: float) -> tuple[float, float]:
    """Return the bounds of the middle `level` of `values` without NaN; NaN if none is left."""
    values = values[~values.isnan()]
    if not len(values):
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = torch.quantile(
        values, torch.tensor([tail, 1 - tail], dtype=values.dtype, device=values.device)
    ).tolist()
    return low, high
