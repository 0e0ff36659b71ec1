"""A loss without a teacher, on the spectrum of the student's features.

Our reading of the teacher-free loss of Auty et al. 2024, https://arxiv.org/abs/2403.14494.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spaces.core.errors import RequestError, unknown
from trainables.losses.base import Criterion, DistillBatch, Loss, Pair
from trainables.losses.checks import layer_names, whole, without_autocast
from trainables.losses.feature.base import by_layer, pooled
from trainables.losses.feature.projector import spread


@dataclass(frozen=True)
class Spectral(Loss):
    """Σ_{i > k} σᵢ² / Σᵢ σᵢ², for the singular values σ of the batch's pooled and centered features.

    The share of the features' variance beyond the k strongest directions, in [0, 1]; 0 where nothing varies.

    Args:
        k: directions that are free, ≥ 1, below the layer's width and the batch size; the default is ours.
        student: layers of the student, whose losses add up; empty: the last of its stages.
    """

    kind: ClassVar[str] = "spectral"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    k: int = 16
    student: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        whole(self, "k")
        layer_names(self, "student")

    def layers(self, pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those that it names, else the last; none of the teacher."""
        return self.student or tuple(pair.student)[-1:], ()

    def build(self, pair: Pair) -> Criterion:
        """Make it ready.

        Raises:
            RequestError: a layer is not there, or has no more than k channels.
        """
        names, _ = self.layers(pair)
        for name in names:
            if name not in pair.student:
                raise unknown("layer", name, pair.student)
            (width,) = pooled(torch.zeros(1, *pair.student[name])).shape[1:]
            if width <= self.k:
                rule = f"spectral's k lies below the {width} channels of the layer {name}"
                raise RequestError(rule, value=self.k, hint="choose a smaller k, or a wider layer")
        return SpectralCriterion(self.k, names)


class SpectralCriterion(Criterion):
    """A `Spectral` at work.

    Args:
        k: directions that are free.
        layers: of the student.
    """

    def __init__(self, k: int, layers: tuple[str, ...]) -> None:
        """Keep the options."""
        super().__init__()
        self.k, self.layers = k, layers
        self._last: list[Tensor] = []

    def forward(self, seen: DistillBatch) -> dict[str, Tensor]:
        """`loss` alone.

        Raises:
            RequestError: the batch has k images or fewer.
        """
        if len(seen.images) <= self.k:
            rule = f"spectral with k = {self.k} needs larger batches"
            raise RequestError(rule, value=len(seen.images), hint="choose a smaller k, or a larger recipe.batch_size")
        with without_autocast(seen.student):
            energies = [_energies(pooled(seen.student_features[name].float())) for name in self.layers]
            self._last = [each.detach() for each in energies]
            shares = [each[: -self.k].sum() / each.sum().clamp_min(1e-12) for each in energies]
            return {"loss": torch.stack(shares).sum()}

    def report(self) -> dict[str, float]:
        """`rank`: the effective rank of the last batch's features; of several layers as `<layer>/rank`."""
        said = [{"rank": spread(energies.clamp_min(0))} for energies in self._last]
        self._last = []
        return by_layer(self.layers, said) if said else {}


def _energies(rows: Tensor) -> Tensor:
    """σ² of the centered rows (B, D), in rising order, min(B, D) of them.

    They are eigenvalues of the smaller Gram matrix, whose gradient divides by no difference between them, as the
    gradient of singular vectors would.
    """
    rows = rows - rows.mean(0)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    # What is not finite would stop the solver; it shows in the other losses.
    energies: Tensor = torch.linalg.eigvalsh(gram.nan_to_num(0, 0, 0))
    return energies
