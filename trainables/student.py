"""The student in training: labels, and a frozen teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import Schedule, Transform
from spaces.transform import seeded
from trainables.learner import Learner, on_device
from trainables.losses import kd_loss
from trainables.recipe import check_choices, check_range
from trainables.teacher import FrozenTeacher


@dataclass(frozen=True)
class Distill:
    """How the student learns from the teacher.

    Args:
        loss: `kd`, Hinton's.
        temperature: T > 0.
        alpha: weight of the distillation loss, in [0, 1]; the labels' cross-entropy has 1 − alpha.
        view: `shared`: teacher and student see the same augmented tensor, as in the role-wise paper's code;
            `distinct`: the teacher sees the same images under its own agent's schedule (our reading of role-wise).
        init: `random`, or `teacher`: start from the teacher's weights wherever name and shape agree.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    loss: Literal["kd"] = "kd"
    temperature: float = 4.0
    alpha: float = 0.9
    view: Literal["shared", "distinct"] = "shared"
    init: Literal["random", "teacher"] = "random"

    def __post_init__(self) -> None:
        """Refuse values that cannot distil."""
        check_choices(self)
        check_range("temperature", self.temperature, lambda temperature: temperature > 0, "above 0")
        check_range("alpha", self.alpha, lambda alpha: 0 <= alpha <= 1, "in [0, 1]")


class Student(Learner):
    """A `Learner` with a teacher.

    Args:
        *args: as for `Learner`.
        teacher: answers, and never learns.
        distill: how.
        teacher_schedule: what the teacher sees where the views are distinct; None: the data set's own augmentation.
        **kwargs: as for `Learner`.
    """

    role = "student"

    def __init__(
        self,
        *args: Any,
        teacher: FrozenTeacher,
        distill: Distill,
        teacher_schedule: Schedule | None = None,
        **kwargs: Any,
    ) -> None:
        """Put the teacher on the student's device."""
        super().__init__(*args, **kwargs)
        self.teacher = on_device(teacher, self.device, self.recipe)
        self.distill = distill
        self._teacher_schedule = teacher_schedule.stretch(self.epochs) if teacher_schedule else None

    def begin_epoch(self, epoch: int) -> None:
        """Prepare what both roles see."""
        super().begin_epoch(epoch)
        self._teacher_generator = seeded(self.seed, epoch, 3)
        self._teacher_augment = None
        if self._teacher_schedule:
            genome = self._teacher_schedule.at(epoch)
            self._teacher_augment = Transform(genome, fill=self.fill, seed=(self.seed, epoch, 4))

    def losses(self, images: Tensor, labels: Tensor, raw: Tensor) -> dict[str, Tensor]:
        """`loss` = (1 − α) · `task_loss` + α · `kd_loss`."""
        answers = self.teacher(images if self.distill.view == "shared" else self._teacher_view(raw))
        logits = self.model(images)
        task = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        kd = kd_loss(logits, answers, self.distill.temperature)
        alpha = self.distill.alpha
        return {"loss": (1 - alpha) * task + alpha * kd, "task_loss": task, "kd_loss": kd, "logits": logits}

    def _teacher_view(self, raw: Tensor) -> Tensor:
        augmented = self._teacher_augment(raw) if self._teacher_augment else raw
        return self.normalise(self._base(augmented, self.fill, self._teacher_generator))


def start_from(student: torch.nn.Module, weights: dict[str, Tensor]) -> int:
    """Copy every weight whose name and shape agree into `student`; returns how many were copied."""
    own = student.state_dict()
    shared = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    student.load_state_dict(own | shared)
    return len(shared)
