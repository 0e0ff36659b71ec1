"""Writing of a benchmark's plot."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.core.io import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_plot(figure: Figure, axes: Iterable[Axes], file: Path) -> None:
    """Hide the upper and right spine of `axes`, and write the figure as PNG without metadata."""
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_atomic(file, buffer.getvalue())
