"""A teacher-free loss on the spectrum of the student's features.

Our reading of the teacher-free loss of Auty et al. 2024, https://arxiv.org/abs/2403.14494.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spaces.core.errors import RequestError, unknown
from spaces.core.validation import check_integer
from trainables.losses.base import Criterion, DistillBatch, Loss, NetworkPair
from trainables.losses.checks import check_layer_names, without_autocast
from trainables.losses.feature.base import by_layer, pooled
from trainables.losses.feature.projector import effective_count


@dataclass(frozen=True)
class Spectral(Loss):
    """Σ_{i > k} σᵢ² / Σᵢ σᵢ², for the singular values σ of the batch's pooled and centered features.

    This is the share of the features' variance outside the k strongest directions, in [0, 1]; 0 without variance.

    Args:
        k: Number of unpenalized directions, >= 1, below the layer's width and the batch size; the default is ours.
        student: Layers of the student, whose losses are added; empty for its last stage.

    Example:
        >>> pair = NetworkPair(classes=2, images=10, student={"last": (3,)})
        >>> criterion = Spectral(k=1).build(pair)
        >>> features = {"last": torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])}
        >>> labels = torch.zeros(3, dtype=torch.long)
        >>> batch = DistillBatch(torch.zeros(3, 1), labels, labels, 1.0, torch.zeros(3, 2), student_features=features)
        >>> round(float(criterion(batch)["loss"]), 4)
        0.5
    """

    kind: ClassVar[str] = "spectral"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    k: int = 16
    student: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        check_integer(f"k of {self.kind}", self.k, 1)
        check_layer_names(self, "student")

    def layers(self, pair: NetworkPair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the named layers of the student, or else its last one."""
        return self.student or tuple(pair.student)[-1:], ()

    def build(self, pair: NetworkPair) -> Criterion:
        """Build the loss.

        Raises:
            RequestError: A layer does not exist, or has no more than k channels.
        """
        names, _ = self.layers(pair)
        for name in names:
            if name not in pair.student:
                raise unknown("layer", name, pair.student)
            (width,) = pooled(torch.zeros(1, *pair.student[name])).shape[1:]
            if width <= self.k:
                rule = f"k of spectral must be below {width}, the channels of the layer {name}"
                raise RequestError(rule, value=self.k, hint="choose a smaller k, or a wider layer")
        return SpectralCriterion(self.k, names)


class SpectralCriterion(Criterion):
    """A `Spectral` loss built for a student.

    Args:
        k: Number of unpenalized directions.
        layers: Layers of the student.
    """

    def __init__(self, k: int, layers: tuple[str, ...]) -> None:
        """Keep the options."""
        super().__init__()
        self.k, self.layers = k, layers
        self._last: list[Tensor] = []

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Return `loss`.

        Raises:
            RequestError: The batch has k images or fewer.
        """
        if len(batch.images) <= self.k:
            rule = f"batches must have more than k = {self.k} images for the loss spectral"
            hint = "choose a smaller k, or a larger recipe.batch_size"
            raise RequestError(rule, value=len(batch.images), hint=hint)
        with without_autocast(batch.student):
            energies = [_energies(pooled(batch.student_features[name].float())) for name in self.layers]
            self._last = [each.detach() for each in energies]
            shares = [each[: -self.k].sum() / each.sum().clamp_min(1e-12) for each in energies]
            return {"loss": torch.stack(shares).sum()}

    def report(self) -> dict[str, float]:
        """Return `rank`, the effective rank of the last batch's features; of several layers, as `<layer>/rank`."""
        reports = [{"rank": effective_count(energies.clamp_min(0))} for energies in self._last]
        self._last = []
        return by_layer(self.layers, reports) if reports else {}


def _energies(rows: Tensor) -> Tensor:
    """Return σ² of the centered rows (B, D) in ascending order, (min(B, D),).

    They are the eigenvalues of the smaller Gram matrix; unlike the gradient of singular vectors, theirs does not
    divide by differences between them.
    """
    rows = rows - rows.mean(0)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    # The solver fails on non-finite numbers; these show in the other losses.
    energies: Tensor = torch.linalg.eigvalsh(gram.nan_to_num(0, 0, 0))
    return energies
