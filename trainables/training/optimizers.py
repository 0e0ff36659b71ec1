"""PyTorch's optimizers without the import of PyTorch's compiler, which costs a process one second and 150 MB.

An optimizer imports the compiler to exclude `step` and four other methods from compilation. No optimizer is compiled
here, so the methods are taken without that wrapper. Their results are equal bit for bit.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

O = TypeVar("O", bound=Optimizer)  # noqa: E741 - an optimizer's type, in one signature


def _eager(kind: type[O]) -> type[O]:
    """Return `kind` with its methods unwrapped; without a wrapper (other PyTorch releases) they stay the same."""
    names = ("state_dict", "load_state_dict", "zero_grad", "add_param_group")
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


SGD = _eager(torch.optim.SGD)
Adam = _eager(torch.optim.Adam)
AdamW = _eager(torch.optim.AdamW)
