"""One network in training, epoch by epoch: what the teacher and the student have in common."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces import BaseAugmentation, Genome, RequestError, Transform, WorkError
from spaces.agent import Agent
from spaces.augmentations import Augmentation
from spaces.parameters import seeded
from trainables.data import DataSet, Images
from trainables.data.images import batch_rows
from trainables.layout import on_device
from trainables.normalise import Normalise
from trainables.recipe import Recipe, restore_optimizer

_STATE_VERSION = 1


@dataclass(frozen=True)
class Batch:
    """Some of the training images, as they are.

    Args:
        raw: before any augmentation, (B, C, H, W) uint8.
        labels: (B,) int64, on the network's device.
        rows: (B,) int64, on the CPU: which images of the training set these are.
    """

    raw: Tensor
    labels: Tensor
    rows: Tensor


class Learner(ABC):
    """A role's network, its optimiser and its agent; one `step` is one epoch.

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
        shown: an augmentation of the catalogue that comes before the agent's; None: none does.
    """

    role: str

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
        """Move the network to its device and make the optimiser."""
        self.device = torch.device(device)
        shape = (data.channels, data.size, data.size)
        self.model, channels_last = on_device(model, self.device, recipe.channels_last, shape)
        self.data, self.recipe, self.agent = data, recipe, agent
        self.epochs, self.seed = epochs, seed
        self.optimizer = recipe.make_optimizer(self.model)
        self._base = BaseAugmentation(data.crop, data.flip)
        self.normalise = Normalise(data, self.device, channels_last=channels_last)
        self.fill = self.normalise.fill
        self._shown = shown

    @abstractmethod
    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The named parts of the loss.

        `loss` is the one that is minimised, `logits` the network's answer; `own`, where there is one, is minimised
        beside it by what is not the network's.

        Args:
            images: what this role sees of the batch: augmented and normalised, (B, C, H, W) float.
            batch: the same images as they are.
        """

    @property
    def epoch(self) -> int:
        """How many epochs were trained so far."""
        return self.agent.epoch

    def obey(self, genome: Genome) -> None:
        """Augment by `genome` from the next epoch on."""
        self.agent.obey(genome)

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
        epoch, size, total = self.epoch, self.recipe.batch_size, len(self.data.train)
        generator = seeded(self.seed, epoch)
        self.begin_epoch(epoch)
        self.model.train()
        steps = max(1, total // size)
        sums: dict[str, Tensor] = {}
        seen = 0
        with _private_randomness(self.seed, epoch, self.device):
            rows = batch_rows(total, size, generator=seeded(self.seed, epoch), drop_last=total >= size)
            batches = self.data.train.batches(size, generator=generator, drop_last=total >= size)
            for index, (raw, labels) in enumerate(batches):
                rate = self.recipe.lr_at(epoch + (index + 0.5) / steps, self.epochs)
                images = self.normalise(self.view(raw, generator))
                batch = Batch(raw, labels.to(self.device), rows[index])
                for name, value in self._update(images, batch, rate).items():
                    sums[name] = sums.get(name, 0) + value * len(labels)
                seen += len(labels)
        metrics = {name: float(value) / seen for name, value in sums.items()}  # the epoch's only synchronisation
        if not all(map(math.isfinite, metrics.values())):
            bad = ", ".join(f"{name} = {value:g}" for name, value in metrics.items())
            raise WorkError(f"the loss is not finite in epoch {epoch} ({bad}); a smaller lr, or clip, may help")
        metrics |= self.end_epoch()
        self.agent.advance()
        seconds = time.perf_counter() - start
        return metrics | {
            "learning_rate": rate,
            "images_per_s": seen / seconds,
            "seconds/train": seconds,
            "seconds/augment": self._augment_seconds,
        }

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the epoch's augmentation."""
        self._augment = Transform(self.agent.genome.policy, fill=self.fill, seed=(self.seed, epoch, 1))
        self._augment_seconds = 0.0

    def end_epoch(self) -> dict[str, float]:
        """What else there is to report of the epoch."""
        return {}

    def view(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """What this role sees of uint8 images: its agent's augmentation, then the data set's own."""
        start = time.perf_counter()
        if self._shown is not None:
            raw = self._shown(raw, self.fill, generator).images
        images = self._base(self._augment(raw), self.fill, generator)
        self._augment_seconds += time.perf_counter() - start
        return images

    @torch.no_grad()
    def evaluate(self, images: Images, batch_size: int = 512) -> dict[str, float]:
        """`accuracy` in 0…1 and `loss` (cross-entropy, nats) on `images`, in evaluation mode, without augmentation."""
        self.model.eval()
        right = torch.zeros((), device=self.device)
        loss = torch.zeros((), device=self.device)
        for batch, labels in images.batches(batch_size):
            labels = labels.to(self.device)
            with self._autocast():
                logits = self.model(self.normalise(batch)).float()
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
            raise RequestError(f"this is a version {_STATE_VERSION} {self.role}'s checkpoint", got=got)
        self.seed = state["seed"]
        self.model.load_state_dict(state["model"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.agent.load_state_dict(state["history"])

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The network's, and of whatever else learns in a step."""
        return [self.optimizer]

    def _update(self, images: Tensor, batch: Batch, rate: float) -> dict[str, Tensor]:
        with self._autocast():
            parts = self.losses(images, batch)
        own = parts.pop("own", None)
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        (parts["loss"] if own is None else parts["loss"] + own).backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            if self.recipe.clip is not None:
                learning = (parameter for group in optimizer.param_groups for parameter in group["params"])
                nn.utils.clip_grad_norm_(learning, self.recipe.clip)
            optimizer.step()
        hits = (parts.pop("logits").argmax(1) == batch.labels).float().mean()
        return {name: value.detach() for name, value in parts.items()} | {"train_accuracy": hits}

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.recipe.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


class Teacher(Learner):
    """The teacher in training: cross-entropy with the labels."""

    role = "teacher"

    def losses(self, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss`: cross-entropy, with the recipe's label smoothing."""
        logits = self.model(images)
        loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.recipe.label_smoothing)
        return {"loss": loss, "logits": logits}


@contextmanager
def _private_randomness(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Dropout and its like draw from the epoch's own stream; the caller's streams are put back, or never touched."""
    stream = seeded(seed, epoch, 2).initial_seed()
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        devices = [torch.cuda.current_device()] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(stream)  # `torch.manual_seed` would seed all other GPUs as well
            if devices:
                torch.cuda.manual_seed(stream)
            yield
