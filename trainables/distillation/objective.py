"""How a student learns from a teacher: the settings, and the losses at work between two networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from spaces.core.errors import unknown
from trainables.losses import Criterion, DistillBatch, Loss, Pair, Term, described, terms
from trainables.losses.feature.hooks import Features, check_layers, stages
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.recipe import check_choices, check_range

FREED = ("loss", "temperature", "alpha")
"""What a genome may say of the distillation."""


@dataclass(frozen=True)
class Distill:
    """How the student learns from the teacher.

    Args:
        loss: a name of `trainables.losses.LOSSES`, or several with weights and options, as in
            `{kd: 1, hint: {weight: 50, projection: inverted}}`; a name with a dot is a loss of your own.
        temperature: T > 0, of the losses on logits.
        alpha: weight of the distillation losses, in [0, 1]; the labels' cross-entropy has 1 − alpha.
        view: `shared`: teacher and student see the same augmented tensor, as in the role-wise paper's code;
            `distinct`: the teacher sees the same images under its own agent's schedule (our reading of role-wise).
        init: `random`, or `teacher`: start from the teacher's weights wherever name and shape agree. These should not
            have seen the images that the student is scored on.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    loss: Any = "kd"
    temperature: float = 4.0
    alpha: float = 0.9
    view: Literal["shared", "distinct"] = "shared"
    init: Literal["random", "teacher"] = "random"

    def __post_init__(self) -> None:
        """Refuse values that cannot distil."""
        check_choices(self)
        check_range("temperature", self.temperature, lambda temperature: temperature > 0, "above 0")
        check_range("alpha", self.alpha, lambda alpha: 0 <= alpha <= 1, "in [0, 1]")
        terms(self.loss)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The losses, with their weights."""
        return terms(self.loss)

    def under(self, chosen: Mapping[str, Any]) -> Distill:
        """These settings with what a genome has chosen.

        Raises:
            RequestError: it says what no genome may, or a value is out of its range.
        """
        for name in chosen:
            if name not in FREED:
                raise unknown("setting of distill that a genome chooses", name, FREED)
        return replace(self, **chosen) if chosen else self


class Distillation(nn.Module):
    """The losses of a `Distill` at work between two networks.

    Without a teacher, and with α = 0, there are none: a student of labels alone. Their parameters (projections,
    memories, a peer that learns) are drawn from `seed`, learn beside the student with the recipe's optimizer, travel in
    its state, and are no part of what is exported.

    Args:
        distill: which losses.
        student: the network that learns.
        teacher: None: there is none.
        classes: C, of the student's data.
        images: in the training set.
        shape: (channels, height, width) of an image.
        seed: of initial weights.
        device: of the networks.

    Raises:
        RequestError: a loss does not fit the two networks, or a layer that it names does not exist.
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
        """Find the layers, and build each loss for them."""
        super().__init__()
        self._alone = teacher is None
        self.terms = self._of(distill)
        self.teacher_classes: int | None = None
        example = torch.zeros(2, *shape, device=device)
        network = teacher.model if teacher is not None else None
        seen, answered = _Layers(student, example, "student"), _Layers(network, example, "teacher")
        watched: tuple[list[str], list[str]] = ([], [])
        if teacher is not None:
            self.teacher_classes = classes if teacher.classes is None else teacher.classes
        criteria = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for term in self.terms:
                pair = Pair(
                    classes=classes,
                    images=images,
                    student=seen.shapes(term.loss, "student"),
                    teacher=answered.shapes(term.loss, "teacher"),
                    teacher_classes=self.teacher_classes,
                    peer=teacher.peer if teacher is not None else None,
                )
                criteria.append(term.loss.build(pair))
                for names, more in zip(watched, term.loss.layers(pair), strict=True):
                    names.extend(more)
        if teacher is not None:
            teacher.show(watched[1])
        self.criteria = nn.ModuleList(criteria).to(device)
        self.student_features = Features(student, tuple(dict.fromkeys(watched[0])))
        self.teacher_features = Features(student if network is None else network, tuple(dict.fromkeys(watched[1])))

    def weigh(self, distill: Distill) -> bool:
        """Take over the weights of `distill`, whose losses are these with these options; False: they are others."""
        wanted = self._of(distill)
        if [term.loss for term in wanted] != [term.loss for term in self.terms]:
            return False
        self.terms = wanted
        return True

    def _of(self, distill: Distill) -> tuple[Term, ...]:
        return () if self._alone and not distill.alpha else distill.terms

    def forward(self, seen: DistillBatch) -> dict[str, Tensor]:
        """Judge a batch.

        Returns:
            `distill`: the weighted sum; `<loss>_loss` of each, unweighted; their other parts as
            `distill/<loss>/<part>`; `own`: what the losses' own parameters minimize beside, if anything.
        """
        total = seen.student.new_zeros((), dtype=torch.float32)
        parts: dict[str, Tensor] = {}
        for term, criterion in self._at_work():
            judged = criterion(seen)
            loss = judged.pop("loss")
            total = total + term.weight * loss
            parts[f"{term.loss.kind}_loss"] = loss
            if "own" in judged:
                own = judged.pop("own")
                parts["own"] = parts["own"] + own if "own" in parts else own
            parts |= {f"distill/{term.loss.kind}/{name}": value for name, value in judged.items()}
        return {"distill": total, **parts}

    def report(self) -> dict[str, float]:
        """What the losses say of an epoch at its end, as `distill/<loss>/<part>`."""
        return {
            f"distill/{term.loss.kind}/{name}": value
            for term, criterion in self._at_work()
            for name, value in criterion.report().items()
        }

    def _at_work(self) -> list[tuple[Term, Criterion]]:
        return list(zip(self.terms, cast(list[Criterion], list(self.criteria)), strict=True))

    def described(self) -> Any:
        """The losses as a sweep file would name them: plain data, from which these can be built anew."""
        return described(self.terms)


class _Layers:
    """What the layers of a network give, looked up once."""

    def __init__(self, network: nn.Module | None, example: Tensor, role: str) -> None:
        self._network, self._example, self._role = network, example, role
        self._stages: dict[str, tuple[int, ...]] | None = None

    def shapes(self, loss: Loss, role: str) -> dict[str, tuple[int, ...]]:
        """Of the layers that the loss names, else of the network's stages; empty where it looks at none."""
        if self._network is None or "features" not in loss.needs:
            return {}
        named: Sequence[str] = getattr(loss, role, ())
        if named:
            return check_layers(self._network, self._example, named, self._role)
        if self._stages is None:
            self._stages = stages(self._network, self._example)
        return self._stages
