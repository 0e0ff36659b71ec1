"""The training of one network, epoch by epoch: what teacher and student have in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces import BaseAugmentation, Genome, RequestError, Transform
from spaces.augmentations import Augmentation
from spaces.core.seeding import seeded_generator
from spaces.schedule.agent import Agent
from trainables.data import DataSet, Images
from trainables.data.images import batch_rows
from trainables.training.batch import Batch, EpochMetrics
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.memory_format import on_device
from trainables.training.normalize import Normalize
from trainables.training.recipe import Recipe, restore_optimizer
from trainables.training.rng import epoch_rng

_STATE_VERSION = 1


class Learner(ABC):
    """A role's network with its optimizer and its augmentation agent; one `step` is one epoch.

    All randomness of an epoch follows from `seed` and the epoch's number. Both are part of the state, so a resumed
    training and an uninterrupted one agree bit for bit on the CPU. The global random state is never touched.

    Args:
        model: Network to train, (B, C, H, W) float → logits (B, K).
        data: Data set whose `train` images are used; put them on `device` beforehand if they fit.
        recipe: Optimizer, learning rate and precision.
        agent: Agent that gives the genome in force.
        epochs: Length of the whole training, over which the learning rate schedule is laid.
        seed: Seed of the image order and of all augmentation draws.
        device: Device of the network.
        baseline: Augmentation that is applied before the agent's, as baselines use it; None for none.

    Example:
        >>> from spaces import Genome
        >>> from spaces.schedule.agent import Agent
        >>> from trainables.data import load
        >>> from trainables.models import build_model
        >>> data = load("digits", train=100, validation=50)
        >>> model = build_model("mlp", classes=10, channels=1, size=8, seed=0)
        >>> teacher = Teacher(model, data, Recipe(batch_size=50), Agent(Genome()), epochs=1, seed=0)
        >>> metrics = teacher.step()
        >>> teacher.epoch, sorted(metrics)[:3]
        (1, ['images_per_s', 'learning_rate', 'loss'])
        >>> sorted(teacher.evaluate(data.validation))
        ['accuracy', 'loss']
    """

    role: str
    teacher: FrozenTeacher | None = None

    def __init__(
        self,
        model: nn.Module,
        data: DataSet,
        recipe: Recipe,
        agent: Agent,
        *,
        epochs: int,
        seed: int,
        device: torch.device | str = "cpu",
        baseline: Augmentation | None = None,
    ) -> None:
        """Move the network to its device and build the optimizer."""
        self.device = torch.device(device)
        shape = (data.channels, data.size, data.size)
        self.model, channels_last = on_device(model, self.device, recipe.channels_last, shape)
        self.data, self.recipe, self.agent = data, recipe, agent
        self.epochs, self.seed = epochs, seed
        self.optimizer = recipe.make_optimizer(self.model)
        self._base = BaseAugmentation(data.crop, data.flip)
        self.normalize = Normalize(data, self.device, channels_last=channels_last)
        self.fill = self.normalize.fill
        self._baseline = baseline

    @property
    def epoch(self) -> int:
        """Number of epochs trained so far."""
        return self.agent.epoch

    def set_genome(self, genome: Genome) -> None:
        """Augment by `genome` from the next epoch on."""
        self.agent.set_genome(genome)

    def step(self) -> dict[str, float]:
        """Train one epoch.

        Returns:
            `loss` and its named parts (means over the epoch), `train_accuracy` in [0, 1] (on augmented images),
            `learning_rate` (of the last update), `images_per_s`, and the seconds spent: `seconds/train`, of which
            `seconds/augment`.

        Raises:
            WorkError: The loss is not finite.
        """
        start, epoch, totals = time.perf_counter(), self.epoch, EpochMetrics()
        self.begin_epoch(epoch)
        self.model.train()
        with epoch_rng(self.seed, epoch, self.device):
            for images, batch, learning_rate in self._batches(epoch):
                with self.autocast():
                    losses = self.losses(images, batch)
                self._update(losses, learning_rate)
                totals.add(losses, batch.labels)
        metrics = totals.means(epoch) | self.end_epoch()
        self.agent.advance()
        seconds = time.perf_counter() - start
        return metrics | {
            "learning_rate": learning_rate,
            "images_per_s": totals.images / seconds,
            "seconds/train": seconds,
            "seconds/augment": self.augment_seconds,
        }

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the augmentation of `epoch`."""
        self._augment = Transform(self.agent.genome.policy, fill=self.fill, seed=(self.seed, epoch, 1))
        self.augment_seconds = 0.0

    @abstractmethod
    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of one batch.

        Args:
            images: Augmented and normalized images, (B, C, H, W) float.
            batch: The same images before augmentation.

        Returns:
            `loss`, the scalar to minimize; `logits`, (B, K); further named parts to report; and, where other modules
            learn beside the network, `auxiliary_loss`, the scalar that these minimize.
        """

    def end_epoch(self) -> dict[str, float]:
        """Return further metrics of the epoch."""
        return {}

    def view(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Augment uint8 images by the agent's genome and then by the data set's base augmentation."""
        start = time.perf_counter()
        if self._baseline is not None:
            raw = self._baseline(raw, self.fill, generator).images
        images = self._base(self._augment(raw), self.fill, generator)
        self.augment_seconds += time.perf_counter() - start
        return images

    @torch.no_grad()
    def evaluate(self, images: Images, batch_size: int = 512) -> dict[str, float]:
        """Evaluate the network without augmentation.

        Args:
            images: Labeled images.
            batch_size: Images per forward pass.

        Returns:
            `accuracy` in [0, 1] and `loss`, the mean cross-entropy in nats.
        """
        self.model.eval()
        correct = torch.zeros((), device=self.device)
        loss = torch.zeros((), device=self.device)
        for batch, labels in images.batches(batch_size):
            labels = labels.to(self.device)
            with self.autocast():
                logits = self.model(self.normalize(batch)).float()
            correct += (logits.argmax(1) == labels).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
        return {"accuracy": float(correct) / len(images), "loss": float(loss) / len(images)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs: tensors, numbers and names only."""
        return {
            "version": _STATE_VERSION,
            "role": self.role,
            "seed": self.seed,
            "history": self.agent.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, which may be another population member's.

        Raises:
            RequestError: The state belongs to another role or another version.
        """
        if (state.get("version"), state.get("role")) != (_STATE_VERSION, self.role):
            value = f"version {state.get('version')}, role {state.get('role')}"
            raise RequestError(f"the checkpoint must be of version {_STATE_VERSION} and role {self.role}", value=value)
        self.seed = state["seed"]
        self.model.load_state_dict(state["model"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.agent.load_state_dict(state["history"])

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers of the network and of everything else that learns."""
        return [self.optimizer]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context with the recipe's precision, for a forward pass."""
        if self.recipe.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Batch, float]]:
        """Yield augmented images, the raw batch and the learning rate of each update."""
        size, total = self.recipe.batch_size, len(self.data.train)
        steps = max(1, total // size)
        generator = seeded_generator(self.seed, epoch)
        rows = batch_rows(total, size, generator=seeded_generator(self.seed, epoch), drop_last=total >= size)
        batches = self.data.train.batches(size, generator=generator, drop_last=total >= size)
        for index, (raw, labels) in enumerate(batches):
            learning_rate = self.recipe.lr_at(epoch + (index + 0.5) / steps, self.epochs)
            images = self.normalize(self.view(raw, generator))
            yield images, Batch(raw, labels.to(self.device), rows[index]), learning_rate

    def _update(self, losses: dict[str, Tensor], learning_rate: float) -> None:
        """Take one step of every optimizer."""
        for optimizer in self.optimizers():
            optimizer.zero_grad(set_to_none=True)
        total = losses["loss"]
        if "auxiliary_loss" in losses:
            total = total + losses["auxiliary_loss"]
        total.backward()
        for optimizer in self.optimizers():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            if self.recipe.clip is not None:
                parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
                nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
            optimizer.step()


class Teacher(Learner):
    """The teacher in training: cross-entropy with the labels.

    Example:
        >>> from spaces import Genome
        >>> from trainables import Recipe, Task
        >>> from trainables.data import load
        >>> task = Task("teacher", "mlp", load("digits", train=100, validation=50), Recipe(batch_size=50), epochs=2)
        >>> teacher = task.learner(Genome(), seed=0)
        >>> type(teacher).__name__, teacher.step()["loss"] > 0
        ('Teacher', True)
    """

    role = "teacher"

    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `loss`, the cross-entropy with the recipe's label smoothing, and `logits`."""
        logits = self.model(images)
        loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.recipe.label_smoothing)
        return {"loss": loss, "logits": logits}
