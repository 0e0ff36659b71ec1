"""Learned weights as a value: what a genome can hold, compare and name by a hash."""

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
    """Tensors by name, known by the SHA-256 of their names, types, shapes and bytes.

    Plain data carries the hash alone; the tensors travel beside it, and a value without them is only a reference.

    Args:
        sha256: 64 hexadecimal digits.
        tensors: on the CPU, never changed; None: not at hand.
    """

    sha256: str
    tensors: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what is no hash."""
        if not isinstance(self.sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise RequestError("learned weights are named by a sha256 of 64 hexadecimal digits", value=self.sha256)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Learned:
        """The value of these tensors."""
        own = {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in sorted(tensors)}
        digest = hashlib.sha256()
        for name, tensor in own.items():
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return cls(digest.hexdigest(), own)

    @classmethod
    def from_json(cls, data: Any) -> Learned:
        """The reference that `to_json` wrote.

        Raises:
            RequestError: it is none.
        """
        if isinstance(data, Learned):
            return data
        if not isinstance(data, Mapping) or set(data) != {"sha256"}:
            raise RequestError('learned weights are an object with "sha256" alone', value=data)
        return cls(data["sha256"])

    def to_json(self) -> dict[str, str]:
        """The hash; the tensors travel beside it."""
        return {"sha256": self.sha256}

    def required(self) -> Mapping[str, Tensor]:
        """The tensors.

        Raises:
            RequestError: this is only a reference.
        """
        if self.tensors is None:
            hint = "load the policy from its file, with the .safetensors file that it names beside it"
            raise RequestError("the learned weights of this augmentation are not at hand", value=self.sha256, hint=hint)
        return self.tensors
