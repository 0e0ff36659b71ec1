"""PyTorch's optimizers without PyTorch's compiler, which costs each process a second and 150 MB when it is loaded.

An optimizer loads the compiler to tell it, should it ever look here, that it should look away: in `step`, and in four
other methods. No optimizer is compiled here, so the methods are taken without what was wrapped around them for that.
What they compute is the same to the bit.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

O = TypeVar("O", bound=Optimizer)  # noqa: E741 - an optimizer's type, in one signature


def _eager(kind: type[O]) -> type[O]:
    """`kind` as it is beneath its wrappers; where a release of PyTorch has none, just `kind`."""
    names = ("state_dict", "load_state_dict", "zero_grad", "add_param_group")
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


SGD = _eager(torch.optim.SGD)
Adam = _eager(torch.optim.Adam)
AdamW = _eager(torch.optim.AdamW)
