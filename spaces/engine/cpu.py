"""The engine on a CPU: hands batches to the compiled kernels, in as many parts as torch has threads."""

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
from spaces.operations.tone import SHARED_TABLES
from spaces.policy.sampling import Parameters

_CHUNK = 16
"""Fewer images than this are not worth a thread of their own."""

_KINDS = np.full(ROWS, COPY)
for _kind, _names in {
    WARP: MATRICES,
    LOOK_UP: SHARED_TABLES,
    CONTRAST: ["Contrast"],
    AUTO_CONTRAST: ["AutoContrast"],
    EQUALIZE: ["Equalize"],
    COLOR: ["Color"],
    SHARPNESS: ["Sharpness"],
    CUTOUT: ["Cutout"],
}.items():
    _KINDS[[INDEX[name] for name in _names]] = _kind


def apply(images: Tensor, parameters: Parameters, fill: Tensor) -> Tensor:
    """Change uint8 images (B, C, H, W) as `parameters` say, with as many threads as torch uses; all on the CPU."""
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
    wrong = _in_parts(cpu_kernels.augment, len(images), (_KINDS, *arrays))
    if wrong >= 0:
        rule = "parameters name operations -1 … 14 at levels 0 … 9, signs -1 or 1, positions in [0, 1)"
        here = parameters[slice(wrong, wrong + 1)]
        got = [part.tolist() for part in (here.operations, here.levels, here.signs, here.positions)]
        raise RequestError(f"{rule}; those of image {wrong} do not", value=got)
    return result


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, fill: Tensor) -> Tensor:
    """Move uint8 images (B, C, H, W) by whole pixels, then mirror some."""
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    arrays = _arrays(images, result, top, left, mirrored, fill)
    _in_parts(cpu_kernels.crop, len(images), arrays)
    return result


def _arrays(*tensors: Tensor) -> tuple[Array, ...]:
    """The tensors for a kernel, contiguous, since every other layout would be compiled anew."""
    return tuple(tensor.contiguous().numpy() for tensor in tensors)


def _in_parts(kernel: Callable[..., int], batch: int, arrays: tuple[Array, ...]) -> int:
    """Run `kernel(start, stop, *arrays)` over the whole batch, with as many threads as torch uses.

    Returns:
        the first image that the kernel refused; −1: none.
    """
    threads = min(torch.get_num_threads(), batch // _CHUNK)
    if threads <= 1:
        return kernel(0, batch, *arrays)
    bounds = [batch * part // threads for part in range(threads + 1)]
    pool = _pool(os.getpid())
    parts = [pool.submit(kernel, *pair, *arrays) for pair in pairwise(bounds)]
    return max(part.result() for part in parts)


@cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - the cache's key
    """Threads for one process: those of a parent are not there in a fork of it."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="roletune-augment")
