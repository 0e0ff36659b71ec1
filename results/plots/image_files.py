"""The user's own pictures, found in files and folders and brought to a schedule's size and channels."""

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
"""What is taken for an image in a folder, in small or capital letters; a file named alone may be called anything."""


def find_images(paths: Path | str | Sequence[Path | str]) -> list[str]:
    """The image files among `paths`, and those anywhere below the folders among them; hidden ones are left alone.

    Raises:
        RequestError: there is no such file or folder, or a folder without an image.
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
        raise RequestError(f"there is no image file and no folder {path}", hint="check the path")
    below = ((folder, name) for folder, _, names in os.walk(path) for name in names)
    files = [f"{folder}/{name}" for folder, name in below if name.lower().endswith(SUFFIXES) and name[0] != "."]
    if not files:
        raise RequestError(f"there is no image in the folder {path}", hint=f"these count: {', '.join(SUFFIXES)}")
    return sorted(files)


def load_image(file: Path | str, spec: ImageSpec) -> Tensor:
    """The picture in `file` as a schedule's images are: (C, size, size) uint8.

    It is turned as its EXIF data say, converted to gray or RGB, and the square in its middle is brought to `size`
    (bilinear, antialiased); one that is `size` × `size` already keeps its very pixels.

    Raises:
        RequestError: the file is missing, damaged, no image, or larger than Pillow takes for safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                upright = ImageOps.exif_transpose(opened).convert("L" if spec.channels == 1 else "RGB")
        square = ImageOps.fit(upright, (spec.size, spec.size), Image.Resampling.BILINEAR)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        rule = f"an image has at most {Image.MAX_IMAGE_PIXELS:,} pixels, and {file} has more"
        raise RequestError(rule, hint="make it smaller first, or leave it out") from error
    except Exception as error:  # whatever a decoder trips over in a damaged file
        rule = f"{file} must be an image that Pillow can decode ({type(error).__name__}: {error})"
        raise RequestError(rule, hint="replace it or leave it out") from error
    pixels = torch.from_numpy(np.array(square)).reshape(spec.size, spec.size, -1)
    return pixels.permute(2, 0, 1).contiguous()
