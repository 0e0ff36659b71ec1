"""CPU backend: splits batches among the compiled kernels, one part per torch thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.engine import cpu_kernels
from spaces.engine.cpu_kernels import (
    AUTO_CONTRAST,
    COLOR,
    CONTRAST,
    COPY,
    CUTOUT,
    EQUALIZE,
    LOOK_UP,
    SHARPNESS,
    WARP,
    Array,
)
from spaces.engine.lookup_tables import INDEX, ROWS, constants
from spaces.operations.geometry import MATRICES
from spaces.operations.tone import LEVEL_TABLES
from spaces.policy.sampling import Parameters

_CHUNK = 16
"""Smallest number of images per thread."""

_KINDS = np.full(ROWS, COPY)
for _kind, _names in {
    WARP: MATRICES,
    LOOK_UP: LEVEL_TABLES,
    CONTRAST: ["Contrast"],
    AUTO_CONTRAST: ["AutoContrast"],
    EQUALIZE: ["Equalize"],
    COLOR: ["Color"],
    SHARPNESS: ["Sharpness"],
    CUTOUT: ["Cutout"],
}.items():
    _KINDS[[INDEX[name] for name in _names]] = _kind


def apply(images: Tensor, parameters: Parameters, fill: Tensor) -> Tensor:
    """Apply `parameters` to uint8 images (B, C, H, W) on the CPU, with as many threads as torch uses."""
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    fixed = constants(*images.shape[-2:], images.device)
    arrays = _arrays(
        images,
        result,
        parameters.operations,
        parameters.levels,
        parameters.signs,
        parameters.positions,
        fill,
        fixed.matrices,
        fixed.tables,
        fixed.factors,
        fixed.sides,
    )
    invalid = _in_parts(cpu_kernels.augment, len(images), (_KINDS, *arrays))
    if invalid >= 0:
        rule = "operations must be -1 … 14, levels 0 … 12, signs -1 or 1, positions in [0, 1)"
        row = parameters[slice(invalid, invalid + 1)]
        values = [part.tolist() for part in (row.operations, row.levels, row.signs, row.positions)]
        raise RequestError(f"{rule}, for image {invalid}", value=values)
    return result


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, fill: Tensor) -> Tensor:
    """Shift uint8 images (B, C, H, W) by whole pixels, then mirror some of them."""
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    arrays = _arrays(images, result, top, left, mirrored, fill)
    _in_parts(cpu_kernels.crop, len(images), arrays)
    return result


def _arrays(*tensors: Tensor) -> tuple[Array, ...]:
    """Return contiguous arrays, since numba compiles a kernel again for every other layout."""
    return tuple(tensor.contiguous().numpy() for tensor in tensors)


def _in_parts(kernel: Callable[..., int], batch: int, arrays: tuple[Array, ...]) -> int:
    """Run `kernel(start, stop, *arrays)` over the whole batch, with as many threads as torch uses.

    Returns:
        Index of an image with invalid parameters; -1 if there is none.
    """
    threads = min(torch.get_num_threads(), batch // _CHUNK)
    if threads <= 1:
        return kernel(0, batch, *arrays)
    bounds = [batch * part // threads for part in range(threads + 1)]
    pool = _pool(os.getpid())
    parts = [pool.submit(kernel, *pair, *arrays) for pair in pairwise(bounds)]
    return max(part.result() for part in parts)


@cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - cache key
    """Return the thread pool of a process; a forked process does not inherit the threads of its parent."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="roletune-augment")
