"""One network in training, epoch by epoch: what the teacher and the student have in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces import BaseAugmentation, Genome, RequestError, Transform
from spaces.augmentations import Augmentation
from spaces.schedule.agent import Agent
from trainables.data import DataSet, Images
from trainables.training.batch import Batch, Epoch, Views, objective, private_randomness
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.memory_format import on_device
from trainables.training.normalize import Normalize
from trainables.training.recipe import Recipe, restore_optimizer

_STATE_VERSION = 1


class Learner(ABC):
    """A role's network, its optimizer and its agent; one `step` is one epoch.

    All randomness of an epoch follows from `seed` and the epoch's number. Both stand in the state, so an interrupted
    training and an uninterrupted one agree bit for bit on the CPU, and the global random state is never touched.

    Args:
        model: the network to train; (B, C, H, W) float → logits (B, classes).
        data: its `train` images are trained on; they should lie on `device` already if they fit there.
        recipe: how.
        agent: says which genome is in force.
        epochs: length of the whole training, which the learning rate's schedule is laid over.
        seed: of the order of the images and of every draw of the augmentation.
        device: where the network lives.
        shown: an augmentation of the catalog that comes before the agent's; None: none does.
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
        shown: Augmentation | None = None,
    ) -> None:
        """Move the network to its device and make the optimizer."""
        self.device = torch.device(device)
        shape = (data.channels, data.size, data.size)
        self.model, channels_last = on_device(model, self.device, recipe.channels_last, shape)
        self.data, self.recipe, self.agent = data, recipe, agent
        self.epochs, self.seed = epochs, seed
        self.optimizer = recipe.make_optimizer(self.model)
        self._base = BaseAugmentation(data.crop, data.flip)
        self.normalize = Normalize(data, self.device, channels_last=channels_last)
        self.fill = self.normalize.fill
        self._shown = shown

    @abstractmethod
    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The named parts of the loss: `look`, the network's answer, `compute_losses`.

        `loss` is the one that is minimized, `logits` the network's answer; `own`, where there is one, is minimized
        beside it by what is not the network's.

        Args:
            images: what this role sees of the batch: augmented and normalized, (B, C, H, W) float.
            batch: the same images as they are.
        """

    def teacher_inputs(self, images: Tensor, batch: Batch) -> Tensor:
        """What the teacher, where there is one, is shown of a batch that the network sees as `images`."""
        del batch
        return images

    def look(self, images: Tensor, batch: Batch, answers: Tensor | None = None) -> Views:
        """All that comes before the network's answer, with the teacher's `answers` to what it is `teacher_inputs`."""
        return Views(images, batch, answers)

    @abstractmethod
    def compute_losses(self, look: Views, logits: Tensor) -> dict[str, Tensor]:
        """As `losses`, from the network's answer to what `look` has shown it."""

    def alone(self) -> str | None:
        """Why the next epoch cannot be one of a `trainables.stacked.Stack`; None: nothing speaks against it."""
        return None

    @property
    def epoch(self) -> int:
        """How many epochs were trained so far."""
        return self.agent.epoch

    def set_genome(self, genome: Genome) -> None:
        """Augment by `genome` from the next epoch on."""
        self.agent.set_genome(genome)

    def step(self) -> dict[str, float]:
        """Train one epoch.

        Returns:
            `loss` and its named parts (means over the epoch), `train_accuracy` in 0…1 (on augmented images),
            `learning_rate` (of the last update), `images_per_s`, and the seconds spent, as `seconds/train` and of
            these `seconds/augment`.

        Raises:
            WorkError: the loss is no longer finite.
        """
        start = time.perf_counter()
        epoch = Epoch(self)
        with private_randomness(self.seed, epoch.number, self.device):
            for images, batch in epoch:
                with self.autocast():
                    parts = self.losses(images, batch)
                self.zero_grad()
                objective(parts).backward()
                epoch.update(parts, batch)
        return epoch.end(start)

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the epoch's augmentation."""
        self._augment = Transform(self.agent.genome.policy, fill=self.fill, seed=(self.seed, epoch, 1))
        self.augment_seconds = 0.0

    def end_epoch(self) -> dict[str, float]:
        """What else there is to report of the epoch."""
        return {}

    def view(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """What this role sees of uint8 images: its agent's augmentation, then the data set's own."""
        start = time.perf_counter()
        if self._shown is not None:
            raw = self._shown(raw, self.fill, generator).images
        images = self._base(self._augment(raw), self.fill, generator)
        self.augment_seconds += time.perf_counter() - start
        return images

    @torch.no_grad()
    def evaluate(self, images: Images, batch_size: int = 512) -> dict[str, float]:
        """`accuracy` in 0…1 and `loss` (cross-entropy, nats) on `images`, in evaluation mode, without augmentation."""
        self.model.eval()
        right = torch.zeros((), device=self.device)
        loss = torch.zeros((), device=self.device)
        for batch, labels in images.batches(batch_size):
            labels = labels.to(self.device)
            with self.autocast():
                logits = self.model(self.normalize(batch)).float()
            right += (logits.argmax(1) == labels).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
        return {"accuracy": float(right) / len(images), "loss": float(loss) / len(images)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on: tensors, numbers and names only."""
        return {
            "version": _STATE_VERSION,
            "role": self.role,
            "seed": self.seed,
            "history": self.agent.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, which may be another member's.

        Raises:
            RequestError: the state is another role's or another version's.
        """
        if (state.get("version"), state.get("role")) != (_STATE_VERSION, self.role):
            got = f"version {state.get('version')}, role {state.get('role')}"
            raise RequestError(f"this is a version {_STATE_VERSION} {self.role}'s checkpoint", value=got)
        self.seed = state["seed"]
        self.model.load_state_dict(state["model"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.agent.load_state_dict(state["history"])

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The network's, and of whatever else learns in a step."""
        return [self.optimizer]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers():
            optimizer.zero_grad(set_to_none=True)

    def optimizer_step(self, rate: float) -> None:
        """One step of the optimizers along the gradients that are there."""
        for optimizer in self.optimizers():
            for group in optimizer.param_groups:
                group["lr"] = rate
            if self.recipe.clip is not None:
                learning = (parameter for group in optimizer.param_groups for parameter in group["params"])
                nn.utils.clip_grad_norm_(learning, self.recipe.clip)
            optimizer.step()

    def autocast(self) -> AbstractContextManager[Any]:
        """The recipe's precision, for a forward pass."""
        if self.recipe.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


class Teacher(Learner):
    """The teacher in training: cross-entropy with the labels."""

    role = "teacher"

    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss`: cross-entropy, with the recipe's label smoothing."""
        return self.compute_losses(self.look(images, batch), self.model(images))

    def compute_losses(self, look: Views, logits: Tensor) -> dict[str, Tensor]:
        """As `losses`."""
        loss = F.cross_entropy(logits.float(), look.batch.labels, label_smoothing=self.recipe.label_smoothing)
        return {"loss": loss, "logits": logits}
