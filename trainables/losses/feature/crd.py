"""Contrastive representation distillation, CRD (Tian et al. 2019, https://arxiv.org/abs/1910.10699)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, prod, sqrt
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.core.errors import RequestError
from trainables.losses.base import Criterion, DistillBatch, Pair
from trainables.losses.checks import need_teacher, number, whole
from trainables.losses.feature.base import FeatureCriterion, FeatureLoss
from trainables.losses.feature.projector import Projection

EPS = 1e-7
"""What keeps ratios finite, the authors' number."""


@dataclass(frozen=True)
class Crd(FeatureLoss):
    """Noise-contrastive estimation: tell an image's features in one network from other images' in the other network.

    Both networks' features are embedded linearly on the unit sphere, and each image's embeddings are remembered. The
    student's is held against what is remembered of the teacher, and the other way round. Other images are drawn, with
    replacement, from those that are not known to be of the same class: as in the authors' mode `exact`, once every
    image has been seen; before that, an image not yet seen counts as of another class.

    Args:
        width: of the embeddings, ≥ 1.
        negatives: other images for each one, ≥ 1; never more than there are images in the training set.
        temperature: of the inner products, > 0; not the distillation's.
        momentum: share of the old embedding that is remembered, in [0, 1).
    """

    kind: ClassVar[str] = "crd"

    pool: bool = True
    width: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        whole(self, "width")
        whole(self, "negatives")
        number(self, "temperature", lambda temperature: temperature > 0, "above 0")
        number(self, "momentum", lambda share: 0 <= share < 1, "in [0, 1)")

    def build(self, pair: Pair) -> Criterion:
        """Draw the embeddings' weights, and memories of random directions.

        Raises:
            RequestError: there is no teacher, or layers do not fit each other.
        """
        need_teacher(self, pair)
        return CrdCriterion(self, pair)


class CrdCriterion(FeatureCriterion):
    """A `Crd` at work.

    Args:
        options: which.
        pair: the networks.
    """

    labels: Tensor

    def __init__(self, options: Crd, pair: Pair) -> None:
        """Know no label yet."""
        super().__init__(options, pair)
        self.negatives = min(options.negatives, pair.images)
        contrasts = []
        for projection, shapes in zip(self.projections, options.shapes(pair), strict=True):
            positions = prod(min(sides) for sides in zip(*(shape[1:] for shape in shapes), strict=True))
            student, teacher = cast(Projection, projection).widths
            contrasts.append(Contrast(options, pair.images, student * positions, teacher * positions))
        self.contrasts = nn.ModuleList(contrasts)
        self.register_buffer("labels", torch.full((pair.images,), -1))

    def compare(self, index: int, student: Tensor, teacher: Tensor, seen: DistillBatch) -> Tensor:
        """The contrast of the pair of layers number `index`; what was seen is remembered."""
        rows = seen.rows.to(self.labels.device)
        self.labels[rows] = seen.labels
        candidates = torch.cat((rows[:, None], others(self.labels, seen.labels, self.negatives)), dim=1)
        loss: Tensor = self.contrasts[index](student.flatten(1), teacher.flatten(1), candidates)
        return loss


class Contrast(nn.Module):
    """Two embeddings, and what is remembered of them. Letters: N images in the training set, W the embeddings' width.

    Args:
        options: W, temperature and momentum.
        images: N.
        student_width: of the student's features.
        teacher_width: of the teacher's.
    """

    memory_student: Tensor
    memory_teacher: Tensor
    scale_student: Tensor
    scale_teacher: Tensor

    def __init__(self, options: Crd, images: int, student_width: int, teacher_width: int) -> None:
        """Draw the embeddings' weights, and memories of about length 1."""
        super().__init__()
        self.temperature, self.momentum = options.temperature, options.momentum
        self.student = nn.Linear(student_width, options.width)
        self.teacher = nn.Linear(teacher_width, options.width)
        bound = sqrt(3 / options.width)
        for role in ("student", "teacher"):
            self.register_buffer(f"memory_{role}", torch.empty(images, options.width).uniform_(-bound, bound))
            self.register_buffer(f"scale_{role}", torch.tensor(-1.0))

    def forward(self, student: Tensor, teacher: Tensor, candidates: Tensor) -> Tensor:
        """Judge a batch, then remember it.

        Args:
            student: features, (B, ·).
            teacher: features, (B, ·).
            candidates: (B, 1 + K): rows of the training set; the image's own, then K of other images.
        """
        student, teacher = F.normalize(self.student(student)), F.normalize(self.teacher(teacher))
        from_student, self.scale_student = self._ratios(student, self.memory_teacher, self.scale_student, candidates)
        from_teacher, self.scale_teacher = self._ratios(teacher, self.memory_student, self.scale_teacher, candidates)
        self.memory_student = self._remembered(self.memory_student, student, candidates[:, 0])
        self.memory_teacher = self._remembered(self.memory_teacher, teacher, candidates[:, 0])
        noise = (candidates.shape[1] - 1) / len(self.memory_student)
        return _estimation(from_student, noise) + _estimation(from_teacher, noise)

    def _ratios(self, rows: Tensor, memory: Tensor, scale: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """exp(⟨row, memory⟩ / τ) / Z of each candidate; and Z, N times the mean over the first batch, from then on."""
        # One product with all of the memory, then numbers are picked: far less to move than (B, 1 + K, W) of it.
        energies = ((rows @ memory.T) / self.temperature).gather(1, candidates).exp()
        scale = torch.where(scale < 0, energies.detach().mean() * len(memory), scale)
        return energies / scale, scale

    def _remembered(self, memory: Tensor, rows: Tensor, where: Tensor) -> Tensor:
        """A new memory, since the gradient needs the one before."""
        moved = self.momentum * memory[where] + (1 - self.momentum) * rows.detach()
        return memory.index_copy(0, where, F.normalize(moved))


def _estimation(ratios: Tensor, noise: float) -> Tensor:
    """−log p / (p + c) of the first, − Σ log c / (p + c) of the others, the mean over the batch; c is the noise's."""
    denominators = (ratios + (noise + EPS)).log()
    return (denominators.sum(1) - ratios[:, 0].log() - (ratios.shape[1] - 1) * log(noise)).mean()


def others(labels: Tensor, own: Tensor, count: int) -> Tensor:
    """Rows drawn evenly from those of another label, with replacement, by the default generator: (B, count).

    Args:
        labels: of all rows, (N,); -1: not known, so another.
        own: (B,), among the labels.
        count: for each of `own`.

    Raises:
        RequestError: all rows have one label.
    """
    known, rows = labels.sort(stable=True)
    # In this order the rows of one label are one block, which a draw jumps over.
    start, end = torch.searchsorted(known, own), torch.searchsorted(known, own, right=True)
    rest = len(labels) - (end - start)
    if not rest.min():
        raise RequestError("crd needs images of two classes or more", value=1)
    drawn = (torch.rand(len(own), count, device=labels.device) * rest[:, None]).long()
    drawn = torch.minimum(drawn, rest[:, None] - 1)  # the product may round up
    return rows[drawn + (drawn >= start[:, None]) * (end - start)[:, None]]
