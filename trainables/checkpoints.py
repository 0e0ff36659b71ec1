"""Weight files: safetensors or a plain state_dict, neither of which executes code when loaded."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from spaces import RequestError
from spaces.core.io import write_atomic


def save_weights(path: Path | str, weights: dict[str, Tensor]) -> Path:
    """Write weights as safetensors, atomically; tied weights are written once per name.

    Args:
        path: File to write, usually `*.safetensors`.
        weights: Tensors by name.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> path = save_weights(folder / "model.safetensors", {"bias": torch.tensor([1.0, 2.0])})
        >>> load_weights(path)
        {'bias': tensor([1., 2.])}
    """
    copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    return write_atomic(path, safetensors.torch.save(copies))


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """Read the weights in a `.safetensors` file or in a file written by `torch.save(model.state_dict())`.

    Args:
        path: File to read.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        RequestError: The file does not exist, or contains anything but tensors.

    Example:
        >>> load_weights("missing.safetensors")
        Traceback (most recent call last):
        ...
        spaces.core.errors.RequestError: the weights file must exist, got 'missing.safetensors'; check teacher.weights
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError("the weights file must exist", value=str(path), hint="check teacher.weights")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything: IndexError, struct.error, …
        hint = "save it with torch.save(model.state_dict()) or as safetensors"
        rule = f"{path} must contain plain weights, and reading it raised {type(error).__name__}"
        raise RequestError(rule, hint=hint) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise RequestError(f"{path} must contain a dict of names to tensors", value=type(weights).__name__)
    return weights


def check_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Check that `weights` have the names and shapes of `model`.

    Args:
        model: Network.
        weights: Tensors by name.
        source: Origin of the weights, for the error message.

    Raises:
        RequestError: They differ; the first four differences are listed.
    """
    own = model.state_dict()
    missing = [f"{name} is missing" for name in own.keys() - weights.keys()]
    extra = [f"{name} is not in the model" for name in weights.keys() - own.keys()]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    differences = sorted(missing) + sorted(extra) + sorted(shapes)
    if differences:
        more = f" (and {len(differences) - 4} more)" if len(differences) > 4 else ""
        raise RequestError(f"{source} must have the names and shapes of the model: {'; '.join(differences[:4])}{more}")
