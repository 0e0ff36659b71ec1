"""An augmentation of the user's own, by its dotted name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from spaces.augmentations.base import Answers, Augmentation, View
from spaces.core.errors import RequestError
from spaces.core.importing import check_dotted, import_dotted


@dataclass(frozen=True)
class CustomAugmentation(Augmentation):
    """Whatever `factory(**parameters)` returns: a callable (images, generator) → images, uint8 (B, C, H, W) both.

    The name is imported when the augmentation is first used, not before; policy files may hold it only where whoever
    reads them allows it by name.

    Args:
        draw: has no say; the callable draws as it likes.
        factory: `package.module:attribute`.
        parameters: its keyword arguments, as pairs.
    """

    kind: ClassVar[str] = "own"

    factory: str = ""
    parameters: tuple[tuple[str, Any], ...] = ()

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Call it, and hold it to its promise.

        Raises:
            RequestError: it is not there, or returns something else than images.
        """
        changed = _made(self.factory, self.parameters)(images.clone(), generator)
        given, value = (images.dtype, tuple(images.shape)), None
        if isinstance(changed, Tensor):
            value = (changed.dtype, tuple(changed.shape))
        if value != given:
            raise RequestError(f"{self.factory} returns images of {given}", value=value or type(changed).__name__)
        return View.alone(changed)

    def resolve(self) -> None:
        """Import it now rather than at its first use.

        Raises:
            RequestError: it is not there, or does not take its parameters.
        """
        _made(self.factory, self.parameters)

    def to_json(self) -> dict[str, Any]:
        """The dotted name as the kind, and the parameters."""
        return {"kind": self.factory, **dict(self.parameters)}


@cache
def _made(factory: str, parameters: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    found = import_dotted(factory)
    try:
        made: Callable[..., Any] = found(**dict(parameters))
    except Exception as error:
        rule = f"{factory} does not take these parameters: {type(error).__name__}: {error}"
        raise RequestError(rule, value=dict(parameters)) from error
    if not callable(made):
        raise RequestError(f"{factory} returns a callable (images, generator) → images", value=type(made).__name__)
    return made


def own(factory: str, parameters: Mapping[str, Any]) -> CustomAugmentation:
    """The value for a dotted name; parameters are plain values, so that it can be compared and kept.

    Raises:
        RequestError: the name has no module and attribute, or a parameter is a list or a mapping.
    """
    check_dotted(factory)
    for name, value in parameters.items():
        if not isinstance(value, str | int | float | bool | None):
            raise RequestError(f"{factory}'s parameter {name} is a plain value", value=value)
    return CustomAugmentation(factory=factory, parameters=tuple(sorted(parameters.items())))
