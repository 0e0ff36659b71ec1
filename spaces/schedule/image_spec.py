"""Specification of the images of a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spaces.core.errors import RequestError
from spaces.core.validation import check_integer, is_integer


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Size, channels and fill color of the images of a schedule.

    Args:
        size: Side in pixels, >= 1.
        channels: Number of channels, 1 or 3.
        fill: Color of uncovered and cut-out pixels, 0 to 255 per channel; usually the mean color of the data set.

    Raises:
        RequestError: A value is out of range.

    Example:
        >>> from spaces import ImageSpec
        >>> ImageSpec(size=32, channels=3, fill=(125, 123, 114)).to_json()
        {'size': 32, 'channels': 3, 'fill': [125, 123, 114]}
    """

    size: int
    channels: int
    fill: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "fill", tuple(self.fill))
        check_integer("ImageSpec.size", self.size, 1)
        if not is_integer(self.channels) or self.channels not in (1, 3):
            raise RequestError("ImageSpec.channels must be 1 or 3", value=self.channels)
        if len(self.fill) != self.channels or not all(is_integer(v) and 0 <= v <= 255 for v in self.fill):
            rule = f"ImageSpec.fill must have {self.channels} integers from 0 to 255"
            raise RequestError(rule, value=list(self.fill))

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON data."""
        return {"size": self.size, "channels": self.channels, "fill": list(self.fill)}
