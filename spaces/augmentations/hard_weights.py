"""Learned weights inside augmentations: list them, fill them in, remove pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from spaces.augmentations.base import Augmentation
from spaces.augmentations.hard import HardChain, HardVae
from spaces.core.weights import Learned


def learned_weights(choice: Augmentation) -> tuple[Learned, ...]:
    """Return all learned weights in an augmentation, its parts and its base."""
    found: list[Learned] = []
    for item in fields(choice):
        value = getattr(choice, item.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Learned):
                found.append(part)
            elif isinstance(part, Augmentation):
                found.extend(learned_weights(part))
    return tuple(found)


def with_weights(choice: Augmentation, weights: Mapping[str, Mapping[str, Tensor]]) -> Augmentation:
    """Return a copy whose references are filled from `weights`, by hash; missing ones stay references."""
    changed: dict[str, Any] = {}
    for item in fields(choice):
        if not item.init:
            continue
        value = getattr(choice, item.name)
        if isinstance(value, Learned) and value.sha256 in weights:
            changed[item.name] = Learned(value.sha256, weights[value.sha256])
        elif isinstance(value, Augmentation):
            changed[item.name] = with_weights(value, weights)
        elif isinstance(value, tuple) and value and isinstance(value[0], Augmentation):
            changed[item.name] = tuple(with_weights(part, weights) for part in value)
    return replace(choice, **changed) if changed else choice


def without_pretraining(choice: Augmentation) -> Augmentation:
    """Return a copy without pretrained weights, which are trained again where it is used."""
    if isinstance(choice, HardChain):
        parts: Any = tuple(without_pretraining(part) for part in choice.parts)  # all parts are `Hard`
        return replace(choice, parts=parts)
    return replace(choice, vae=None) if isinstance(choice, HardVae) and choice.learns else choice
