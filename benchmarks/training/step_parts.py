"""Time of each part of a training step, measured by timers around the learner's own methods.

The methods run unchanged and in their order, so the training is the same as without timers. The time of a nested call
counts for its own part: the forward passes do not count as loss. On a GPU every timer waits for the device first, so
the parts add up to more than a step without timers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from trainables.distillation.student import Student

PARTS = ("data", "augmentation", "teacher", "student", "loss", "backward", "optimizer", "bookkeeping")


class PartTimer:
    """Timer of the exclusive seconds of each part.

    Args:
        device: Device to synchronize with.
    """

    def __init__(self, device: torch.device) -> None:
        """Start at zero."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._cuda, self._part, self._since = device.type == "cuda", PARTS[-1], 0.0

    def switch(self, part: str) -> str:
        """Count the time from now on for `part`, and return the previous part."""
        if self._cuda:
            torch.cuda.synchronize()
        now, before = time.perf_counter(), self._part
        self.seconds[before] += now - self._since
        self._part, self._since = part, now
        return before

    def wrap(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` with its time counted for `part`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            before = self.switch(part)
            try:
                return call(*args, **kwargs)
            finally:
                self.switch(before)

        return timed

    def train_epoch(self, learner: Student) -> None:
        """Train one epoch of a learner that `attach_timer` prepared."""
        self._part, self._since = PARTS[-1], time.perf_counter()
        with patch.object(Tensor, "backward", self.wrap("backward", Tensor.backward)):
            learner.step()
        self.switch(PARTS[-1])


class _TimedImages:
    """Images that count the time of reading batches as `data`."""

    def __init__(self, images: Any, timer: PartTimer) -> None:
        self._images, self._timer = images, timer

    def __len__(self) -> int:
        return len(self._images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._images, name)

    def batches(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        batches = iter(self._timer.wrap("data", self._images.batches)(*args, **kwargs))
        read = self._timer.wrap("data", lambda: next(batches, None))
        return iter(read, None)


def attach_timer(learner: Student) -> PartTimer:
    """Time the parts of `learner` from now on. The learner cannot be used for anything else afterwards."""
    timer = PartTimer(learner.device)
    learner.data = replace(learner.data, train=_TimedImages(learner.data.train, timer))
    parts: list[tuple[Any, str, str]] = [
        (learner, "view", "augmentation"),
        (learner, "normalize", "augmentation"),
        (learner.teacher, "forward", "teacher"),
        (learner.model, "forward", "student"),
        (learner, "losses", "loss"),
        *((optimizer, name, "optimizer") for optimizer in learner.optimizers() for name in ("zero_grad", "step")),
    ]
    for owner, name, part in parts:
        setattr(owner, name, timer.wrap(part, getattr(owner, name)))
    return timer


def time_parts(learner: Student, epochs: int) -> dict[str, float]:
    """Return the seconds per step of each part, over `epochs` epochs after two of warm-up."""
    timer = attach_timer(learner)
    for _ in range(2):
        timer.train_epoch(learner)
    timer.seconds = dict.fromkeys(PARTS, 0.0)
    for _ in range(epochs):
        timer.train_epoch(learner)
    steps = epochs * max(1, len(learner.data.train) // learner.recipe.batch_size)
    return {part: seconds / steps for part, seconds in timer.seconds.items()}
