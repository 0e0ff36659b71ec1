"""Learned weights as a hashable value that a genome can hold and compare."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spaces.core.errors import RequestError


@dataclass(frozen=True)
class Learned:
    """Named tensors, identified by the SHA-256 of their names, dtypes, shapes and bytes.

    JSON holds the hash alone; the tensors are stored in a safetensors file. A value without tensors is a reference.

    Args:
        sha256: Hash, 64 hexadecimal digits.
        tensors: Tensors on the CPU, never modified; None for a reference.

    Example:
        >>> import torch
        >>> from spaces.core.weights import Learned
        >>> weights = Learned.of({"scale": torch.ones(2)})
        >>> Learned.from_json(weights.to_json()) == weights
        True
    """

    sha256: str
    tensors: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise RequestError("the sha256 of learned weights must have 64 hexadecimal digits", value=self.sha256)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Learned:
        """Copy `tensors` to the CPU and hash them."""
        copies = {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in sorted(tensors)}
        digest = hashlib.sha256()
        for name, tensor in copies.items():
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return cls(digest.hexdigest(), copies)

    @classmethod
    def from_json(cls, data: Any) -> Learned:
        """Return the reference that `to_json` wrote.

        Raises:
            RequestError: `data` is not such a reference.
        """
        if isinstance(data, Learned):
            return data
        if not isinstance(data, Mapping) or set(data) != {"sha256"}:
            raise RequestError('learned weights must be an object with the one key "sha256"', value=data)
        return cls(data["sha256"])

    def to_json(self) -> dict[str, str]:
        """Return the hash as JSON data, without the tensors."""
        return {"sha256": self.sha256}

    def required(self) -> Mapping[str, Tensor]:
        """Return the tensors.

        Raises:
            RequestError: This is a reference without tensors.
        """
        if self.tensors is None:
            hint = "load the policy from its file, with its .safetensors file in the same folder"
            raise RequestError("the learned weights of this augmentation must be loaded", value=self.sha256, hint=hint)
        return self.tensors
