"""Contrastive representation distillation, CRD (Tian et al. 2019, https://arxiv.org/abs/1910.10699)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, prod, sqrt
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.core.errors import RequestError
from spaces.core.validation import check_integer
from trainables.losses.base import Criterion, DistillBatch, NetworkPair
from trainables.losses.checks import check_option, require_teacher
from trainables.losses.feature.base import FeatureCriterion, FeatureLoss
from trainables.losses.feature.projector import Projection

EPS = 1e-7
"""Keeps ratios finite; the authors' value."""


@dataclass(frozen=True)
class CRD(FeatureLoss):
    """Noise-contrastive estimation between the two networks' embeddings of an image.

    Both networks' features are embedded linearly on the unit sphere, and a memory keeps each image's embeddings. The
    student's embedding is contrasted with the teacher's memory, and the teacher's with the student's. Negatives are
    drawn with replacement from the images that are not known to be of the same class: the authors' mode `exact` once
    every image has been seen; until then an unseen image counts as one of another class.

    Args:
        width: Width of the embeddings, >= 1.
        negatives: Negatives per image, >= 1; capped at the number of training images.
        temperature: Temperature τ of the inner products, > 0; not the distillation's.
        momentum: Share of the old embedding that the memory keeps, in [0, 1).

    Example:
        >>> pair = NetworkPair(2, 8, student={"s": (3,)}, teacher={"t": (5,)}, teacher_classes=2)
        >>> criterion = CRD(width=4, negatives=4).build(pair)
        >>> rows = torch.arange(4)
        >>> features = {"student_features": {"s": torch.rand(4, 3)}, "teacher_features": {"t": torch.rand(4, 5)}}
        >>> batch = DistillBatch(torch.zeros(4, 1), rows % 2, rows, 4.0, torch.zeros(4, 2), **features)
        >>> bool(criterion(batch)["loss"] > 0)
        True
    """

    kind: ClassVar[str] = "crd"

    pool: bool = True
    width: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_integer(f"width of {self.kind}", self.width, 1)
        check_integer(f"negatives of {self.kind}", self.negatives, 1)
        check_option(self, "temperature", lambda temperature: temperature > 0, "> 0")
        check_option(self, "momentum", lambda share: 0 <= share < 1, "in [0, 1)")

    def build(self, pair: NetworkPair) -> Criterion:
        """Draw the embeddings' weights, and memories of random directions.

        Raises:
            RequestError: There is no teacher, or layers do not fit each other.
        """
        require_teacher(self, pair)
        return CRDCriterion(self, pair)


class CRDCriterion(FeatureCriterion):
    """A `CRD` loss built for two networks.

    Args:
        options: The loss.
        pair: The networks.
    """

    labels: Tensor

    def __init__(self, options: CRD, pair: NetworkPair) -> None:
        """Start with unknown labels."""
        super().__init__(options, pair)
        self.negatives = min(options.negatives, pair.images)
        contrasts = []
        for projection, shapes in zip(self.projections, options.shapes(pair), strict=True):
            positions = prod(min(sides) for sides in zip(*(shape[1:] for shape in shapes), strict=True))
            student, teacher = cast(Projection, projection).widths
            contrasts.append(Contrast(options, pair.images, student * positions, teacher * positions))
        self.contrasts = nn.ModuleList(contrasts)
        self.register_buffer("labels", torch.full((pair.images,), -1))

    def compare(self, index: int, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Tensor:
        """Compute the contrastive loss of one pair of layers, and update its memories."""
        rows = batch.rows.to(self.labels.device)
        self.labels[rows] = batch.labels
        candidates = torch.cat((rows[:, None], draw_negatives(self.labels, batch.labels, self.negatives)), dim=1)
        loss: Tensor = self.contrasts[index](student.flatten(1), teacher.flatten(1), candidates)
        return loss


class Contrast(nn.Module):
    """Two embeddings and their memories. N images in the training set, W the embeddings' width.

    Args:
        options: The loss, for W, τ and the momentum.
        images: Number N of training images.
        student_width: Width of the student's features.
        teacher_width: Width of the teacher's features.
    """

    memory_student: Tensor
    memory_teacher: Tensor
    scale_student: Tensor
    scale_teacher: Tensor

    def __init__(self, options: CRD, images: int, student_width: int, teacher_width: int) -> None:
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
        """Compute the loss of a batch, then update the memories.

        Args:
            student: Student's features, (B, D_s).
            teacher: Teacher's features, (B, D_t).
            candidates: Rows of the training set, (B, 1 + K): the image's own, then K negatives.
        """
        student, teacher = F.normalize(self.student(student)), F.normalize(self.teacher(teacher))
        student_ratios, self.scale_student = self._ratios(student, self.memory_teacher, self.scale_student, candidates)
        teacher_ratios, self.scale_teacher = self._ratios(teacher, self.memory_student, self.scale_teacher, candidates)
        self.memory_student = self._updated(self.memory_student, student, candidates[:, 0])
        self.memory_teacher = self._updated(self.memory_teacher, teacher, candidates[:, 0])
        noise = (candidates.shape[1] - 1) / len(self.memory_student)
        return _nce_loss(student_ratios, noise) + _nce_loss(teacher_ratios, noise)

    def _ratios(self, rows: Tensor, memory: Tensor, scale: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp(⟨row, memory⟩ / τ) / Z of each candidate, and Z: N times the mean over the first batch."""
        # One product with the whole memory moves far fewer numbers than gathering (B, 1 + K, W) of it.
        energies = ((rows @ memory.T) / self.temperature).gather(1, candidates).exp()
        scale = torch.where(scale < 0, energies.detach().mean() * len(memory), scale)
        return energies / scale, scale

    def _updated(self, memory: Tensor, rows: Tensor, where: Tensor) -> Tensor:
        """Return a new memory; the gradient needs the old one."""
        moved = self.momentum * memory[where] + (1 - self.momentum) * rows.detach()
        return memory.index_copy(0, where, F.normalize(moved))


def _nce_loss(ratios: Tensor, noise: float) -> Tensor:
    """Return −log p / (p + c) of the first candidate − Σ log c / (p + c) of the others, averaged over the batch.

    p are the ratios (B, 1 + K), and c is `noise`, the number of negatives over the number of images.
    """
    denominators = (ratios + (noise + EPS)).log()
    return (denominators.sum(1) - ratios[:, 0].log() - (ratios.shape[1] - 1) * log(noise)).mean()


def draw_negatives(labels: Tensor, own: Tensor, count: int) -> Tensor:
    """Draw rows of other labels uniformly, with replacement, from the default generator.

    Args:
        labels: Labels of all rows, (N,); -1 if unknown, which counts as another label.
        own: Labels of the batch, (B,).
        count: Number of draws for each image.

    Returns:
        Row indices, (B, count).

    Raises:
        RequestError: All rows have one label.
    """
    known, rows = labels.sort(stable=True)
    # In this order the rows of one label are one block, which a draw skips.
    start, end = torch.searchsorted(known, own), torch.searchsorted(known, own, right=True)
    rest = len(labels) - (end - start)
    if not rest.min():
        raise RequestError("training images must have at least 2 classes for the loss crd", value=1)
    drawn = (torch.rand(len(own), count, device=labels.device) * rest[:, None]).long()
    drawn = torch.minimum(drawn, rest[:, None] - 1)  # the product may round up
    return rows[drawn + (drawn >= start[:, None]) * (end - start)[:, None]]
