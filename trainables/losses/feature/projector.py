"""Projections that make the features of two networks comparable.

The inverted projection maps the teacher's features into the student's space (Auty et al. 2024,
https://arxiv.org/abs/2403.14494), so it can drop information that only the teacher's own task needs.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind: TypeAlias = Literal["none", "student", "inverted", "ensemble"]
"""Projected features: none, the student's, the teacher's, or the student's by an ensemble of projectors."""

Normalization: TypeAlias = Literal["batch", "layer", "l2", "none"]
"""Normalization: of each channel over the batch, of each position over its channels, to L2 length 1, or none."""

ENSEMBLE = 3
"""Projectors in an ensemble; the authors' value."""


class Projection(nn.Module):
    """Normalize the features of both networks, then project those of one.

    Z_s are the student's features of width s, Z_t the teacher's of width t, one row per position.

    Args:
        kind: `none`: Z_s and Z_t; `student`: Z_s P and Z_t, with P (s × t); `inverted`: Z_s and Z_t P, with P (t × s);
            `ensemble`: the mean of three ReLU(Z_s Pᵢ + bᵢ), and Z_t (Chen et al. 2022,
            https://arxiv.org/abs/2210.15274).
        student_width: Width s.
        teacher_width: Width t.
        normalization: Normalization of both sides before the projection: `batch` (batch normalization without weights,
            always by the batch's own statistics), `layer`, `l2` or `none`.

    Attributes:
        widths: Widths of the student's and the teacher's features after the projection.

    Example:
        >>> import torch
        >>> projection = Projection("inverted", student_width=4, teacher_width=6, normalization="batch")
        >>> student, teacher = projection(torch.rand(8, 4), torch.rand(8, 6))
        >>> tuple(student.shape), tuple(teacher.shape)
        ((8, 4), (8, 4))
        >>> sorted(projection.report())
        ['rank', 'regularization', 'transfer']
    """

    def __init__(self, kind: Kind, student_width: int, teacher_width: int, normalization: Normalization) -> None:
        """Draw P like `nn.Linear`, from the default generator."""
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
        """Normalize and project.

        Args:
            student: Student's features, (B, s, H, W) or (B, s), float32.
            teacher: Teacher's features, (B, t, H, W) or (B, t), float32; no gradient flows into them.

        Returns:
            Both, with the widths in `widths`.
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
        """Return metrics of P, and forget the last batch.

        Returns:
            `rank`, the effective rank of P (the mean over an ensemble); and, for a single P, `transfer` and
            `regularization`, the two parts of the last batch's mean squared error as in `decomposition`. Of all losses
            only `hint` minimizes that error. Empty for `none`.
        """
        matrices = [matrix.float().T for name, matrix in self.linears.named_parameters() if name.endswith("weight")]
        if not matrices:
            return {}
        report = {"rank": sum(map(effective_rank, matrices)) / len(matrices)}
        if self._last is not None:
            student, teacher = (_rows(side) for side in self._last)
            self._last = None
            target, source = (student, teacher) if self.kind == "inverted" else (teacher, student)
            parts = decomposition(target, source, matrices[0])
            report |= {
                name: float(part) / target.numel()
                for name, part in zip(("transfer", "regularization"), parts, strict=True)
            }
        return report


def normalized(features: Tensor, normalization: Normalization) -> Tensor:
    """Return features (B, C, H, W) or (B, C), normalized."""
    if normalization == "batch":
        return F.batch_norm(features, None, None, training=True)
    if normalization == "layer":
        return F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
    return F.normalize(features, dim=1) if normalization == "l2" else features


def decomposition(target: Tensor, source: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Decompose ‖Y − X P‖² by the singular vectors of P = U S Vᵀ, of rank r.

    Under the inverted projection Y are the student's features and X the teacher's: the first part is the transfer of
    knowledge, the second a regularization of the student's spectrum. The other way round, the second is constant.

    Args:
        target: Y, (b, m).
        source: X, (b, n).
        projection: P, (n, m).

    Returns:
        Σ_{i ≤ r} ‖Y vᵢ − sᵢ X uᵢ‖² and Σ_{i > r} ‖Y vᵢ‖². Singular values below the rounding error of the largest one
        count as 0.

    Example:
        >>> import torch
        >>> target, source = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])
        >>> [round(float(part), 4) for part in decomposition(target, source, torch.tensor([[1.0, 0.0]]))]
        [4.0, 4.0]
    """
    left, values, right = torch.linalg.svd(projection, full_matrices=False)
    rank = int((values > values[0] * max(projection.shape) * torch.finfo(values.dtype).eps).sum())
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    within = target @ right.T
    transfer = (within - (source @ left) * values).square().sum()
    return transfer, (target - within @ right).square().sum()


def effective_rank(matrix: Tensor) -> float:
    """Return exp of the entropy of s² / Σ s² for the singular values s: from 1 to the rank, 0 for a zero matrix.

    Example:
        >>> import torch
        >>> round(effective_rank(torch.eye(3)), 4)
        3.0
    """
    return effective_count(torch.linalg.svdvals(matrix).square())


def effective_count(energies: Tensor) -> float:
    """Return exp of the entropy of `energies` (n,) >= 0 over their sum; 0 if the sum is 0."""
    total = energies.sum()
    return float(torch.special.entr(energies / total).sum().exp()) if total > 0 else 0.0


def _over_channels(linear: nn.Module, features: Tensor) -> Tensor:
    projected: Tensor = linear(features.movedim(1, -1))
    return projected.movedim(-1, 1).contiguous()  # the memory order of the features it is compared with


def _rows(features: Tensor) -> Tensor:
    return features.movedim(1, -1).flatten(0, -2)
