"""Large tensors that go to other processes: each copied once into the message, and not again where it is read.

PyTorch pickles a tensor as a copy inside the message, and takes it out as another. A NumPy array's bytes lie beside the
message (pickle protocol 5, https://peps.python.org/pep-0574/), and Ray's workers read them where they lie: in the
memory that all processes of a node share.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

Sent: TypeAlias = "Tensor | npt.NDArray[Any]"


def sent(tensor: Tensor) -> Sent:
    """The same memory as an array; a tensor that NumPy has nothing for, or on another device, as it is."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return tensor
    try:
        return tensor.detach().contiguous().numpy()
    except TypeError:  # bfloat16 and other types of PyTorch's own
        return tensor


def received(given: Sent) -> Tensor:
    """The tensor again, on the same memory: it may be shared with other processes, and is never to be written to."""
    if isinstance(given, Tensor):
        return given
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(given)


def all_sent(tensors: Mapping[str, Tensor]) -> dict[str, Sent]:
    """`sent`, by name."""
    return {name: sent(tensor) for name, tensor in tensors.items()}


def all_received(given: Mapping[str, Sent]) -> dict[str, Tensor]:
    """`received`, by name."""
    return {name: received(one) for name, one in given.items()}
