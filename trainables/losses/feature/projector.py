"""Making the features of two networks comparable: normalized, and one projected into the other's space.

The inverted projection takes the teacher's features into the student's space (Auty et al. 2024,
https://arxiv.org/abs/2403.14494), so that it can drop what only the teacher's own task asks for.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind: TypeAlias = Literal["none", "student", "inverted", "ensemble"]
"""Whose features are projected: nobody's, the student's, the teacher's, the student's by three projectors at once."""

Normalization: TypeAlias = Literal["batch", "layer", "l2", "none"]
"""Over what features are normalized: each channel over the batch, each position over its channels, to length 1, not."""

ENSEMBLE = 3
"""Projectors in an ensemble, the authors' number."""


class Projection(nn.Module):
    """Normalizes the features of both networks, then projects those of one.

    Z_s: the student's features, Z_t: the teacher's, of widths s and t; one row a position.

    Args:
        kind: `none`: Z_s and Z_t; `student`: Z_s P and Z_t, with P (s × t); `inverted`: Z_s and Z_t P, with P (t × s);
            `ensemble`: the mean of three ReLU(Z_s Pᵢ + bᵢ), and Z_t (Chen et al. 2022, https://arxiv.org/abs/2210.15274).
        student_width: s.
        teacher_width: t.
        normalization: of both sides before: `batch` (batch normalization without weights, always by the batch's own
            statistics), `layer`, `l2` or `none`.
    """

    def __init__(self, kind: Kind, student_width: int, teacher_width: int, normalization: Normalization) -> None:
        """Draw P as `nn.Linear` does, from the default generator."""
        super().__init__()
        self.kind, self.normalization = kind, normalization
        self.widths = {"none": (student_width, teacher_width), "inverted": (student_width, student_width)}.get(
            kind, (teacher_width, teacher_width)
        )
        sides = (teacher_width, student_width) if kind == "inverted" else (student_width, teacher_width)
        count = {"none": 0, "ensemble": ENSEMBLE}.get(kind, 1)
        self.linears = nn.ModuleList(nn.Linear(*sides, bias=kind == "ensemble") for _ in range(count))
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Make both comparable.

        Args:
            student: (B, s, H, W) or (B, s), float32.
            teacher: (B, t, H, W) or (B, t), float32; no gradient flows into them.

        Returns:
            Both, of the widths that `widths` names.
        """
        student, teacher = (normalized(side, self.normalization) for side in (student, teacher.detach()))
        if self.kind == "none":
            return student, teacher
        if self.kind == "ensemble":
            each = [F.relu(_over_channels(linear, student)) for linear in self.linears]
            return torch.stack(each).mean(0), teacher
        self._last = student.detach(), teacher
        (linear,) = self.linears
        if self.kind == "student":
            return _over_channels(linear, student), teacher
        return student, _over_channels(linear, teacher)

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """What there is to say of P.

        Returns:
            `rank`: its effective rank, of an ensemble the mean; `transfer` and `regularization`: the two parts of
            the last batch's mean squared error, as `decomposition` has them, where there is a single P. Of the losses
            `hint` alone minimizes that error. Nothing for `none`. The batch is let go.
        """
        matrices = [matrix.float().T for name, matrix in self.linears.named_parameters() if name.endswith("weight")]
        if not matrices:
            return {}
        said = {"rank": sum(map(effective_rank, matrices)) / len(matrices)}
        if self._last is not None:
            student, teacher = (_rows(side) for side in self._last)
            self._last = None
            target, source = (student, teacher) if self.kind == "inverted" else (teacher, student)
            parts = decomposition(target, source, matrices[0])
            said |= {
                name: float(part) / target.numel()
                for name, part in zip(("transfer", "regularization"), parts, strict=True)
            }
        return said


def normalized(features: Tensor, normalization: Normalization) -> Tensor:
    """The features (B, C, H, W) or (B, C), each channel or each position's vector on one scale."""
    if normalization == "batch":
        return F.batch_norm(features, None, None, training=True)
    if normalization == "layer":
        return F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
    return F.normalize(features, dim=1) if normalization == "l2" else features


def decomposition(target: Tensor, source: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """‖Y − X P‖², in the two parts that the singular vectors of P = U S Vᵀ, of rank r, make of it.

    With the student's features as Y and the teacher's as X, as under the inverted projection, they are the transfer of
    knowledge and a regularization of the student's spectrum; the other way round, the second is constant.

    Args:
        target: Y, (b, m).
        source: X, (b, n).
        projection: P, (n, m).

    Returns:
        Σ_{i ≤ r} ‖Y vᵢ − sᵢ X uᵢ‖² and Σ_{i > r} ‖Y vᵢ‖². Singular values below the rounding of the largest count as 0.
    """
    left, values, right = torch.linalg.svd(projection, full_matrices=False)
    rank = int((values > values[0] * max(projection.shape) * torch.finfo(values.dtype).eps).sum())
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    within = target @ right.T
    transfer = (within - (source @ left) * values).square().sum()
    return transfer, (target - within @ right).square().sum()


def effective_rank(matrix: Tensor) -> float:
    """How many singular values s count: e to the entropy of s² / Σ s², from 1 to the rank; 0 for a matrix of zeros."""
    return spread(torch.linalg.svdvals(matrix).square())


def spread(energies: Tensor) -> float:
    """Over how many of the `energies` (n,), ≥ 0, their sum spreads: e to their entropy; 0 where the sum is."""
    total = energies.sum()
    return float(torch.special.entr(energies / total).sum().exp()) if total > 0 else 0.0


def _over_channels(linear: nn.Module, features: Tensor) -> Tensor:
    projected: Tensor = linear(features.movedim(1, -1))
    return projected.movedim(-1, 1).contiguous()  # in the order of what it is compared with


def _rows(features: Tensor) -> Tensor:
    return features.movedim(1, -1).flatten(0, -2)
