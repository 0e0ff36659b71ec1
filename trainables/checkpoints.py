"""Weights in files: safetensors, or a plain state_dict; nothing in them is ever executed."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from spaces import RequestError
from spaces.core.io import write_atomic


def save_weights(path: Path | str, weights: dict[str, Tensor]) -> Path:
    """Write `weights` to `path` as safetensors, whole or not at all; weights that a model ties are written twice."""
    copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    return write_atomic(path, safetensors.torch.save(copies))


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """The weights in a `.safetensors` file, or in a file that `torch.save(model.state_dict())` wrote.

    Raises:
        RequestError: no such file, or it holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"no weights file at {path}", hint="check teacher.weights")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its reader stumbles over: IndexError, struct.error, …
        hint = "save it with torch.save(model.state_dict()) or as safetensors"
        raise RequestError(f"{path} holds no plain weights ({type(error).__name__})", hint=hint) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise RequestError(f"{path} holds a state_dict, names to tensors", value=type(weights).__name__)
    return weights


def check_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Hold `weights` against the model's own names and shapes.

    Raises:
        RequestError: they differ; the first few differences are listed.
    """
    own = model.state_dict()
    missing = [f"{name} is missing" for name in own.keys() - weights.keys()]
    extra = [f"{name} is not in the model" for name in weights.keys() - own.keys()]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    faults = sorted(missing) + sorted(extra) + sorted(shapes)
    if faults:
        more = f" (and {len(faults) - 4} more)" if len(faults) > 4 else ""
        raise RequestError(f"{source} does not fit the model: {'; '.join(faults[:4])}{more}")
