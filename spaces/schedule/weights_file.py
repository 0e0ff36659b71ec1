"""The safetensors file of learned weights in the same folder as a policy file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.core.weights import Learned

SUFFIX = ".safetensors"


def weights_path(path: Path | str) -> Path:
    """Return the path of the learned weights for a policy file: `NAME.safetensors` for `NAME.json`.

    Raises:
        RequestError: `path` has no file name, or that of a weights file.

    Example:
        >>> from spaces.schedule.weights_file import weights_path
        >>> weights_path("policy.json").name
        'policy.safetensors'
    """
    path = Path(path)
    if not path.name or path.suffix == SUFFIX:
        raise RequestError("a policy file must have a name, and be JSON", value=str(path), hint="call it NAME.json")
    return path.parent / (path.name.removesuffix(".json") + SUFFIX)


def dump_weights(weights: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    """Return the content of the weights file.

    Args:
        weights: Tensors by name, by the hash of the learned weights.
    """
    return safetensors.torch.save(
        {f"{key}/{name}": tensor for key, tensors in weights.items() for name, tensor in tensors.items()}
    )


def parse_weights(content: bytes, source: str) -> dict[str, dict[str, Tensor]]:
    """Return the tensors by name, by the hash of the learned weights.

    Args:
        content: Content of the weights file.
        source: Name of the file in messages.

    Raises:
        RequestError: The content is not a safetensors file, or tensors do not match their hash.
    """
    try:
        named = safetensors.torch.load(content)
    except (SafetensorError, ValueError) as error:
        raise RequestError(f"{source} must be a safetensors file: {error}") from error
    weights: dict[str, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        key, _, rest = name.partition("/")
        weights.setdefault(key, {})[rest] = tensor
    for key, tensors in weights.items():
        if Learned.of(tensors).sha256 != key:
            raise RequestError("learned weights must match their hash", value=key)
    return weights
