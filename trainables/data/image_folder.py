"""Images in a folder of their own for each class, decoded as they are needed: the one set that streams."""

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
from trainables.data.images import batch_rows, check_labels
from trainables.data.source import Pool, Reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
"""What is taken for an image, in small or capital letters; other files, and hidden ones, are left alone."""

DEFAULT_SIZE = 224


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Images that stay on disk until a batch needs them.

    An image is decoded to RGB, its shorter side brought to `size` (bilinear, antialiased), its center cut
    out; one that is `size` × `size` already keeps its very pixels. Only this happens in the workers, and
    which of them does it changes nothing.

    Args:
        files: N paths.
        labels: (N,) int64, on the CPU.
        size: side of the square images, px.
        workers: processes that decode; 0 decodes in this one.
        device: where the batches are put.

    Raises:
        RequestError: the labels are not one for each file.
    """

    files: tuple[str, ...]
    labels: Tensor
    size: int
    workers: int = 0
    device: torch.device = field(default=torch.device("cpu"))

    def __post_init__(self) -> None:
        """Refuse labels that are not one for each file."""
        check_labels(self.labels, len(self.files))

    def __len__(self) -> int:
        """N."""
        return len(self.files)

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Images.batches`, with C = 3.

        Raises:
            RequestError: a file cannot be decoded; raised by the batch that it is in.
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
            generator=torch.Generator(),  # else it would draw its workers' seeds from the global state
        )
        for rows, images in zip(batches, loader, strict=True):
            if isinstance(images, RequestError):
                raise images
            labels = self.labels[rows]
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def subset(self, indices: Tensor) -> FolderImages:
        """The images at `indices` (M,) int64, in that order."""
        rows = indices.cpu()
        return replace(self, files=tuple(self.files[row] for row in rows.tolist()), labels=self.labels[rows])

    def to(self, device: torch.device | str) -> FolderImages:
        """The same files, whose batches come on `device`."""
        return replace(self, device=torch.device(device))

    def reads_like(self, other: FolderImages) -> bool:
        """Whether files of `other` would give the same batches in this set."""
        return (self.size, self.workers, self.device) == (other.size, other.workers, other.device)


class _Decoder(Dataset["Tensor | RequestError"]):
    """Rows of a batch → images (B, 3, size, size) uint8, or the error, which a worker cannot raise itself."""

    def __init__(self, files: tuple[str, ...], size: int) -> None:
        self.files, self.size = files, size

    def __getitem__(self, rows: list[int]) -> Tensor | RequestError:
        try:
            return torch.stack([decode(self.files[row], self.size) for row in rows])
        except RequestError as error:
            return error


def decode(file: str, size: int) -> Tensor:
    """The image in `file` as (3, size, size) uint8: shorter side to `size`, then the center.

    Raises:
        RequestError: the file is missing, damaged, or no image.
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


def read_folder(reading: Reading) -> Pool:
    """The set in `train/CLASS/…`, `test/CLASS/…` and, if there is one, `validation/` or `val/` in the root.

    Classes are the folders of `train` in alphabetical order; images lie anywhere below them. `size` defaults
    to 224.

    Raises:
        RequestError: a folder is missing or has no images, or the parts have different classes.
    """
    root = reading.root.expanduser().absolute()
    size = DEFAULT_SIZE if reading.size is None else reading.size
    if not isinstance(size, int) or size < 1:
        raise RequestError("data.size is a whole number of pixels, at least 1", value=size)
    classes = _classes(root / "train")
    parts = {part: _scan(root / part, classes, size, reading.workers) for part in ("train", "test", *_held_out(root))}
    validation = next((images for part, images in parts.items() if part.startswith("val")), None)
    return Pool(parts["train"], parts["test"], classes=len(classes), size=size, validation=validation)


def _held_out(root: Path) -> list[str]:
    found = [part for part in ("validation", "val") if (root / part).is_dir()]
    if len(found) > 1:
        raise RequestError(f"only one of validation/ and val/ may lie in {root}", hint="remove or rename one")
    return found


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        rule = f"data set 'imagefolder' has its images in {folder}/CLASS/, and there is no folder {folder}"
        raise RequestError(rule, hint="make it, or set `data.root` to where train/ and test/ lie")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise RequestError(f"{folder} has a folder for each of at least 2 classes", value=classes)
    return classes


def _scan(folder: Path, classes: list[str], size: int, workers: int) -> FolderImages:
    own = _classes(folder)
    if own != classes:
        lacking, extra = sorted(set(classes) - set(own)), sorted(set(own) - set(classes))
        got = f"lacking: {', '.join(lacking) or 'none'}; extra: {', '.join(extra) or 'none'}"
        raise RequestError(f"{folder} has the same classes as train/ beside it", value=got)
    found = [_files(folder / name) for name in classes]
    labels = [label for label, files in enumerate(found) for _ in files]
    return FolderImages(tuple(file for files in found for file in files), torch.tensor(labels), size, workers)


def _files(folder: Path) -> list[str]:
    found = ((below, name) for below, _, names in os.walk(folder) for name in names)
    files = [f"{below}/{name}" for below, name in found if name.lower().endswith(SUFFIXES) and name[0] != "."]
    if not files:
        raise RequestError(f"there is no image in {folder}", hint=f"known: {', '.join(SUFFIXES)}")
    return sorted(files)
