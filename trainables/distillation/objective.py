"""The settings of a distillation, and its losses built for a student and a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from spaces.core.errors import unknown
from spaces.core.validation import check_range
from trainables.losses import (
    Criterion,
    DistillBatch,
    Loss,
    NetworkPair,
    WeightedLoss,
    describe_losses,
    parse_losses,
)
from trainables.losses.feature.hooks import FeatureRecorder, check_layers, stages
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.recipe import check_choices

GENOME_SETTINGS = ("loss", "temperature", "alpha")
"""Settings of `Distill` that a genome may override."""


@dataclass(frozen=True)
class Distill:
    """Settings of a distillation.

    Args:
        loss: Name from `trainables.losses.LOSSES`, or a mapping of names to weights or options, such as
            `{"kd": 1, "hint": {"weight": 50, "projection": "inverted"}}`. A dotted name is a custom loss.
        temperature: Temperature T of the losses on logits, > 0.
        alpha: Weight of the distillation losses, in [0, 1]; the cross-entropy with the labels has weight 1 − alpha.
        teacher_view: `shared`, where teacher and student see the same augmented images, as in the released code of
            role-wise augmentation; or `distinct`, where the teacher sees the same images under the schedule of its own
            agent (our reading of the role-wise paper).
        init: `random`, or `teacher` to copy the teacher's weights where name and shape agree. Such weights must not
            have seen the images that the student is validated on.

    Raises:
        RequestError: A value is out of its range, or a loss is unknown.

    Example:
        >>> distill = Distill(loss={"kd": 1, "dist": 2}, alpha=0.5)
        >>> [(term.name, term.weight) for term in distill.terms]
        [('kd', 1.0), ('dist', 2.0)]
        >>> distill.override({"alpha": 0.9}).alpha
        0.9
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - pydantic reads it from the class

    loss: Any = "kd"
    temperature: float = 4.0
    alpha: float = 0.9
    teacher_view: Literal["shared", "distinct"] = "shared"
    init: Literal["random", "teacher"] = "random"

    def __post_init__(self) -> None:
        """Check the ranges and the losses."""
        check_choices(self)
        check_range("temperature", self.temperature, lambda temperature: temperature > 0, "> 0")
        check_range("alpha", self.alpha, lambda alpha: 0 <= alpha <= 1, "in [0, 1]")
        parse_losses(self.loss)

    @property
    def terms(self) -> tuple[WeightedLoss, ...]:
        """The losses with their weights."""
        return parse_losses(self.loss)

    def override(self, choices: Mapping[str, Any]) -> Distill:
        """Return these settings with a genome's choices.

        Args:
            choices: Values by name; the names must be among `GENOME_SETTINGS`.

        Raises:
            RequestError: A name is not a genome's to choose, or a value is out of its range.
        """
        for name in choices:
            if name not in GENOME_SETTINGS:
                raise unknown("setting of distill that a genome chooses", name, GENOME_SETTINGS)
        return replace(self, **choices) if choices else self


