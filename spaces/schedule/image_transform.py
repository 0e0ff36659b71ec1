"""A schedule on single images: for torchvision's `Compose`, and for the worker processes of a `DataLoader`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from spaces.core.errors import RequestError
from spaces.engine import apply
from spaces.operations.images import check_images, check_range
from spaces.policy.policy import Policy
from spaces.policy.sampling import Draws, sample, seeded
from spaces.schedule.schedule import Schedule


class ImageTransform:
    """One role's schedule as a callable on single images: PIL or tensor in, the same kind out.

    The epoch lies in shared memory, so that `set_epoch` reaches the workers of a `DataLoader` too, persistent ones
    included. (A worker that prefetches is a few images ahead.)

    The random numbers follow from `seed` and the epoch; in a worker also from the seed that its `DataLoader` gave it,
    so that no two workers draw the same and a `DataLoader` with a seeded generator repeats itself.

    Args:
        schedule: says what is in force at which epoch, and which color uncovered pixels take.
        epoch: where to start.
        seed: a whole number.

    Raises:
        RequestError: the schedule ends before `epoch`.
    """

    def __init__(self, schedule: Schedule, epoch: int = 0, *, seed: int = 0) -> None:
        """Start at `epoch`."""
        self.schedule = schedule
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._known: tuple[tuple[int, ...], Draws] | None = None
        self.set_epoch(epoch)
        self._warm()

    def set_epoch(self, epoch: int) -> None:
        """Augment as the schedule says for `epoch`, in this process and in the workers.

        Raises:
            RequestError: the schedule ends before `epoch`.
        """
        self.schedule.at(epoch)
        self._epoch.fill_(epoch)

    def __call__(self, image: Any) -> Any:
        """Augment one image.

        Args:
            image: a PIL image (mode L or RGB), or a tensor (C, H, W), uint8 or floating point in [0, 1].

        Raises:
            RequestError: it is neither, or has other channels than the schedule's images.
        """
        if isinstance(image, Tensor):
            if image.ndim != 3:
                hint = "batches (B, C, H, W) are for schedule.transform(epoch)"
                raise RequestError("an image is a tensor of shape (C, H, W)", value=tuple(image.shape), hint=hint)
            self._check_channels(image.shape[0])
            return self._augment(image).as_subclass(type(image))
        from PIL import Image

        if not isinstance(image, Image.Image):
            raise RequestError("an image is a PIL image or a tensor (C, H, W)", value=type(image).__name__)
        if image.mode not in ("L", "RGB"):
            hint = 'convert it first: image.convert("RGB")'
            raise RequestError("a PIL image is of mode L (gray) or RGB", value=image.mode, hint=hint)
        if not image.width or not image.height:
            raise RequestError("an image has one pixel or more", value=image.size)
        pixels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1).permute(2, 0, 1)
        self._check_channels(pixels.shape[0])
        changed = self._augment(pixels).permute(1, 2, 0).numpy()
        return Image.fromarray(changed[:, :, 0] if image.mode == "L" else changed)

    def __repr__(self) -> str:
        """The epoch and what is in force, for `print`."""
        return f"ImageTransform(epoch {int(self._epoch)} of {self.schedule.epochs}, {self.schedule.role})"

    def _augment(self, image: Tensor) -> Tensor:
        batch = image.unsqueeze(0)
        check_images(batch)
        draws = self._current()
        if draws.policy.is_identity:
            check_range(batch)
            return image.clone()
        return apply(batch, draws.take(1), self.schedule.image.fill).squeeze(0)

    def _current(self) -> Draws:
        """The draws of the epoch in force, in this process."""
        worker = get_worker_info()
        seeds = (self.seed, int(self._epoch), *((worker.seed,) if worker else ()))
        if self._known is None or self._known[0] != seeds:
            self._known = (seeds, Draws(self.schedule.at(seeds[1]).policy, seeded(*seeds)))
        return self._known[1]

    def _warm(self) -> None:
        """Load the kernel here, so that the workers that are forked from this process find it."""
        blank = torch.zeros(1, self.schedule.image.channels, 1, 1, dtype=torch.uint8)
        apply(blank, sample(Policy(), 1, seeded(0)), self.schedule.image.fill)

    def _check_channels(self, channels: int) -> None:
        expected = self.schedule.image.channels
        if channels != expected:
            raise RequestError(f"this schedule's images have {expected} channels", value=channels)
