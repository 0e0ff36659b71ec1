"""What a source of images is, and what reading it gives, before anything is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables.data.images import Images


@dataclass(frozen=True)
class Reading:
    """Where and how to read.

    Args:
        root: the folder that data sets lie in.
        download: fetch what is missing.
        size: side of the images, px, where the set leaves it open.
        workers: processes that decode, where the set streams.
    """

    root: Path
    download: bool = False
    size: int | None = None
    workers: int = 0


@dataclass(frozen=True)
class Pool:
    """What a source holds.

    Args:
        train: what training and validation are chosen from.
        test: never chosen from.
        classes: how many.
        size: side of the images, px.
        validation: where the source has a part for it, which then is what is held out.
    """

    train: Images
    test: Images
    classes: int
    size: int
    validation: Images | None = None


@dataclass(frozen=True)
class DataSource:
    """A data set that a sweep can name.

    Args:
        name: as the sweep names it.
        about: one line for a table.
        home: where it comes from.
        classes: how many; None: as found.
        channels: 1 (gray) or 3 (RGB).
        size: side of the images, px; None: as asked for.
        images: how many there are to train and validate on, and to test on; None: as found.
        mean: per channel, of pixels in 0 … 1.
        std: likewise.
        crop: padding of the random crop, px; None: an eighth of the size.
        flip: whether a mirrored image still shows its class.
        read: reads it.
    """

    name: str
    about: str
    home: str
    classes: int | None
    channels: int
    size: int | None
    images: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int | None
    flip: bool
    read: Callable[[Reading], Pool]