class Distillation(nn.Module):
    """The losses of a `Distill`, built for a student and a teacher.

    Without a teacher and with alpha = 0 there are no losses: the student learns from labels alone. The parameters of
    the losses (projections, memories, a peer network) are drawn from `seed`, learn beside the student with the same
    recipe, and are part of the student's state but not of its exported weights.

    Args:
        distill: Settings.
        student: Network that learns.
        teacher: Frozen teacher, or None.
        classes: Number C of classes of the student's data.
        images: Number of training images.
        shape: Shape (channels, height, width) of an image.
        seed: Seed of initial weights.
        device: Device of the networks.

    Raises:
        RequestError: A loss does not fit the two networks, or a layer that it names does not exist.
    """

    def __init__(
        self,
        distill: Distill,
        student: nn.Module,
        teacher: FrozenTeacher | None,
        *,
        classes: int,
        images: int,
        shape: tuple[int, int, int],
        seed: int,
        device: torch.device | str,
    ) -> None:
        """Find the layers that the losses compare, and build each loss."""
        super().__init__()
        self._has_teacher = teacher is not None
        self.terms = self._terms_of(distill)
        self.teacher_classes: int | None = None
        if teacher is not None:
            self.teacher_classes = classes if teacher.classes is None else teacher.classes
        example = torch.zeros(2, *shape, device=device)
        network = teacher.model if teacher is not None else None
        student_layers, teacher_layers = _Layers(student, example, "student"), _Layers(network, example, "teacher")
        recorded: tuple[list[str], list[str]] = ([], [])
        criteria = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for term in self.terms:
                pair = NetworkPair(
                    classes=classes,
                    images=images,
                    student=student_layers.shapes(term.loss, "student"),
                    teacher=teacher_layers.shapes(term.loss, "teacher"),
                    teacher_classes=self.teacher_classes,
                    peer=teacher.trainable_copy if teacher is not None else None,
                )
                criteria.append(term.loss.build(pair))
                for names, more in zip(recorded, term.loss.layers(pair), strict=True):
                    names.extend(more)
        self.criteria = nn.ModuleList(criteria).to(device)
        self.student_features = FeatureRecorder(student, tuple(dict.fromkeys(recorded[0])))
        self.teacher_features = FeatureRecorder(
            student if network is None else network, tuple(dict.fromkeys(recorded[1]))
        )

    def update_weights(self, distill: Distill) -> bool:
        """Take over the weights of `distill` if its losses are otherwise the same; return False if they differ."""
        terms = self._terms_of(distill)
        if [term.loss for term in terms] != [term.loss for term in self.terms]:
            return False
        self.terms = terms
        return True

    def _terms_of(self, distill: Distill) -> tuple[WeightedLoss, ...]:
        return distill.terms if self._has_teacher or distill.alpha else ()

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Compute all losses of a batch.

        Returns:
            `distill`, the weighted sum; each loss unweighted as `<loss>_loss`; its other parts as
            `distill/<loss>/<part>`; and, if a loss has one, `auxiliary_loss` (see `Criterion.forward`).
        """
        total = batch.student.new_zeros((), dtype=torch.float32)
        parts: dict[str, Tensor] = {}
        for term, criterion in self._terms_and_criteria():
            values = criterion(batch)
            loss = values.pop("loss")
            total = total + term.weight * loss
            parts[f"{term.loss.kind}_loss"] = loss
            if "auxiliary_loss" in values:
                auxiliary = values.pop("auxiliary_loss")
                parts["auxiliary_loss"] = (
                    parts["auxiliary_loss"] + auxiliary if "auxiliary_loss" in parts else auxiliary
                )
            parts |= {f"distill/{term.loss.kind}/{name}": value for name, value in values.items()}
        return {"distill": total, **parts}

    def report(self) -> dict[str, float]:
        """Return what the losses report at the end of an epoch, as `distill/<loss>/<part>`."""
        return {
            f"distill/{term.loss.kind}/{name}": value
            for term, criterion in self._terms_and_criteria()
            for name, value in criterion.report().items()
        }

    def describe(self) -> Any:
        """Return the losses as plain data in the form of `Distill.loss`."""
        return describe_losses(self.terms)

    def _terms_and_criteria(self) -> list[tuple[WeightedLoss, Criterion]]:
        return list(zip(self.terms, cast(list[Criterion], list(self.criteria)), strict=True))


class _Layers:
    """The output shapes of a network's layers, traced once."""

    def __init__(self, network: nn.Module | None, example: Tensor, role: str) -> None:
        self._network, self._example, self._role = network, example, role
        self._stages: dict[str, tuple[int, ...]] | None = None

    def shapes(self, loss: Loss, role: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the layers that the loss names, or else of the network's stages."""
        if self._network is None or "features" not in loss.needs:
            return {}
        names: Sequence[str] = getattr(loss, role, ())
        if names:
            return check_layers(self._network, self._example, names, self._role)
        if self._stages is None:
            self._stages = stages(self._network, self._example)
        return self._stages
