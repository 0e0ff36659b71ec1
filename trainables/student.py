"""The student in training: labels, and a frozen teacher's answers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import Schedule, Transform
from spaces.augmentations import Answers, Augmentation, Hard, View
from spaces.augmentations.hard import with_tensors
from spaces.parameters import seeded
from trainables.game import SHOWN, Game, played
from trainables.learner import Learner, on_device
from trainables.losses import kd_loss
from trainables.recipe import check_choices, check_range
from trainables.t_stddev import RunningTStddev
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
        weights: learned weights that genomes refer to, by their hash.
        **kwargs: as for `Learner`.
    """

    role = "student"

    def __init__(
        self,
        *args: Any,
        teacher: FrozenTeacher,
        distill: Distill,
        teacher_schedule: Schedule | None = None,
        weights: Mapping[str, Mapping[str, Tensor]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Put the teacher on the student's device."""
        super().__init__(*args, **kwargs)
        self.teacher = on_device(teacher, self.device, self.recipe)
        self.distill = distill
        self._teacher_schedule = teacher_schedule.stretch(self.epochs) if teacher_schedule else None
        self._weights = weights or {}
        self.game: Game | None = None
        self._t_stddev = RunningTStddev(self._raw_answers, len(self.data.train), self.recipe.batch_size)

    def begin_epoch(self, epoch: int) -> None:
        """Prepare what both roles see."""
        super().begin_epoch(epoch)
        self._t_stddev.begin(self.agent.genome)
        self._view_generator = seeded(self.seed, epoch, 5)
        self._second: Augmentation = with_tensors(self.agent.genome.augment, self._weights)
        if isinstance(self._second, Hard) and self._second.learns:
            if self.game is None or not self.game.plays(self._second):
                earlier = self.game.snapshots if self.game is not None else {}
                self.game = self._game(self._second)
                self.game.snapshots |= earlier
            self.game.begin_epoch(epoch, self._second, self.seed)
        self._teacher_generator = seeded(self.seed, epoch, 3)
        self._teacher_augment = None
        if self._teacher_schedule:
            policy = self._teacher_schedule.at(epoch).policy
            self._teacher_augment = Transform(policy, fill=self.fill, seed=(self.seed, epoch, 4))

    def losses(self, images: Tensor, labels: Tensor, raw: Tensor) -> dict[str, Tensor]:
        """`loss` = (1 − α) · `task_loss` + α · (`kd_loss` + `view_loss`).

        `view_loss`, where the genome has a second view, is the distillation loss on it: the teacher's own answer is the
        only target there, as for CutMixPick (https://arxiv.org/abs/2012.02909).
        """
        answers = self.teacher(images if self.distill.view == "shared" else self._teacher_view(raw))
        view = self._second_view(raw)
        if view or self.distill.view == "shared":  # a teacher with a view of its own says nothing of the student's
            self._t_stddev.add(answers, *([view[1]] if view else []))
        both = self.model(torch.cat((images, view[0])) if view else images)
        logits, view_logits = both[: len(images)], both[len(images) :]
        task = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        kd = kd_loss(logits, answers, self.distill.temperature)
        alpha = self.distill.alpha
        parts = {"loss": (1 - alpha) * task + alpha * kd, "task_loss": task, "kd_loss": kd, "logits": logits}
        if view is None:
            return parts
        parts["view_loss"] = kd_loss(view_logits, view[1], self.distill.temperature)
        if self.game is not None and self._second.learns:
            self.game.judge(kd, parts["view_loss"])
        return parts | {"loss": parts["loss"] + alpha * parts["view_loss"]}

    def end_epoch(self) -> dict[str, float]:
        """What there is to say of the epoch beside its losses.

        `t_stddev_ratio`: T. stddev under the genome in force, so far, over what it is without augmentation; and of
        HARD's game, where one is played, what `Game.end_epoch` gives.
        """
        ratio = self._t_stddev.ratio()
        metrics = {} if ratio is None else {"t_stddev_ratio": ratio}
        if self.game is None or not self._second.learns:
            return metrics
        marks = {round(quarter * (self.epochs - 1) / 4) for quarter in range(5)}
        shown = None
        if self.epoch in marks or not self.game.grids:
            rows = torch.arange(min(SHOWN, len(self.data.train)))
            shown, _ = next(iter(self.data.train.subset(rows).batches(SHOWN)))
        return metrics | self.game.end_epoch(None if shown is None else shown.to(self.device))

    def state_dict(self) -> dict[str, Any]:
        """The learner's, what was seen of the teacher's spread, and HARD's game."""
        game = self.game.state_dict() if self.game is not None else None
        return super().state_dict() | {"t_stddev": self._t_stddev.state_dict(), "game": game}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        super().load_state_dict(state)
        self._t_stddev.load_state_dict(state["t_stddev"])
        self.game = None
        if state.get("game") is not None:
            self.game = self._game(played(state["game"], self._weights))
            self.game.load_state_dict(deepcopy(state["game"]))

    def _raw_answers(self, rows: Tensor) -> Tensor:
        """The teacher's logits on some of the training images, as they are, (rows, K)."""
        batches = self.data.train.subset(rows).batches(512)
        return torch.cat([self.teacher(self.normalise(images)) for images, _ in batches])

    def _second_view(self, raw: Tensor) -> tuple[Tensor, Tensor] | None:
        """The genome's second view of the batch, (B, C, H, W) float, and the teacher's logits on it; None: it has none.

        It is made of the images under the data set's own augmentation, as the first view is without a policy.
        """
        augment = self._second
        if not self.agent.genome.has_view:
            return None
        base = self._base(raw, self.fill, self._view_generator)
        view = self._played(base) or augment(base, self.fill, self._view_generator, self._answers(augment.asks))
        shown = self.normalise(view.images)
        target = view.logits if augment.asks == "teacher" else None
        return shown, self.teacher(shown) if target is None else target

    def _played(self, images: Tensor) -> View | None:
        """The view of the augmentor that plays against this student; None where none does."""
        if self.game is None or not self._second.learns:
            return None
        images = images.to(self.device)
        self.game.turn(images)
        return self.game.view(images)

    def _game(self, augment: Hard) -> Game:
        return Game(
            augment,
            channels=self.data.channels,
            teacher=self.teacher,
            student=self.model,
            normalise=self.normalise,
            temperature=self.distill.temperature,
            seed=self.seed,
            device=self.device,
        )

    def _answers(self, role: str) -> Answers | None:
        """What a view may ask: the teacher, or the student in evaluation mode, which leaves its statistics alone."""
        if role == "teacher":
            return lambda images: self.teacher(self.normalise(images))
        return self._ask_student if role == "student" else None

    @torch.no_grad()
    def _ask_student(self, images: Tensor) -> Tensor:
        self.model.eval()
        try:
            logits: Tensor = self.model(self.normalise(images))
        finally:
            self.model.train()
        return logits

    def _teacher_view(self, raw: Tensor) -> Tensor:
        augmented = self._teacher_augment(raw) if self._teacher_augment else raw
        return self.normalise(self._base(augmented, self.fill, self._teacher_generator))


def start_from(student: torch.nn.Module, weights: dict[str, Tensor]) -> int:
    """Copy every weight whose name and shape agree into `student`; returns how many were copied."""
    own = student.state_dict()
    shared = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    student.load_state_dict(own | shared)
    return len(shared)
