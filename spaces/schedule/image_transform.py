"""Schedule as a callable on single images, for torchvision's `Compose` and `DataLoader` workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from spaces.core.errors import RequestError
from spaces.core.seeding import seeded_generator
from spaces.engine import apply
from spaces.operations.images import check_images, check_pixel_range
from spaces.policy.policy import Policy
from spaces.policy.sampling import ParameterStream, sample
from spaces.schedule.schedule import Schedule


class ImageTransform:
    """Schedule as a callable on single images, PIL or tensor.

    The epoch is in shared memory, so `set_epoch` reaches the workers of a `DataLoader`, persistent ones included. A
    worker that prefetches is a few images ahead.

    The random numbers depend on `seed` and the epoch, and in a worker also on the seed from its `DataLoader`. So
    workers draw different numbers, and a `DataLoader` with a seeded generator is reproducible.

    Args:
        schedule: Schedule to apply.
        epoch: Initial epoch, counted from 0.
        seed: Seed of the random numbers.

    Raises:
        RequestError: The schedule does not cover `epoch`.

    Example:
        >>> import torch
        >>> from spaces import Entry, Genome, ImageSpec, ImageTransform, Phase, Policy, Schedule
        >>> genome = Genome(Policy((Entry("Rotate", 10, 5),)))
        >>> schedule = Schedule((Phase(10, genome),), "student", ImageSpec(32, 3, (125, 123, 114)))
        >>> transform = ImageTransform(schedule)
        >>> transform.set_epoch(3)
        >>> transform(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, schedule: Schedule, epoch: int = 0, *, seed: int = 0) -> None:
        self.schedule = schedule
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._cached: tuple[tuple[int, ...], ParameterStream] | None = None
        self.set_epoch(epoch)
        self._warm()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch in this process and in all workers.

        Raises:
            RequestError: The schedule does not cover `epoch`.
        """
        self.schedule.at(epoch)
        self._epoch.fill_(epoch)

    def __call__(self, image: Any) -> Any:
        """Augment one image.

        Args:
            image: PIL image of mode L or RGB, or tensor (C, H, W), uint8 or floating point in [0, 1].

        Returns:
            A new image of the same kind.

        Raises:
            RequestError: `image` is neither, or its channels are not those of the schedule.
        """
        if isinstance(image, Tensor):
            if image.ndim != 3:
                hint = "use schedule.transform(epoch) for batches (B, C, H, W)"
                raise RequestError("a tensor must have the shape (C, H, W)", value=tuple(image.shape), hint=hint)
            self._check_channels(image.shape[0])
            return self._augment(image).as_subclass(type(image))
        from PIL import Image

        if not isinstance(image, Image.Image):
            raise RequestError("an image must be a PIL image or a tensor (C, H, W)", value=type(image).__name__)
        if image.mode not in ("L", "RGB"):
            hint = 'convert it first: image.convert("RGB")'
            raise RequestError("a PIL image must have the mode L (gray) or RGB", value=image.mode, hint=hint)
        if not image.width or not image.height:
            raise RequestError("an image must have at least one pixel", value=image.size)
        pixels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1).permute(2, 0, 1)
        self._check_channels(pixels.shape[0])
        changed = self._augment(pixels).permute(1, 2, 0).numpy()
        return Image.fromarray(changed[:, :, 0] if image.mode == "L" else changed)

    def __repr__(self) -> str:
        """Return epoch and role for `repr`."""
        return f"ImageTransform(epoch {int(self._epoch)} of {self.schedule.epochs}, {self.schedule.role})"

    def _augment(self, image: Tensor) -> Tensor:
        batch = image.unsqueeze(0)
        check_images(batch)
        stream = self._current()
        if stream.policy.is_identity:
            check_pixel_range(batch)
            return image.clone()
        return apply(batch, stream.take(1), self.schedule.image.fill).squeeze(0)

    def _current(self) -> ParameterStream:
        """Return the parameter stream of the current epoch in this process."""
        worker = get_worker_info()
        seeds = (self.seed, int(self._epoch), *((worker.seed,) if worker else ()))
        if self._cached is None or self._cached[0] != seeds:
            self._cached = (seeds, ParameterStream(self.schedule.at(seeds[1]).policy, seeded_generator(*seeds)))
        return self._cached[1]

    def _warm(self) -> None:
        """Load the kernels here, so that forked workers inherit them."""
        blank = torch.zeros(1, self.schedule.image.channels, 1, 1, dtype=torch.uint8)
        apply(blank, sample(Policy(), 1, seeded_generator(0)), self.schedule.image.fill)

    def _check_channels(self, channels: int) -> None:
        expected = self.schedule.image.channels
        if channels != expected:
            raise RequestError(f"an image must have {expected} channels for this schedule", value=channels)
