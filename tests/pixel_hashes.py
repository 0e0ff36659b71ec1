"""SHA-256 of augmented pixels, by the public API of `spaces` alone, so that any version of it can record them."""

import hashlib

import numpy as np
import torch

from spaces import OPERATIONS, Parameters
from spaces.engine import apply

LEVELS = 10
SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 24))
"""(C, H, W)."""


def seed_images(batch, channels, height, width):
    """Noise, ramps and a flat image, uint8 (B, C, H, W); numpy's `RandomState` never changes its stream."""
    images = np.random.RandomState(7).randint(0, 256, (batch, channels, height, width)).astype(np.uint8)
    images[1::4] = np.linspace(20, 230, height * width).reshape(height, width).astype(np.uint8)
    images[2::4] //= 3
    images[3::4, :, : height // 2] = 200
    return torch.from_numpy(images)


def digest(*tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def operation_hashes():
    """One hash for each operation and level: of the engine's output at all shapes, signs and four positions."""
    table = {}
    for index, name in enumerate(OPERATIONS):
        for level in range(LEVELS):
            results = []
            for shape in SHAPES:
                images = seed_images(8, *shape)
                parameters = Parameters(
                    operations=torch.full((8, 1), index),
                    levels=torch.full((8, 1), level),
                    signs=torch.tensor([-1, 1] * 4).view(8, 1),
                    positions=torch.tensor([[0.0, 0.999], [0.5, 0.5], [0.3, 0.1], [0.75, 0.25]] * 2).view(8, 1, 2),
                )
                results.append(apply(images, parameters, (78, 120, 201)[: shape[0]]))
            table[f"{name} {level}"] = digest(*results)
    return table


def epochs_of(schedule):
    """The first and the last epoch of each phase."""
    ends = np.cumsum([phase.epochs for phase in schedule.phases]).tolist()
    return sorted({0, *ends[:-1], *(end - 1 for end in ends)})


def answers(images):
    """Logits (B, 10) of a fixed network in exact arithmetic: sums of pixels, as float64."""
    columns = images.long().sum(dim=(1, 2))
    rows = images.long().sum(dim=(1, 3))
    return torch.cat((columns[:, :5], rows[:, :5]), dim=1).double() / 512


def policy_hashes(schedule):
    """By epoch: the hash of a batch under the transform, and of the second view where there is one."""
    image = schedule.image
    images = seed_images(16, image.channels, image.size, image.size)
    table = {}
    for epoch in epochs_of(schedule):
        table[f"{epoch} transform"] = digest(schedule.transform(epoch, seed=3)(images))
        view = schedule.second_view(epoch, seed=3)
        if view is not None and not view.augment.kind.startswith("hard_"):
            made = view(images, answers if view.augment.scored_by else None)
            table[f"{epoch} second view"] = digest(made.images, made.first, made.second, made.weight)
    return table


def policy_pixels(schedule):
    """By epoch: the pixels of a learned second view, which floating-point arithmetic makes, as lists."""
    image = schedule.image
    images = seed_images(4, image.channels, image.size, image.size)
    views = {epoch: schedule.second_view(epoch, seed=3) for epoch in epochs_of(schedule)}
    return {
        f"{epoch} second view": view(images).images.tolist()
        for epoch, view in views.items()
        if view is not None and view.augment.kind.startswith("hard_")
    }
