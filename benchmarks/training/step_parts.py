"""One training step taken apart: the seconds of each part, by clocks around the learner's own methods.

The methods are called as they are, in their order, so the epoch trains as it would without. A call within another one
is counted where it belongs and not where it is made: the networks' forward passes are no part of the loss.
On a GPU each clock waits for the device first, so the parts add up to more than a step that lets it run ahead.
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


class Clock:
    """Exclusive seconds of each part.

    Args:
        device: that is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        """Stand at nothing."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._cuda, self._part, self._since = device.type == "cuda", PARTS[-1], 0.0

    def turn(self, part: str) -> str:
        """From here on it is `part`; returns what it was."""
        if self._cuda:
            torch.cuda.synchronize()
        now, before = time.perf_counter(), self._part
        self.seconds[before] += now - self._since
        self._part, self._since = part, now
        return before

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, with its time put down to `part`."""

        def timed(*given: Any, **named: Any) -> Any:
            before = self.turn(part)
            try:
                return call(*given, **named)
            finally:
                self.turn(before)

        return timed

    def epoch(self, learner: Student) -> None:
        """Train one epoch, of a learner that `watch` has prepared."""
        self._part, self._since = PARTS[-1], time.perf_counter()
        with patch.object(Tensor, "backward", self.around("backward", Tensor.backward)):
            learner.step()
        self.turn(PARTS[-1])


class _Timed:
    """Images whose batches are drawn by the clock."""

    def __init__(self, images: Any, clock: Clock) -> None:
        self._images, self._clock = images, clock

    def __len__(self) -> int:
        return len(self._images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._images, name)

    def batches(self, *given: Any, **named: Any) -> Iterator[Any]:
        drawn = iter(self._clock.around("data", self._images.batches)(*given, **named))
        draw = self._clock.around("data", lambda: next(drawn, None))
        return iter(draw, None)


def watch(learner: Student) -> Clock:
    """Put clocks around the parts of `learner`, which is good for nothing else afterwards."""
    clock = Clock(learner.device)
    learner.data = replace(learner.data, train=_Timed(learner.data.train, clock))
    parts: list[tuple[Any, str, str]] = [
        (learner, "view", "augmentation"),
        (learner, "normalize", "augmentation"),
        (learner.teacher, "forward", "teacher"),
        (learner.model, "forward", "student"),
        (learner, "losses", "loss"),
        *((optimizer, name, "optimizer") for optimizer in learner.optimizers() for name in ("zero_grad", "step")),
    ]
    for owner, name, part in parts:
        setattr(owner, name, clock.around(part, getattr(owner, name)))
    return clock


def apart(learner: Student, epochs: int) -> dict[str, float]:
    """Seconds a step of each part, over so many epochs after two that warm up."""
    clock = watch(learner)
    for _ in range(2):
        clock.epoch(learner)
    clock.seconds = dict.fromkeys(PARTS, 0.0)
    for _ in range(epochs):
        clock.epoch(learner)
    steps = epochs * max(1, len(learner.data.train) // learner.recipe.batch_size)
    return {part: seconds / steps for part, seconds in clock.seconds.items()}
