"""One role's training as plain data that can be pickled, and the learner built from it."""

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
from trainables.distillation.student import Student, copy_matching_weights
from trainables.models import build_model
from trainables.quantization import Bits, exported_state, quantize, size_in_bits
from trainables.shared_memory import Shareable, all_from_shareable, all_to_shareable
from trainables.training.frozen_teacher import FrozenTeacher, Renormalize, Statistics
from trainables.training.learner import Learner, Teacher
from trainables.training.recipe import Recipe


@dataclass(frozen=True)
class TrainedTeacher:
    """The weights of a trained teacher, and what is needed to use them.

    Args:
        model: Model name, see `build_model`.
        weights: Tensors by name.
        schedule: Schedule that it was trained with, if known.
        classes: Number of its classes; None for the student's.
        statistics: Mean and standard deviation that its images were normalized by; None for the student's.

    Example:
        >>> from trainables.data import load
        >>> model = build_model("mlp", classes=10, channels=1, size=8, seed=0)
        >>> teacher = TrainedTeacher("mlp", model.state_dict()).freeze(load("digits"))
        >>> tuple(teacher(torch.zeros(2, 1, 8, 8)).shape)
        (2, 10)
    """

    model: str
    weights: dict[str, Tensor]
    schedule: Schedule | None = None
    classes: int | None = None
    statistics: Statistics | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the weights so that other processes read them in place, see `trainables.shared_memory`."""
        weights = all_to_shareable(self.weights)
        return _unpickle_teacher, (self.model, weights, self.schedule, self.classes, self.statistics)

    def freeze(self, data: DataSet) -> FrozenTeacher:
        """Build the frozen teacher for images normalized like those of `data`; on the CPU it shares `weights`."""
        classes = data.classes if self.classes is None else self.classes
        model = build_model(self.model, seed=0, classes=classes, channels=data.channels, size=data.size)
        state = model.state_dict()
        weights = {name: value.to(state[name]) if name in state else value for name, value in self.weights.items()}
        model.load_state_dict(weights, assign=True)
        statistics = (data.mean, data.std)
        if self.statistics is not None and self.statistics != statistics:
            model.register_forward_pre_hook(Renormalize(source=statistics, target=self.statistics))
        return FrozenTeacher(model, classes)


def _unpickle_teacher(model: str, weights: dict[str, Shareable], *rest: Any) -> TrainedTeacher:
    return TrainedTeacher(model, all_from_shareable(weights), *rest)


@dataclass(frozen=True)
class Task:
    """The training of one role.

    Args:
        role: `teacher` or `student`.
        model: Model name, see `build_model`.
        data: Data set, whose `train` images are used.
        recipe: Training settings.
        epochs: Length of the training.
        validation: Images to validate on; None for no validation.
        validate_every: Epochs between two validations; the last epoch is always validated.
        teacher: Teacher of a student; None for a student without one.
        distill: Distillation settings of a student.
        weights: Learned weights that a student's genomes refer to, by their hash.
        bits: Bits of a student's weights and activations, unless its genome chooses others.
        score: Measure that members are selected by: `accuracy`, or `cross_entropy`, lower is better.

    Example:
        >>> from spaces import Genome
        >>> from trainables.data import load
        >>> data = load("digits", train=100, validation=50)
        >>> task = Task("teacher", "mlp", data, Recipe(batch_size=50), epochs=1, validation=data.validation)
        >>> learner = task.learner(Genome(), seed=0)
        >>> metrics = task.train_epoch(learner)
        >>> "validation_accuracy" in metrics
        True
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
    score: Literal["accuracy", "cross_entropy"] = "accuracy"
    _sizes: dict[Bits, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def image(self) -> ImageSpec:
        """Images that a schedule found for this task is made for."""
        fill = tuple(round(255 * value) for value in self.data.mean)
        return ImageSpec(self.data.size, self.data.channels, fill)

    def to(self, device: torch.device | str) -> Task:
        """Return the task with its training and validation images, but no test images, on `device`."""
        validation = self.validation.to(device) if self.validation is not None else None
        return replace(self, data=replace(self.data, train=self.data.train.to(device)), validation=validation)

    def with_bits_of(self, source: Genome | Schedule) -> Task:
        """Return the task with the bits that `source` chooses; without a choice they stay the same.

        Raises:
            RequestError: A choice is invalid, the phases of a schedule choose different bits, or the role is teacher.
        """
        genomes = [phase.genome for phase in source.phases] if isinstance(source, Schedule) else [source]
        choices = genomes[0].bits
        if any(genome.bits != choices for genome in genomes):
            rule = "all phases of a schedule must choose the same bits, since a network is quantized once"
            raise RequestError(rule, value=[dict(genome.bits) for genome in genomes])
        if choices and self.role == "teacher":
            raise RequestError("a teacher must have full precision, so no genome chooses its bits", value=dict(choices))
        return replace(self, bits=self.bits.override(choices)) if choices else self

    def learner(
        self,
        source: Genome | Schedule,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        baseline: Augmentation | None = None,
    ) -> Learner:
        """Build a new learner.

        Args:
            source: Genome or schedule of its agent, whose bits its network has from the start.
            seed: Seed of initial weights and of all draws.
            device: Device of the network.
            baseline: Augmentation that is applied before the agent's; None for none.

        Raises:
            RequestError: See `with_bits_of`.
        """
        data, bits = self.data, self.with_bits_of(source).bits
        model = self._full_precision_model(seed)
        common: dict[str, Any] = {"epochs": self.epochs, "seed": seed, "device": device, "baseline": baseline}
        if self.role == "teacher":
            return Teacher(model, data, self.recipe, Agent(source), **common)
        if self.teacher is not None and self.distill.init == "teacher":
            copy_matching_weights(model, self.teacher.weights)
        return Student(
            quantize(model, bits),
            data,
            self.recipe,
            Agent(source),
            teacher=self.teacher.freeze(data) if self.teacher is not None else None,
            distill=self.distill,
            teacher_schedule=self.teacher.schedule if self.teacher is not None else None,
            weights=self.weights,
            bits=bits,
            **common,
        )

    def network(self, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Build the quantized network of this task, with a learner's weights or freshly initialized."""
        model = quantize(self._full_precision_model(seed=0), self.bits)
        if weights is not None:
            model.load_state_dict(weights)
        return model

    def exported_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a learner's weights under the plain model's names, see `quantization.exported_state`."""
        return exported_state(self.network(weights))

    def size_in_bits(self, source: Genome | Schedule) -> int:
        """Return the size of the exported network under the bits that `source` chooses; cached for each choice."""
        task = self.with_bits_of(source)
        if task.bits not in self._sizes:
            self._sizes[task.bits] = size_in_bits(task.network())
        return self._sizes[task.bits]

    def train_epoch(self, learner: Learner) -> dict[str, float]:
        """Train one epoch, and validate if it is due.

        Returns:
            The metrics of `Learner.step`; `policy/<Op>/strength`, each operation's expected magnitude in this epoch;
            and, after a validation, `validation_accuracy`, `validation_loss` and `seconds/validate`, and `score`, the
            negative loss, where that is what members are selected by.
        """
        strength = learner.agent.genome.policy.strength()
        metrics = learner.step() | {f"policy/{op}/strength": value for op, value in strength.items()}
        due = learner.epoch % self.validate_every == 0 or learner.epoch == self.epochs
        if self.validation is None or not due:
            return metrics
        started = time.perf_counter()
        score = learner.evaluate(self.validation)
        metrics |= {f"validation_{name}": value for name, value in score.items()}
        metrics |= {"score": -score["loss"]} if self.score == "cross_entropy" else {}
        return metrics | {"seconds/validate": time.perf_counter() - started}

    def _full_precision_model(self, seed: int) -> nn.Module:
        data = self.data
        return build_model(self.model, seed=seed, classes=data.classes, channels=data.channels, size=data.size)


def test_score(task: Task, weights: dict[str, Tensor], device: torch.device | str = "cpu") -> dict[str, float]:
    """Return `accuracy` and `loss` of the task's network with `weights` on the test images.

    Where these are of a target domain, `in_domain_accuracy` is of the test images of the source.
    """
    learner = task.learner(Genome(), seed=0, device=device)
    learner.model.load_state_dict(weights)
    score = learner.evaluate(task.data.test)
    if task.data.in_domain is not None:
        score["in_domain_accuracy"] = learner.evaluate(task.data.in_domain)["accuracy"]
    return score
