"""What one role is trained on, as plain data that can travel, and the learner that is made from it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spaces import Genome, ImageSpec, RequestError, Schedule
from spaces.augmentations import Augmentation
from spaces.schedule.agent import Agent
from trainables.data import DataSet, Images
from trainables.distillation.objective import Distill
from trainables.distillation.student import Student, start_from
from trainables.models import build_model
from trainables.quantization import Bits, exported, quantize, size_in_bits
from trainables.shared_memory import Sent, all_received, all_sent
from trainables.training.frozen_teacher import FrozenTeacher, Renormalize, Statistics
from trainables.training.learner import Learner, Teacher
from trainables.training.recipe import Recipe


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher to learn from.

    Args:
        model: a name that `build_model` knows.
        weights: of the model.
        schedule: that it was trained on, if known.
        classes: of its own task; None: the student's.
        statistics: mean and deviation that its images were normalized by; None: the student's.
    """

    model: str
    weights: dict[str, Tensor]
    schedule: Schedule | None = None
    classes: int | None = None
    statistics: Statistics | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled so that its weights are read where they lie, see `trainables.shared_memory`."""
        return _arrived, (self.model, all_sent(self.weights), self.schedule, self.classes, self.statistics)

    def frozen(self, data: DataSet) -> FrozenTeacher:
        """The teacher at work on images that are normalized as those of `data`; on the CPU it shares `weights`."""
        classes = data.classes if self.classes is None else self.classes
        model = build_model(self.model, seed=0, classes=classes, channels=data.channels, size=data.size)
        own = model.state_dict()
        weights = {name: value.to(own[name]) if name in own else value for name, value in self.weights.items()}
        model.load_state_dict(weights, assign=True)
        given = (data.mean, data.std)
        if self.statistics is not None and self.statistics != given:
            model.register_forward_pre_hook(Renormalize(given, self.statistics))
        return FrozenTeacher(model, classes)


def _arrived(model: str, weights: dict[str, Sent], *rest: Any) -> TrainedTeacher:
    return TrainedTeacher(model, all_received(weights), *rest)


@dataclass(frozen=True)
class Task:
    """One role's training.

    Args:
        role: `teacher` or `student`.
        model: a name that `build_model` knows.
        data: trained on `data.train`.
        recipe: how.
        epochs: length of the training.
        validation: what is scored, or None where nothing is held out.
        validate_every: epochs from one score to the next; the last epoch is always scored.
        teacher: for a student; None: it learns without.
        distill: for a student.
        weights: learned weights that genomes refer to, by their hash; for a student.
        bits: of a student's weights and activations, where its genome does not choose others.
    """

    role: Literal["teacher", "student"]
    model: str
    data: DataSet
    recipe: Recipe
    epochs: int
    validation: Images | None = None
    validate_every: int = 1
    teacher: TrainedTeacher | None = None
    distill: Distill = field(default_factory=Distill)
    weights: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    bits: Bits = field(default_factory=Bits)
    _sizes: dict[Bits, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def image(self) -> ImageSpec:
        """The images that a schedule found here is made for."""
        fill = tuple(round(255 * value) for value in self.data.mean)
        return ImageSpec(self.data.size, self.data.channels, fill)

    def to(self, device: torch.device | str) -> Task:
        """The same task with the images that it trains on and is scored on, and no others, on `device`."""
        validation = self.validation.to(device) if self.validation is not None else None
        return replace(self, data=replace(self.data, train=self.data.train.to(device)), validation=validation)

    def under(self, source: Genome | Schedule) -> Task:
        """The same task with the bits that `source` has chosen; what it says nothing of stays as it is.

        Raises:
            RequestError: they are no bits, the phases of a schedule differ in them, or the role has none to choose.
        """
        phases = [phase.genome for phase in source.phases] if isinstance(source, Schedule) else [source]
        chosen = phases[0].bits
        if any(genome.bits != chosen for genome in phases):
            rule = "all phases of a schedule choose the same bits, since a network keeps those that it has"
            raise RequestError(rule, value=[dict(genome.bits) for genome in phases])
        if chosen and self.role == "teacher":
            raise RequestError("bits are chosen for a student, and a teacher has full precision", value=dict(chosen))
        return replace(self, bits=self.bits.under(chosen)) if chosen else self

    def learner(
        self,
        source: Genome | Schedule,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        shown: Augmentation | None = None,
    ) -> Learner:
        """A fresh learner whose agent is moved by `source`; initial weights and all draws follow from `seed`.

        What it is `shown` is augmented by that first: so baselines are trained, under a genome that does nothing. Its
        network has the bits of `under(mover)`, from the start to the end.

        Raises:
            RequestError: as `under`.
        """
        data, bits = self.data, self.under(source).bits
        model = self._plain(seed)
        common: dict[str, Any] = {"epochs": self.epochs, "seed": seed, "device": device, "shown": shown}
        if self.role == "teacher":
            return Teacher(model, data, self.recipe, Agent(source), **common)
        if self.teacher is not None and self.distill.init == "teacher":
            start_from(model, self.teacher.weights)
        return Student(
            quantize(model, bits),
            data,
            self.recipe,
            Agent(source),
            teacher=self.teacher.frozen(data) if self.teacher is not None else None,
            distill=self.distill,
            teacher_schedule=self.teacher.schedule if self.teacher is not None else None,
            weights=self.weights,
            bits=bits,
            **common,
        )

    def network(self, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        """A network of this task as it stands in a learner's state, its bits and all; None: freshly initialized."""
        model = quantize(self._plain(seed=0), self.bits)
        if weights is not None:
            model.load_state_dict(weights)
        return model

    def exported(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A learner's weights as anybody can load them: with the plain model's names, low-bit ones at their levels."""
        return exported(self.network(weights))

    def size_in_bits(self, source: Genome | Schedule) -> int:
        """What the exported network takes under the bits that `source` has chosen; built once for each of them."""
        task = self.under(source)
        if task.bits not in self._sizes:
            self._sizes[task.bits] = size_in_bits(task.network())
        return self._sizes[task.bits]

    def _plain(self, seed: int) -> nn.Module:
        data = self.data
        return build_model(self.model, seed=seed, classes=data.classes, channels=data.channels, size=data.size)

    def train_epoch(self, learner: Learner) -> dict[str, float]:
        """One epoch of `learner`.

        Returns:
            What `Learner.step` gives; `policy/<Op>/strength`, each operation's expected magnitude in this epoch; and
            where a score is due, `validation_accuracy`, `validation_loss` and `seconds/validate`.
        """
        strength = learner.agent.genome.policy.strength()
        metrics = learner.step() | {f"policy/{op}/strength": value for op, value in strength.items()}
        due = learner.epoch % self.validate_every == 0 or learner.epoch == self.epochs
        if self.validation is None or not due:
            return metrics
        started = time.perf_counter()
        score = learner.evaluate(self.validation)
        metrics |= {f"validation_{name}": value for name, value in score.items()}
        return metrics | {"seconds/validate": time.perf_counter() - started}


def test_score(task: Task, weights: dict[str, Tensor], device: torch.device | str = "cpu") -> dict[str, float]:
    """`accuracy` and `loss` on the test images of a network of this task with `weights`."""
    learner = task.learner(Genome(), seed=0, device=device)
    learner.model.load_state_dict(weights)
    return learner.evaluate(task.data.test)
