"""Images on disk in one folder per class, decoded when a batch needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spaces.core.errors import RequestError
from trainables.data.images import TensorImages, batch_rows, check_labels
from trainables.data.source import Pool, ReadOptions

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
"""File name endings of images, in any case; other files and hidden ones are ignored."""

DEFAULT_SIZE = 224

DECODED_TOGETHER = 256
"""Images of a batch that is decoded into memory."""


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Images that stay on disk until a batch needs them.

    An image is decoded to RGB, resized so that its shorter side has `size` px (bilinear, antialiased), and
    center-cropped; an image of `size` × `size` px keeps its pixels. Only this runs in the worker processes, so their
    number does not change the batches.

    Args:
        files: Paths of N images.
        labels: Class labels, (N,) int64, on the CPU.
        size: Side of the square images, px.
        workers: Decoding processes; 0 decodes in the current one.
        device: Device of the batches.

    Raises:
        RequestError: There is not one label per file.
    """

    files: tuple[str, ...]
    labels: Tensor
    size: int
    workers: int = 0
    device: torch.device = field(default=torch.device("cpu"))

    def __post_init__(self) -> None:
        """Check that there is one label per file."""
        check_labels(self.labels, len(self.files))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw each image once, see `Images.batches`; C = 3.

        Raises:
            RequestError: A file cannot be decoded; raised by its batch.
        """
        rows = batch_rows(len(self), size, generator=generator, drop_last=drop_last)
        return self._draw(rows)

    def _draw(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            _Decoder(self.files, self.size),
            batch_size=None,
            sampler=[rows.tolist() for rows in batches],
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the default draws the workers' seeds from the global state
        )
        for rows, images in zip(batches, loader, strict=True):
            if isinstance(images, RequestError):
                raise images
            labels = self.labels[rows]
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def subset(self, indices: Tensor) -> FolderImages:
        """Return the images at `indices` (M,) int64, in that order."""
        rows = indices.cpu()
        return replace(self, files=tuple(self.files[row] for row in rows.tolist()), labels=self.labels[rows])

    def to(self, device: torch.device | str) -> FolderImages:
        """Return the images with batches on `device`."""
        return replace(self, device=torch.device(device))

    def decoded(self) -> TensorImages:
        """Return the same images in memory, on the same device.

        Raises:
            RequestError: A file cannot be decoded.
        """
        images = torch.empty((len(self), 3, self.size, self.size), dtype=torch.uint8)
        done = 0
        for batch, _ in self.to("cpu").batches(DECODED_TOGETHER):
            images[done : done + len(batch)] = batch
            done += len(batch)
        return TensorImages(images, self.labels).to(self.device)

    def reads_like(self, other: FolderImages) -> bool:
        """Return True if the files of `other` would give the same batches in this set."""
        return (self.size, self.workers, self.device) == (other.size, other.workers, other.device)


class _Decoder(Dataset["Tensor | RequestError"]):
    """Rows of a batch → images (B, 3, size, size) uint8, or the error, which a worker process cannot raise."""

    def __init__(self, files: tuple[str, ...], size: int) -> None:
        self.files, self.size = files, size

    def __getitem__(self, rows: list[int]) -> Tensor | RequestError:
        try:
            return torch.stack([decode(self.files[row], self.size) for row in rows])
        except RequestError as error:
            return error


def decode(file: str, size: int) -> Tensor:
    """Decode an image to (3, size, size) uint8: resize the shorter side to `size`, then crop the center.

    Raises:
        RequestError: The file is missing, damaged, or no image.
    """
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        rule = f"{file} must be an image that Pillow can decode ({type(error).__name__}: {error})"
        raise RequestError(rule, hint="replace or remove it") from error
    shorter = min(image.size)
    width, height = (max(size, side * size // shorter) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_folder(options: ReadOptions) -> Pool:
    """Read `train/CLASS/…`, `test/CLASS/…` and, if present, `validation/` or `val/` below the root.

    Classes are the folders of `train` in alphabetical order; images may be anywhere below them. The default size is
    224 px.

    Raises:
        RequestError: A folder is missing or has no images, or the parts have different classes.
    """
    root = options.root.expanduser().absolute()
    size = DEFAULT_SIZE if options.size is None else options.size
    if not isinstance(size, int) or size < 1:
        raise RequestError("data.size must be an integer >= 1 (px)", value=size)
    classes = class_folders(root / "train")
    parts = {
        part: scan_classes(root / part, classes, size, options.workers)
        for part in ("train", "test", *held_out_folders(root))
    }
    validation = next((images for part, images in parts.items() if part.startswith("val")), None)
    return Pool(parts["train"], parts["test"], classes=len(classes), size=size, validation=validation)


def held_out_folders(root: Path) -> list[str]:
    """Return which of `validation` and `val` there is below a folder.

    Raises:
        RequestError: There are both.
    """
    found = [part for part in ("validation", "val") if (root / part).is_dir()]
    if len(found) > 1:
        raise RequestError(f"{root} must contain only one of validation/ and val/", hint="remove or rename one")
    return found


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders below a folder in alphabetical order, hidden ones left out.

    Raises:
        RequestError: The folder is missing, or has fewer than 2.
    """
    if not folder.is_dir():
        rule = f"the images of data set 'imagefolder' must be in {folder}/CLASS/, but {folder} does not exist"
        raise RequestError(rule, hint="create it, or set `data.root` to the folder of train/ and test/")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise RequestError(f"{folder} must have a folder for each of at least 2 classes", value=classes)
    return classes


def scan_classes(folder: Path, classes: list[str], size: int, workers: int) -> FolderImages:
    """Find the images anywhere below the folders of `classes`, which are labeled in that order; see `FolderImages`.

    Raises:
        RequestError: The folder has other classes, or a class has no images.
    """
    found = class_folders(folder)
    if found != classes:
        missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        value = f"missing: {', '.join(missing) or 'none'}; extra: {', '.join(extra) or 'none'}"
        raise RequestError(f"{folder} must have the same classes as train/", value=value)
    by_class = [_files(folder / name) for name in classes]
    labels = [label for label, files in enumerate(by_class) for _ in files]
    return FolderImages(tuple(file for files in by_class for file in files), torch.tensor(labels), size, workers)


def _files(folder: Path) -> list[str]:
    found = ((below, name) for below, _, names in os.walk(folder) for name in names)
    files = [f"{below}/{name}" for below, name in found if name.lower().endswith(SUFFIXES) and name[0] != "."]
    if not files:
        raise RequestError(f"{folder} must contain an image", hint=f"known: {', '.join(SUFFIXES)}")
    return sorted(files)
