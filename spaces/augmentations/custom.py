"""Custom augmentations by dotted name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from spaces.augmentations.base import Augmentation, Predict, View
from spaces.core.errors import RequestError
from spaces.core.importing import check_dotted, import_dotted


@dataclass(frozen=True)
class CustomAugmentation(Augmentation):
    """Augmentation of a user: the callable (images, generator) → images that `factory(**parameters)` returns.

    Images are uint8 (B, C, H, W) on both sides. The factory is imported at first use. A policy file may name it only if
    the reader allows that name, see `Schedule.load`.

    Args:
        draw: Has no effect.
        factory: Dotted name `package.module:attribute`.
        parameters: Keyword arguments of the factory, as pairs.

    Example:
        >>> from spaces.augmentations import augmentation
        >>> augmentation({"kind": "my_package.blur:Blur", "sigma": 2})
        CustomAugmentation(draw='sample', factory='my_package.blur:Blur', parameters=(('sigma', 2),))
    """

    kind: ClassVar[str] = "custom"

    factory: str = ""
    parameters: tuple[tuple[str, Any], ...] = ()

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Call the custom augmentation, and check what it returns.

        Raises:
            RequestError: The import failed, or the result has another dtype or shape.
        """
        changed = _build(self.factory, self.parameters)(images.clone(), generator)
        expected, value = (images.dtype, tuple(images.shape)), None
        if isinstance(changed, Tensor):
            value = (changed.dtype, tuple(changed.shape))
        if value != expected:
            raise RequestError(
                f"{self.factory} must return images of {expected}", value=value or type(changed).__name__
            )
        return View.unmixed(changed)

    def resolve(self) -> None:
        """Import the factory now rather than at first use.

        Raises:
            RequestError: The import failed, or the factory does not accept the parameters.
        """
        _build(self.factory, self.parameters)

    def to_json(self) -> dict[str, Any]:
        """Return the dotted name as the kind, and the parameters."""
        return {"kind": self.factory, **dict(self.parameters)}


@cache
def _build(factory: str, parameters: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    imported = import_dotted(factory)
    try:
        augment: Callable[..., Any] = imported(**dict(parameters))
    except Exception as error:
        rule = f"{factory} must accept these parameters: {type(error).__name__}: {error}"
        raise RequestError(rule, value=dict(parameters)) from error
    if not callable(augment):
        rule = f"{factory} must return a callable (images, generator) → images"
        raise RequestError(rule, value=type(augment).__name__)
    return augment


def custom_augmentation(factory: str, parameters: Mapping[str, Any]) -> CustomAugmentation:
    """Construct a custom augmentation; its parameters are scalars, so that it can be hashed and stored.

    Raises:
        RequestError: The name has no module and attribute, or a parameter is a list or a mapping.
    """
    check_dotted(factory)
    for name, value in parameters.items():
        if not isinstance(value, str | int | float | bool | None):
            raise RequestError(
                f"parameter {name} of {factory} must be a string, a number, true, false or null", value=value
            )
    return CustomAugmentation(factory=factory, parameters=tuple(sorted(parameters.items())))
