"""A data set as a sweep sees it: its three parts, and what there is to know about its images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from spaces.core.errors import RequestError
from trainables.data.images import Images
from trainables.data.joined import join


@dataclass(frozen=True)
class DataSet:
    """Labeled images in three disjoint parts.

    Args:
        name: as the sweep names it.
        classes: K, at least 2; labels lie in 0 … K − 1.
        channels: C, 1 (gray) or 3 (RGB).
        size: side of the square images, px.
        mean: (C,) of pixels in 0 … 1; images are normalized by it, and its color fills what has no pixels.
        std: (C,) above 0.
        crop: padding of the random crop of the base augmentation, px; 0 for none.
        flip: whether the base augmentation flips, so whether a mirrored image still shows its class.
        train: searched on.
        validation: scored on while searching.
        test: scored on at the very end.

    Raises:
        RequestError: one of these does not hold, or a part is empty.
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

    def __post_init__(self) -> None:
        """Check the numbers and the labels; no image is looked at."""
        least = {"classes": 2, "size": 1, "crop": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise RequestError(f"{name} of data set {self.name!r} is at least {bound}", value=getattr(self, name))
        if self.channels not in (1, 3):
            raise RequestError(f"data set {self.name!r} has 1 or 3 channels", value=self.channels)
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            rule = f"mean and std of data set {self.name!r} have {self.channels} numbers, std above 0"
            raise RequestError(rule, value=(self.mean, self.std))
        for part in ("train", "validation", "test"):
            self._check_labels(part)

    def _check_labels(self, part: str) -> None:
        labels = getattr(self, part).labels
        if not len(labels):
            raise RequestError(f"the {part} part of data set {self.name!r} has at least 1 image", value=0)
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= self.classes:
            rule = f"{part} labels of data set {self.name!r} lie in 0 … {self.classes - 1}"
            raise RequestError(rule, value=f"{lowest} … {highest}")

    @property
    def full(self) -> Images:
        """`train` and `validation` together, for the full training; made at each call, so keep it."""
        return join(self.train, self.validation)

    def to(self, device: torch.device | str) -> DataSet:
        """The same set, whose batches come on `device`; what does not stream moves there as a whole."""
        parts = {part: getattr(self, part).to(device) for part in ("train", "validation", "test")}
        return replace(self, **parts)
