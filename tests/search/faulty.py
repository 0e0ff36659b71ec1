"""Models that misbehave, as a user's own would: imported by workers through their dotted names."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import torch
from torch import nn

MARKS = "ROLETUNE_TEST_MARKS"
"""Environment variable: a folder in which faults are counted across processes."""


class OncePerFolder(nn.Module):
    """A linear model that, the first `times` times that anyone trains a ninth batch, does `fault`."""

    def __init__(self, classes, channels, size, fault, times=1):
        super().__init__()
        self.linear = nn.Linear(channels * size * size, classes)
        self.norm = nn.BatchNorm1d(classes)
        self.fault, self.times = fault, times
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        logits = self.norm(self.linear(x.flatten(1)))
        if self.training:
            self.batches += 1
            if int(self.batches) == 9 and self._claim():
                return self.fault(logits)
        return logits

    def _claim(self):
        for number in range(self.times):
            try:
                (Path(os.environ[MARKS]) / f"fault-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False


def _raise(logits):
    raise RuntimeError("a cable was pulled")


def raises_once(classes, channels, size):
    return OncePerFolder(classes, channels, size, _raise)


def raises_for_two(classes, channels, size):
    return OncePerFolder(classes, channels, size, _raise, times=2)


def dies_once(classes, channels, size):
    return OncePerFolder(classes, channels, size, lambda logits: os._exit(1))


def whose_process(classes, channels, size):
    """Leaves a mark with the worker's process id whenever it is built in a worker."""
    if folder := os.environ.get(MARKS):
        (Path(folder) / f"pid-{os.getpid()}").touch()
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))


def refuses(classes, channels, size):
    raise ValueError("no such layer")


def wrong_shape(classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes + 1))


class OneMember(OncePerFolder):
    """Like it, but the first member that trains a ninth batch does `fault`, each time that it does, and no other."""

    def __init__(self, classes, channels, size, fault, times=1):
        super().__init__(classes, channels, size, fault, times)
        self.register_buffer("who", torch.randint(2**62, ()))  # drawn from the member's seed, so it outlives a worker

    def _claim(self):
        mark = Path(os.environ[MARKS]) / "culprit"
        try:
            with mark.open("x") as file:
                file.write(str(int(self.who)))
        except FileExistsError:
            if mark.read_text() != str(int(self.who)):
                return False
        return super()._claim()


def _hang(logits):
    threading.Event().wait()


def raises_twice(classes, channels, size):
    return OneMember(classes, channels, size, _raise, times=2)


def _fill_up(logits):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fills_up_twice(classes, channels, size):
    return OneMember(classes, channels, size, _fill_up, times=2)


def diverges(classes, channels, size):
    return OneMember(classes, channels, size, lambda logits: logits * torch.nan, times=99)


def hangs_once(classes, channels, size):
    return OncePerFolder(classes, channels, size, _hang)
