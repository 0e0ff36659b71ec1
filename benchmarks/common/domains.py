"""Data sets of the studies, and shifts that make a target domain of their validation and test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from trainables.data import DataSet, Images, TensorImages, load
from trainables.data.mnist5k import shifted

LARGEST_ANGLE = 30.0
"""Largest rotation of the domain `rotation`, degrees."""

DARKNESS, HAZE = 0.4, 20.0
"""Factor and offset of the pixels of the domain `dark`: values 0 to 255 become 20 to 122."""


def translation(images: Tensor, generator: torch.Generator) -> Tensor:
    """Translate each image (B, C, H, W) by up to a seventh of its side in both directions: 4 px of 28."""
    return shifted(images, images.shape[-1] // 7, generator)


def rotation(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each image by up to 30 degrees in either direction."""
    angles = (2 * torch.rand(len(images), generator=generator) - 1) * LARGEST_ANGLE
    turned = [
        rotate(image, angle, InterpolationMode.BILINEAR) for image, angle in zip(images, angles.tolist(), strict=True)
    ]
    return torch.stack(turned)


def dark(images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001  # as the other domains have it
    """Darken each image and lower its contrast: 0.4 · value + 20."""
    return (DARKNESS * images.float() + HAZE).round().to(torch.uint8)


DOMAINS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "shift": translation,
    "rotation": rotation,
    "dark": dark,
}
"""Target domains, fixed before any of them was searched."""


def in_domain(
    name: str, root: str, *, train: int, validation: int, test: int, seed: int, size: int | None = None
) -> DataSet:
    """Load a data set with `test` of its test images; `size` is the side of images in a folder, px."""
    data = load(name, root=root, train=train, validation=validation, seed=seed, size=size)
    rows = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:test]
    return replace(data, test=data.test.subset(rows.sort().values))


def halved(data: DataSet) -> DataSet:
    """Return a data set in memory with images of half the size, each pixel the mean of 2 × 2."""

    def half(part: Images) -> TensorImages:
        assert isinstance(part, TensorImages)
        return TensorImages(avg_pool2d(part.images.float(), 2).round().to(torch.uint8), part.labels)

    parts = {"train": half(data.train), "validation": half(data.validation), "test": half(data.test)}
    return replace(data, size=data.size // 2, **parts)


def target_domain(data: DataSet, domain: str, seed: int) -> DataSet:
    """Return the data set with its validation and test images moved to a target domain.

    Args:
        data: Data set in memory.
        domain: Name in `DOMAINS`.
        seed: Seed of the random shifts.
    """
    generator = torch.Generator().manual_seed(seed)

    def moved(part: Images) -> TensorImages:
        assert isinstance(part, TensorImages)
        return TensorImages(DOMAINS[domain](part.images, generator), part.labels)

    return replace(data, validation=moved(data.validation), test=moved(data.test), in_domain=data.test)
