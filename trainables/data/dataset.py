"""A data set in three parts, with what training and augmentation need to know about its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from spaces.core.errors import RequestError
from trainables.data.images import Images
from trainables.data.joined import join


@dataclass(frozen=True)
class DataSet:
    """Labeled images in three disjoint parts.

    Args:
        name: Name in the sweep file.
        classes: Number K of classes, >= 2; labels are in 0 … K − 1.
        channels: Number of channels, 1 (gray) or 3 (RGB).
        size: Side of the square images, px.
        mean: Mean of each channel, for pixels in [0, 1]; images are normalized by it, and augmentations fill with it.
        std: Standard deviation of each channel, > 0.
        crop: Padding of the base augmentation's random crop, px; 0 for no crop.
        flip: Flip images in the base augmentation; False if a mirrored image may not show its class.
        train: Images to train on.
        validation: Images to validate on during a search.
        test: Images for the final test.
        in_domain: Test images from where the training images are, if `test` is from another domain; None otherwise.
        target_validation: True if `validation` is from another domain than `train`; it is then never trained on.

    Raises:
        RequestError: A value is out of its range, or a part is empty.

    Example:
        >>> from trainables.data import TensorImages
        >>> images = TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        >>> data = DataSet("blank", 2, 1, 8, (0.5,), (0.25,), crop=1, flip=False,
        ...                train=images, validation=images, test=images)
        >>> len(data.full)
        8
    """

    name: str
    classes: int
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    flip: bool
    train: Images
    validation: Images
    test: Images
    in_domain: Images | None = None
    target_validation: bool = False

    def __post_init__(self) -> None:
        """Check the numbers and the labels, but no pixels."""
        least = {"classes": 2, "size": 1, "crop": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise RequestError(f"{name} of data set {self.name!r} must be >= {bound}", value=getattr(self, name))
        if self.channels not in (1, 3):
            raise RequestError(f"channels of data set {self.name!r} must be 1 or 3", value=self.channels)
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            rule = f"mean and std of data set {self.name!r} must have length {self.channels}, with std > 0"
            raise RequestError(rule, value=(self.mean, self.std))
        for part, images in self._parts().items():
            self._check_labels(part, images)

    def _parts(self) -> dict[str, Images]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts if self.in_domain is None else parts | {"in_domain": self.in_domain}

    def _check_labels(self, part: str, images: Images) -> None:
        labels = images.labels
        if not len(labels):
            raise RequestError(f"the {part} part of data set {self.name!r} must have at least 1 image", value=0)
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= self.classes:
            rule = f"{part} labels of data set {self.name!r} must be in 0 … {self.classes - 1}"
            raise RequestError(rule, value=f"{lowest} … {highest}")

    @property
    def full(self) -> Images:
        """`train` and `validation` joined, for the final training; built at each access, so keep it.

        `train` alone where `validation` is of a target domain.
        """
        return self.train if self.target_validation else join(self.train, self.validation)

    def to(self, device: torch.device | str) -> DataSet:
        """Return the data set with batches on `device`; parts in memory are moved there as a whole."""
        parts: dict[str, Any] = {part: images.to(device) for part, images in self._parts().items()}
        return replace(self, **parts)
