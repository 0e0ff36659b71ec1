"""The student in training: cross-entropy with the labels, and distillation from a frozen teacher."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import RequestError, Schedule, Transform
from spaces.augmentations import Augmentation, Hard, Predict, View
from spaces.augmentations.hard_weights import with_weights
from spaces.core.seeding import seeded_generator
from trainables.distillation.objective import Distill, Distillation
from trainables.hard.game import SHOWN, Game
from trainables.hard.replay import augmentation_of
from trainables.losses import DistillBatch, kd_loss, upgrade_losses
from trainables.quantization import Bits
from trainables.screening.t_stddev import RunningTStddev
from trainables.training.batch import Batch
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.learner import Learner
from trainables.training.memory_format import on_device
from trainables.training.recipe import restore_optimizer


class Student(Learner):
    """A `Learner` that distills a frozen teacher, or learns without one.

    Args:
        *args: Arguments of `Learner`.
        teacher: Frozen teacher; None where no loss needs one.
        distill: Distillation settings, which a genome may override.
        teacher_schedule: Schedule that the teacher sees where `distill.teacher_view` is `distinct`; None for the
            data set's base augmentation.
        weights: Learned weights that genomes refer to, by their hash.
        bits: Bits that the network was built with; None for full precision.
        **kwargs: Keyword arguments of `Learner`.

    Raises:
        RequestError: A loss does not fit the two networks, or needs a teacher and there is none.

    Example:
        >>> from spaces import Genome
        >>> from trainables import Recipe, Task, TrainedTeacher
        >>> from trainables.data import load
        >>> from trainables.models import build_model
        >>> weights = build_model("mlp", classes=10, channels=1, size=8, seed=0).state_dict()
        >>> data = load("digits", train=100, validation=50)
        >>> recipe = Recipe(batch_size=50)
        >>> task = Task("student", "mlp", data, recipe, epochs=1, teacher=TrainedTeacher("mlp", weights))
        >>> student = task.learner(Genome(), seed=1)
        >>> metrics = student.step()
        >>> type(student).__name__, "kd_loss" in metrics, "task_loss" in metrics
        ('Student', True, True)
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
        self._loss_optimizer: torch.optim.Optimizer | None = None
        self._teacher_schedule = teacher_schedule.stretch(self.epochs) if teacher_schedule else None
        self._weights = weights or {}
        self.bits = bits or Bits()
        self.game: Game | None = None
        self._t_stddev = RunningTStddev(self._teacher_logits_of_rows, len(self.data.train), self.recipe.batch_size)

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the augmentations, the losses and HARD's game for `epoch`.

        Raises:
            RequestError: The genome in force does not fit the networks, or chooses other bits than the student's.
        """
        genome = self.agent.genome
        if self.bits.override(genome.bits) != self.bits:
            rule = "the genome's bits must be those that the network was built with"
            raise RequestError(rule, value=dict(genome.bits), hint="build another learner for other bits")
        super().begin_epoch(epoch)
        choices = dict(genome.distill)
        if "loss" in choices:
            choices["loss"] = upgrade_losses(choices["loss"])  # policy files of earlier versions use old names
        self.distill = self._settings.override(choices)
        if self.distillation is None or not self.distillation.update_weights(self.distill):
            self._build_distillation(self.distill, epoch)
        self._check_second_view()
        self._t_stddev.begin(genome)
        self._view_generator = seeded_generator(self.seed, epoch, 5)
        self._second_augment: Augmentation = with_weights(genome.augment, self._weights)
        if isinstance(self._second_augment, Hard) and self._second_augment.learns:
            self._begin_game(self._second_augment, epoch)
        self._teacher_generator = seeded_generator(self.seed, epoch, 3)
        self._teacher_augment = None
        if self._teacher_schedule:
            policy = self._teacher_schedule.at(epoch).policy
            self._teacher_augment = Transform(policy, fill=self.fill, seed=(self.seed, epoch, 4))

    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute `loss` = (1 − α) · `task_loss` + α · (Σ wᵢ · lossᵢ + `view_loss`).

        `view_loss`, where the genome has a second view, is always `kd_loss` on that view: its only target is the
        teacher's answer, as in CutMixPick (Wang et al. 2022, https://arxiv.org/abs/2012.02909).
        """
        distillation = self._current_distillation()
        with distillation.teacher_features.recording() as teacher_features:
            answers = self._answers_to_batch(images, batch)
        second = self._second_view(batch.raw)
        if answers is not None and (second or self.distill.teacher_view == "shared"):
            # A teacher with a distinct view answers to other images than the student's.
            self._t_stddev.add(answers, *([second[1]] if second else []))
        shown = images if second is None else torch.cat((images, second[0]))
        with distillation.student_features.recording() as student_features:
            logits = self.model(shown)
        logits, second_logits = logits[: len(images)], logits[len(images) :]
        student_features = {name: value[: len(images)] for name, value in student_features.items()}
        temperature, alpha = self.distill.temperature, self.distill.alpha
        task_loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.recipe.label_smoothing)
        parts: dict[str, Tensor] = distillation(
            DistillBatch(
                images, batch.labels, batch.rows, temperature, logits, answers, student_features, teacher_features
            )
        )
        loss = (1 - alpha) * task_loss + alpha * parts.pop("distill")
        parts |= {"loss": loss, "task_loss": task_loss, "logits": logits}
        if second is None:
            return parts
        parts["view_loss"] = kd_loss(second_logits, second[1], temperature)
        if self.game is not None and self._second_augment.learns and answers is not None:
            clean = parts["kd_loss"] if "kd_loss" in parts else kd_loss(logits, answers, temperature)
            self.game.record_student_step(clean.detach(), parts["view_loss"])
        return parts | {"loss": loss + alpha * parts["view_loss"]}

    def end_epoch(self) -> dict[str, float]:
        """Return further metrics of the epoch.

        Returns:
            `t_stddev_ratio`, T. stddev under the genome in force over its value without augmentation; what the losses
            report; and, where HARD's game is played, what `Game.end_epoch` returns.
        """
        ratio = self._t_stddev.ratio() if self.teacher is not None else None
        metrics = self._current_distillation().report() | ({} if ratio is None else {"t_stddev_ratio": ratio})
        if self.game is None or not self._second_augment.learns:
            return metrics
        picture_epochs = {round(quarter * (self.epochs - 1) / 4) for quarter in range(5)}
        examples = None
        if self.epoch in picture_epochs or not self.game.grids:
            rows = torch.arange(min(SHOWN, len(self.data.train)))
            examples, _ = next(iter(self.data.train.subset(rows).batches(SHOWN)))
        return metrics | self.game.end_epoch(None if examples is None else examples.to(self.device))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizer of the network and, if they have any, that of the losses' parameters."""
        return [self.optimizer, self._loss_optimizer] if self._loss_optimizer is not None else [self.optimizer]

    def state_dict(self) -> dict[str, Any]:
        """Return the learner's state, T. stddev's running means, the losses' parameters, and HARD's game."""
        game = self.game.state_dict() if self.game is not None else None
        losses = None
        if self.distillation is not None and self.distillation.terms:
            optimizer = self._loss_optimizer.state_dict() if self._loss_optimizer is not None else None
            losses = {
                "losses": self.distillation.describe(),
                "parameters": self.distillation.state_dict(),
                "optimizer": optimizer,
            }
        return super().state_dict() | {"t_stddev": self._t_stddev.state_dict(), "distill": losses, "game": game}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        super().load_state_dict(state)
        self._t_stddev.load_state_dict(state["t_stddev"])
        self.distillation = self._loss_optimizer = None
        if state.get("distill") is not None:
            losses = state["distill"]
            distillation = self._build_distillation(replace(self._settings, loss=deepcopy(losses["losses"])), 0)
            distillation.load_state_dict(losses["parameters"])
            if self._loss_optimizer is not None:
                restore_optimizer(self._loss_optimizer, losses["optimizer"])
        self.game = None
        if state.get("game") is not None:
            self.game = self._build_game(augmentation_of(state["game"], self._weights))
            self.game.load_state_dict(deepcopy(state["game"]))

    # Losses ---------------------------------------------------------------------------------------------------------

    def _build_distillation(self, distill: Distill, epoch: int) -> Distillation:
        """Build the losses, and the optimizer of their parameters."""
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
        trainable = any(parameter.requires_grad for parameter in self.distillation.parameters())
        self._loss_optimizer = self.recipe.make_optimizer(self.distillation) if trainable else None
        return self.distillation

    def _current_distillation(self) -> Distillation:
        return self.distillation or self._build_distillation(self.distill, self.epoch)

    # Views ----------------------------------------------------------------------------------------------------------

    def _answers_to_batch(self, images: Tensor, batch: Batch) -> Tensor | None:
        """Return the teacher's logits (B, K) on the student's images or on its own view; None without a teacher."""
        if self.teacher is None:
            return None
        if self.distill.teacher_view == "distinct":
            augmented = self._teacher_augment(batch.raw) if self._teacher_augment else batch.raw
            images = self.normalize(self._base(augmented, self.fill, self._teacher_generator))
        logits: Tensor = self.teacher(images)
        return logits

    def _second_view(self, raw: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the genome's second view, (B, C, H, W) float, and the teacher's logits on it; None if it has none.

        It is made from the images under the data set's base augmentation, as the first view is without a policy.
        """
        augment = self._second_augment
        if not self.agent.genome.has_view:
            return None
        base = self._base(raw, self.fill, self._view_generator)
        view = self._game_view(base)
        if view is None:
            view = augment(base, self.fill, self._view_generator, self._answers_for(augment.scored_by))
        logits = view.logits if augment.scored_by == "teacher" else None
        return self.normalize(view.images), self._teacher_logits(view.images) if logits is None else logits

    def _check_second_view(self) -> None:
        classes = self._current_distillation().teacher_classes
        if self.agent.genome.has_view and classes != self.data.classes:
            rule = f"a second view (space.augment) needs a teacher, which must have {self.data.classes} classes"
            raise RequestError(rule, value=classes, hint="set augment: [identity]")

    def _answers_for(self, role: str) -> Predict | None:
        """Return the function that an augmentation asks for logits."""
        if role == "teacher":
            return self._teacher_logits
        return self._student_logits if role == "student" else None

    def _teacher_logits(self, images: Tensor) -> Tensor:
        assert self.teacher is not None
        logits: Tensor = self.teacher(self.normalize(images))
        return logits

    def _teacher_logits_of_rows(self, rows: Tensor) -> Tensor:
        """Return the teacher's logits on unaugmented training images, (rows, K)."""
        batches = self.data.train.subset(rows).batches(512)
        return torch.cat([self._teacher_logits(images) for images, _ in batches])

    @torch.no_grad()
    def _student_logits(self, images: Tensor) -> Tensor:
        self.model.eval()  # leaves batch statistics unchanged
        try:
            logits: Tensor = self.model(self.normalize(images))
        finally:
            self.model.train()
        return logits

    # HARD's game ----------------------------------------------------------------------------------------------------

    def _begin_game(self, augment: Hard, epoch: int) -> None:
        """Continue the game of the epoch before, or start a new one for another augmentor."""
        if self.game is None or not self.game.fits(augment):
            earlier = self.game.snapshots if self.game is not None else {}
            self.game = self._build_game(augment)
            self.game.snapshots |= earlier
        self.game.begin_epoch(epoch, augment, self.seed)

    def _game_view(self, images: Tensor) -> View | None:
        """Return the view of the augmentor that plays against this student; None where none does."""
        if self.game is None or not self._second_augment.learns:
            return None
        images = images.to(self.device)
        self.game.train_augmentor(images)
        return self.game.view(images)

    def _build_game(self, augment: Hard) -> Game:
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


def copy_matching_weights(student: torch.nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Copy every weight whose name and shape agree into `student`; return how many were copied."""
    state = student.state_dict()
    shared = {name: value for name, value in weights.items() if name in state and state[name].shape == value.shape}
    student.load_state_dict(state | shared)
    return len(shared)
