"""The student in training: labels, and a frozen teacher's answers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import RequestError, Schedule, Transform
from spaces.augmentations import Augmentation, Hard, Predict, View
from spaces.augmentations.hard_weights import with_weights
from spaces.core.seeding import seeded_generator
from trainables.distillation.objective import Distill, Distillation
from trainables.hard.game import SHOWN, Game, played
from trainables.losses import DistillBatch, kd_loss
from trainables.losses.logit.base import LogitLoss
from trainables.quantization import Bits
from trainables.screening.t_stddev import RunningTStddev
from trainables.training.batch import Batch, Views
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.learner import Learner
from trainables.training.memory_format import on_device
from trainables.training.recipe import restore_optimizer


class Student(Learner):
    """A `Learner` with a teacher, or with none.

    Args:
        *args: as for `Learner`.
        teacher: answers, and never learns; None: the losses must need none.
        distill: how; a genome may choose otherwise.
        teacher_schedule: what the teacher sees where the views are distinct; None: the data set's own augmentation.
        weights: learned weights that genomes refer to, by their hash.
        bits: that the network was built with; None: full precision.
        **kwargs: as for `Learner`.

    Raises:
        RequestError: a loss does not fit the two networks, or there is no teacher for it.
    """

    role = "student"

    def __init__(
        self,
        *args: Any,
        teacher: FrozenTeacher | None,
        distill: Distill,
        teacher_schedule: Schedule | None = None,
        weights: Mapping[str, Mapping[str, Tensor]] | None = None,
        bits: Bits | None = None,
        **kwargs: Any,
    ) -> None:
        """Put the teacher on the student's device."""
        super().__init__(*args, **kwargs)
        shape = (self.data.channels, self.data.size, self.data.size)
        self.teacher = teacher
        if teacher is not None:
            self.teacher, _ = on_device(teacher, self.device, self.recipe.channels_last, shape)
        self._settings = self.distill = distill
        self.distillation: Distillation | None = None
        self._own: torch.optim.Optimizer | None = None
        self._teacher_schedule = teacher_schedule.stretch(self.epochs) if teacher_schedule else None
        self._weights = weights or {}
        self.bits = bits or Bits()
        self.game: Game | None = None
        self._t_stddev = RunningTStddev(self._raw_answers, len(self.data.train), self.recipe.batch_size)

    def begin_epoch(self, epoch: int) -> None:
        """Prepare what both roles see.

        Raises:
            RequestError: the genome in force does not fit the networks, or has chosen other bits than the student's.
        """
        if self.bits.under(self.agent.genome.bits) != self.bits:
            rule = "a student keeps the bits that its network was built with"
            raise RequestError(rule, value=dict(self.agent.genome.bits), hint="build a learner of its own")
        super().begin_epoch(epoch)
        self.distill = self._settings.under(self.agent.genome.distill)
        if self.distillation is None or not self.distillation.weigh(self.distill):
            self._distil(self.distill, epoch)
        self._check_view()
        self._t_stddev.begin(self.agent.genome)
        self._view_generator = seeded_generator(self.seed, epoch, 5)
        self._second: Augmentation = with_weights(self.agent.genome.augment, self._weights)
        if isinstance(self._second, Hard) and self._second.learns:
            if self.game is None or not self.game.plays(self._second):
                earlier = self.game.snapshots if self.game is not None else {}
                self.game = self._game(self._second)
                self.game.snapshots |= earlier
            self.game.begin_epoch(epoch, self._second, self.seed)
        self._teacher_generator = seeded_generator(self.seed, epoch, 3)
        self._teacher_augment = None
        if self._teacher_schedule:
            policy = self._teacher_schedule.at(epoch).policy
            self._teacher_augment = Transform(policy, fill=self.fill, seed=(self.seed, epoch, 4))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The network's, and that of the losses' own parameters."""
        return [self.optimizer, self._own] if self._own is not None else [self.optimizer]

    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss` = (1 − α) · `task_loss` + α · (Σ wᵢ · lossᵢ + `view_loss`), with the losses of `Distill`.

        `view_loss`, where the genome has a second view, is Hinton's loss on it, whatever the others are: the teacher's
        own answer is the only target there, as for CutMixPick (https://arxiv.org/abs/2012.02909).
        """
        distillation = self._at_work()
        with distillation.teacher_features.recording() as known:
            answers = self.teacher(self.teacher_inputs(images, batch)) if self.teacher is not None else None
        look = self.look(images, batch, answers)
        with distillation.student_features.recording() as learned:
            logits = self.model(look.shown)
        return self.compute_losses(look, logits, learned, known)

    def teacher_inputs(self, images: Tensor, batch: Batch) -> Tensor:
        """What the teacher is shown: the student's own images or, where the views are distinct, its own."""
        return images if self.distill.view == "shared" else self._teacher_view(batch.raw)

    def look(self, images: Tensor, batch: Batch, answers: Tensor | None = None) -> Views:
        """Make the second view, where the genome has one, and note how far the teacher's answers spread."""
        view = self._second_view(batch.raw)
        if answers is not None and (view or self.distill.view == "shared"):
            # A teacher with a view of its own says nothing of what the student sees.
            self._t_stddev.add(answers, *([view[1]] if view else []))
        return Views(images, batch, answers, view)

    def compute_losses(
        self,
        look: Views,
        logits: Tensor,
        learned: Mapping[str, Tensor] = MappingProxyType({}),
        known: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """As `losses`; `learned` and `known` are what layers of student and teacher gave, by name."""
        batch, size = look.batch, len(look.images)
        logits, view_logits = logits[:size], logits[size:]
        task = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.recipe.label_smoothing)
        features = {name: value[:size] for name, value in learned.items()}
        temperature, alpha = self.distill.temperature, self.distill.alpha
        parts: dict[str, Tensor] = self._at_work()(
            DistillBatch(look.images, batch.labels, batch.rows, temperature, logits, look.answers, features, known)
        )
        distilled = parts.pop("distill")
        parts |= {"loss": (1 - alpha) * task + alpha * distilled, "task_loss": task, "logits": logits}
        if look.view is None:
            return parts
        parts["view_loss"] = kd_loss(view_logits, look.view[1], temperature)
        if self.game is not None and self._second.learns and look.answers is not None:
            clean = parts["kd_loss"] if "kd_loss" in parts else kd_loss(logits, look.answers, temperature)
            self.game.compute_losses(clean.detach(), parts["view_loss"])
        return parts | {"loss": parts["loss"] + alpha * parts["view_loss"]}

    def alone(self) -> str | None:
        """Why the next epoch cannot be one of a stack."""
        genome = self.agent.genome
        if not self.bits.is_full:
            return "a network of few bits"
        if genome.augment.learns:
            return f"the game of {genome.augment.kind} is played against one student"
        terms = self._settings.under(genome.distill).terms if self.teacher is not None else ()
        for term in terms:
            if not isinstance(term.loss, LogitLoss):
                return f"the loss {term.loss.kind} looks at features, or has parameters of its own"
        return None

    def end_epoch(self) -> dict[str, float]:
        """What there is to say of the epoch beside its losses.

        `t_stddev_ratio`: T. stddev under the genome in force, so far, over what it is without augmentation; and of
        HARD's game, where one is played, what `Game.end_epoch` gives; and what the losses report.
        """
        ratio = self._t_stddev.ratio() if self.teacher is not None else None
        metrics = self._at_work().report() | ({} if ratio is None else {"t_stddev_ratio": ratio})
        if self.game is None or not self._second.learns:
            return metrics
        marks = {round(quarter * (self.epochs - 1) / 4) for quarter in range(5)}
        shown = None
        if self.epoch in marks or not self.game.grids:
            rows = torch.arange(min(SHOWN, len(self.data.train)))
            shown, _ = next(iter(self.data.train.subset(rows).batches(SHOWN)))
        return metrics | self.game.end_epoch(None if shown is None else shown.to(self.device))

    def state_dict(self) -> dict[str, Any]:
        """The learner's, what was seen of the teacher's spread, the losses' own parameters, and HARD's game."""
        game = self.game.state_dict() if self.game is not None else None
        losses = None
        if self.distillation is not None and self.distillation.terms:
            optimizer = self._own.state_dict() if self._own is not None else None
            losses = {
                "losses": self.distillation.described(),
                "parameters": self.distillation.state_dict(),
                "optimizer": optimizer,
            }
        return super().state_dict() | {"t_stddev": self._t_stddev.state_dict(), "distill": losses, "game": game}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        super().load_state_dict(state)
        self._t_stddev.load_state_dict(state["t_stddev"])
        self.distillation = self._own = None
        if state.get("distill") is not None:
            losses = state["distill"]
            self._distil(replace(self._settings, loss=deepcopy(losses["losses"])), 0)
            self._at_work().load_state_dict(losses["parameters"])
            if self._own is not None:
                restore_optimizer(self._own, losses["optimizer"])
        self.game = None
        if state.get("game") is not None:
            self.game = self._game(played(state["game"], self._weights))
            self.game.load_state_dict(deepcopy(state["game"]))

    def _distil(self, distill: Distill, epoch: int) -> None:
        """Build the losses, and what optimizes their own parameters."""
        self.distillation = Distillation(
            distill,
            self.model,
            self.teacher,
            classes=self.data.classes,
            images=len(self.data.train),
            shape=(self.data.channels, self.data.size, self.data.size),
            seed=seeded_generator(self.seed, epoch, 6).initial_seed(),
            device=self.device,
        )
        learns = any(parameter.requires_grad for parameter in self.distillation.parameters())
        self._own = self.recipe.make_optimizer(self.distillation) if learns else None

    def _at_work(self) -> Distillation:
        if self.distillation is None:
            self._distil(self.distill, self.epoch)
        assert self.distillation is not None
        return self.distillation

    def _raw_answers(self, rows: Tensor) -> Tensor:
        """The teacher's logits on some of the training images, as they are, (rows, K)."""
        batches = self.data.train.subset(rows).batches(512)
        return torch.cat([self._ask_teacher(images) for images, _ in batches])

    def _second_view(self, raw: Tensor) -> tuple[Tensor, Tensor] | None:
        """The genome's second view of the batch, (B, C, H, W) float, and the teacher's logits on it; None: it has none.

        It is made of the images under the data set's own augmentation, as the first view is without a policy.
        """
        augment = self._second
        if not self.agent.genome.has_view:
            return None
        base = self._base(raw, self.fill, self._view_generator)
        view = self._played(base) or augment(base, self.fill, self._view_generator, self._answers(augment.scored_by))
        target = view.logits if augment.scored_by == "teacher" else None
        return self.normalize(view.images), self._ask_teacher(view.images) if target is None else target

    def _played(self, images: Tensor) -> View | None:
        """The view of the augmentor that plays against this student; None where none does."""
        if self.game is None or not self._second.learns:
            return None
        images = images.to(self.device)
        self.game.turn(images)
        return self.game.view(images)

    def _check_view(self) -> None:
        """A second view is learned from the teacher's answers alone.

        Raises:
            RequestError: the genome has one, and there is no teacher, or one of other classes.
        """
        if self.agent.genome.has_view and self._at_work().teacher_classes != self.data.classes:
            rule = "a second view (space.augment) needs a teacher of the student's own classes"
            raise RequestError(rule, value=self._at_work().teacher_classes, hint="leave it out: augment: [identity]")

    def _game(self, augment: Hard) -> Game:
        assert self.teacher is not None
        return Game(
            augment,
            channels=self.data.channels,
            teacher=self.teacher,
            student=self.model,
            normalize=self.normalize,
            temperature=self.distill.temperature,
            seed=self.seed,
            device=self.device,
        )

    def _ask_teacher(self, images: Tensor) -> Tensor:
        assert self.teacher is not None
        answers: Tensor = self.teacher(self.normalize(images))
        return answers

    def _answers(self, role: str) -> Predict | None:
        """What a view may ask: the teacher, or the student in evaluation mode, which leaves its statistics alone."""
        if role == "teacher":
            return self._ask_teacher
        return self._ask_student if role == "student" else None

    @torch.no_grad()
    def _ask_student(self, images: Tensor) -> Tensor:
        self.model.eval()
        try:
            logits: Tensor = self.model(self.normalize(images))
        finally:
            self.model.train()
        return logits

    def _teacher_view(self, raw: Tensor) -> Tensor:
        augmented = self._teacher_augment(raw) if self._teacher_augment else raw
        return self.normalize(self._base(augmented, self.fill, self._teacher_generator))


def start_from(student: torch.nn.Module, weights: dict[str, Tensor]) -> int:
    """Copy every weight whose name and shape agree into `student`; returns how many were copied."""
    own = student.state_dict()
    shared = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    student.load_state_dict(own | shared)
    return len(shared)
