"""The description of a data source, the options for reading it, and the images that reading returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables.data.images import Images


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a data source.

    Args:
        root: Folder of the data sets.
        download: Download missing files.
        size: Side of the images, px, for sources without a fixed size.
        workers: Decoding processes of images on disk.
    """

    root: Path
    download: bool = False
    size: int | None = None
    workers: int = 0


@dataclass(frozen=True)
class Pool:
    """The images of a data source before validation images are held out.

    Args:
        train: Images from which training and validation images are chosen.
        test: Test images.
        classes: Number of classes.
        size: Side of the images, px.
        validation: The source's own validation images, which are then held out; None if it has none.
    """

    train: Images
    test: Images
    classes: int
    size: int
    validation: Images | None = None


@dataclass(frozen=True)
class DataSource:
    """A data set that a sweep file can name.

    Args:
        name: Name in the sweep file.
        about: One-line description.
        home: URL of its home page.
        classes: Number of classes; None to count the folders.
        channels: Number of channels, 1 (gray) or 3 (RGB).
        size: Side of the images, px; None for `ReadOptions.size`.
        images: Numbers of images to train and validate on, and to test on; None if unknown.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel.
        crop: Padding of the random crop, px; None for an eighth of the size.
        flip: True if a mirrored image still shows its class.
        read: Function that reads the images.
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
    read: Callable[[ReadOptions], Pool]
