"""Image files of the user, converted to the size and channels of a schedule."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from spaces import ImageSpec, RequestError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
"""Suffixes of image files in a folder, in lower or upper case; a file given by name may have any."""


def find_images(paths: Path | str | Sequence[Path | str]) -> list[str]:
    """Return the image files among `paths` and at any depth of the folders among them, without hidden ones.

    Raises:
        RequestError: A path does not exist, or a folder contains no image.
    """
    each = [paths] if isinstance(paths, Path | str) else paths
    return [file for path in each for file in _files(Path(path))]


def _files(path: Path) -> list[str]:
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read {path}: {error}", hint="check the path") from error
    if is_file:
        return [str(path)]
    if not is_folder:
        raise RequestError(f"no image file and no folder {path}", hint="check the path")
    below = ((folder, name) for folder, _, names in os.walk(path) for name in names)
    files = [f"{folder}/{name}" for folder, name in below if name.lower().endswith(SUFFIXES) and name[0] != "."]
    if not files:
        raise RequestError(f"no image in the folder {path}", hint=f"images end in {', '.join(SUFFIXES)}")
    return sorted(files)


def load_image(file: Path | str, spec: ImageSpec) -> Tensor:
    """Load an image as (C, size, size) uint8.

    The image is rotated by its EXIF data, converted to gray or RGB, cropped to the square in its center and resized
    (bilinear, antialiased); an image of `size` x `size` keeps its pixels.

    Args:
        file: Image file of any format that Pillow decodes.
        spec: Size and channels.

    Raises:
        RequestError: The file is missing, damaged, not an image, or larger than Pillow considers safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                upright = ImageOps.exif_transpose(opened).convert("L" if spec.channels == 1 else "RGB")
        square = ImageOps.fit(upright, (spec.size, spec.size), Image.Resampling.BILINEAR)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        rule = f"{file} must have at most {Image.MAX_IMAGE_PIXELS:,} pixels"
        raise RequestError(rule, hint="make it smaller first, or leave it out") from error
    except Exception as error:  # a decoder may raise anything on a damaged file
        rule = f"{file} must be an image that Pillow can decode ({type(error).__name__}: {error})"
        raise RequestError(rule, hint="replace it or leave it out") from error
    pixels = torch.from_numpy(np.array(square)).reshape(spec.size, spec.size, -1)
    return pixels.permute(2, 0, 1).contiguous()
