"""One epoch of a learner: its batches, what there is to see of each, and what is noted of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaces import WorkError
from spaces.core.seeding import seeded_generator
from trainables.data.images import batch_rows

if TYPE_CHECKING:
    from trainables.training.learner import Learner


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


@dataclass(frozen=True)
class Views:
    """What there is to see of a batch before the network answers. Letters: B images, K classes of the teacher's.

    Args:
        images: the first view, augmented and normalized, (B, C, H, W) float.
        batch: the same images as they are.
        answers: the teacher's logits, (B, K); None: nobody was asked.
        view: the second view, as `images`, and the teacher's logits on it; None: there is none.
    """

    images: Tensor
    batch: Batch
    answers: Tensor | None = None
    view: tuple[Tensor, Tensor] | None = None

    @property
    def shown(self) -> Tensor:
        """What the network is given: one view or, one after the other, two."""
        return self.images if self.view is None else torch.cat((self.images, self.view[0]))


class Epoch:
    """A learner's next epoch: iterating gives what it sees of each batch, and the batch.

    Args:
        learner: it is told that the epoch begins, and its network is put into training mode.
    """

    def __init__(self, learner: Learner) -> None:
        """Begin."""
        self.number = learner.epoch
        self._learner = learner
        self._sums: dict[str, Tensor] = {}
        self._seen = 0
        learner.begin_epoch(self.number)
        learner.model.train()

    def __iter__(self) -> Iterator[tuple[Tensor, Batch]]:
        """The batches, augmented as they are drawn."""
        learner, data = self._learner, self._learner.data
        size, total = learner.recipe.batch_size, len(data.train)
        steps = max(1, total // size)
        generator = seeded_generator(learner.seed, self.number)
        rows = batch_rows(total, size, generator=seeded_generator(learner.seed, self.number), drop_last=total >= size)
        batches = data.train.batches(size, generator=generator, drop_last=total >= size)
        for index, (raw, labels) in enumerate(batches):
            self._rate = learner.recipe.lr_at(self.number + (index + 0.5) / steps, learner.epochs)
            images = learner.normalize(learner.view(raw, generator))
            yield images, Batch(raw, labels.to(learner.device), rows[index])

    def update(self, parts: dict[str, Tensor], batch: Batch) -> None:
        """Let the optimizers take their step along the batch's gradients, and note its losses."""
        self._learner.optimizer_step(self._rate)
        hits = (parts["logits"].argmax(1) == batch.labels).float().mean()
        noted = {name: value.detach() for name, value in parts.items() if name not in ("logits", "own")}
        for name, value in (noted | {"train_accuracy": hits}).items():
            self._sums[name] = self._sums.get(name, 0) + value * len(batch.labels)
        self._seen += len(batch.labels)

    def end(self, start: float, share: int = 1) -> dict[str, float]:
        """End the epoch: what `Learner.step` returns.

        Args:
            start: when it began, by `time.perf_counter`.
            share: how many trained together; each has spent its share of the time.

        Raises:
            WorkError: the loss is no longer finite.
        """
        learner = self._learner
        metrics = {name: float(value) / self._seen for name, value in self._sums.items()}  # the only synchronization
        if not all(map(math.isfinite, metrics.values())):
            bad = ", ".join(f"{name} = {value:g}" for name, value in metrics.items())
            raise WorkError(f"the loss is not finite in epoch {self.number} ({bad}); a smaller lr, or clip, may help")
        metrics |= learner.end_epoch()
        learner.agent.advance()
        seconds = (time.perf_counter() - start) / share
        return metrics | {
            "learning_rate": self._rate,
            "images_per_s": self._seen / seconds,
            "seconds/train": seconds,
            "seconds/augment": learner.augment_seconds,
        }


def objective(parts: dict[str, Tensor]) -> Tensor:
    """What the parts of a loss ask to minimize."""
    return parts["loss"] + parts["own"] if "own" in parts else parts["loss"]


@contextmanager
def private_randomness(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Dropout and its like draw from the epoch's own stream; the caller's streams are put back, or never touched."""
    stream = seeded_generator(seed, epoch, 2).initial_seed()
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        devices = [torch.cuda.current_device()] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(stream)  # `torch.manual_seed` would seed all other GPUs as well
            if devices:
                torch.cuda.manual_seed(stream)
            yield
