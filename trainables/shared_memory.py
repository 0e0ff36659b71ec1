"""Pickling of large tensors for other processes, copied once into the message and not again when it is read.

PyTorch pickles a tensor as a copy inside the message, and unpickles it as another copy. The bytes of a NumPy array are
kept beside the message (pickle protocol 5, https://peps.python.org/pep-0574/), and Ray's workers read them in place, in
memory that all processes of a node share.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

Shareable: TypeAlias = "Tensor | npt.NDArray[Any]"


def to_shareable(tensor: Tensor) -> Shareable:
    """Return the same memory as an array; a tensor on another device, or of a type that NumPy lacks, stays a tensor.

    Example:
        >>> type(to_shareable(torch.zeros(2))).__name__
        'ndarray'
    """
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return tensor
    try:
        return tensor.detach().contiguous().numpy()
    except TypeError:  # bfloat16 and other types that only PyTorch has
        return tensor


def from_shareable(shared: Shareable) -> Tensor:
    """Return the tensor on the same memory, which other processes may share, so it must never be written to.

    Example:
        >>> from_shareable(to_shareable(torch.zeros(2)))
        tensor([0., 0.])
    """
    if isinstance(shared, Tensor):
        return shared
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(shared)


def all_to_shareable(tensors: Mapping[str, Tensor]) -> dict[str, Shareable]:
    """Apply `to_shareable` to each tensor."""
    return {name: to_shareable(tensor) for name, tensor in tensors.items()}


def all_from_shareable(shared: Mapping[str, Shareable]) -> dict[str, Tensor]:
    """Apply `from_shareable` to each array."""
    return {name: from_shareable(one) for name, one in shared.items()}
