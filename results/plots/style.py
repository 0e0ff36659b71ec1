"""Colors and figures for plots: on paper, and for a light and a dark page."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

PAPER_DPI = 120
"""Dots per inch of PNG files."""

DPI = 144
"""Dots per inch of the pictures in a page, for high-density screens."""


@dataclass(frozen=True)
class Style:
    """The colors of a plot, as hexadecimal RGB.

    The hues are those of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/), which are safe for color blindness.

    Args:
        page: Background.
        ink: Text.
        faint: Axes and secondary text.
        line: Grid lines and frames.
        lead: The searched policy, the student.
        control: The comparison, a marked item.
        heat: Colors from weak to strong; both ends differ from the page.
    """

    page: str
    ink: str
    faint: str
    line: str
    lead: str
    control: str
    heat: tuple[str, ...]

    @property
    def colors(self) -> Colormap:
        """Colormap from weak to strong; NaN is transparent."""
        return LinearSegmentedColormap.from_list("heat", self.heat).with_extremes(bad="none")

    def settings(self) -> Any:
        """Return Matplotlib's settings for these colors."""
        texts = ("text.color", "axes.labelcolor", "axes.titlecolor")
        lines = ("axes.edgecolor", "xtick.color", "ytick.color")
        colors = dict.fromkeys(texts, self.ink) | dict.fromkeys(lines, self.faint) | {"grid.color": self.line}
        clear = dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none")
        return colors | clear | {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


BLUES = ("#e4eff9", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
"""Light to dark in one hue: readable with color blindness and in grayscale."""

PAPER = Style("white", "#24292f", "#57606a", "#d0d7de", "#08306b", "#d55e00", BLUES)
LIGHT = Style("#ffffff", "#1f2328", "#57606a", "#e4e7eb", "#0072b2", "#d55e00", BLUES)
DARK = Style(
    "#0d1117", "#e6edf3", "#9aa4af", "#30363d", "#56b4e9", "#e69f00", ("#14304a", "#1f5f94", "#56b4e9", "#e3f3ff")
)


@dataclass(frozen=True)
class Picture:
    """An image file embedded in a page.

    Args:
        alt: Description with the numbers, for screen readers.
        light: Content of the file.
        dark: Content of the file for a dark page; empty if `light` has an opaque background and serves both.
        kind: Media type.
    """

    alt: str
    light: bytes
    dark: bytes = b""
    kind: str = "image/png"

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return self._uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The dark image as a data URI; empty without one."""
        return self._uri(self.dark) if self.dark else ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in px, so that a loading page does not jump; None if the file is not a PNG."""
        if self.kind != "image/png":
            return None
        width, height = struct.unpack(">II", self.light[16:24])
        return int(width), int(height)

    def _uri(self, content: bytes) -> str:
        return f"data:{self.kind};base64,{base64.b64encode(content).decode()}"


def draw_picture(draw: Callable[[Style], Figure], alt: str) -> Picture:
    """Draw a figure for a light and a dark page; the same figure gives the same bytes.

    Args:
        draw: Returns the figure in given colors.
        alt: Description with the numbers, for screen readers.
    """
    return Picture(alt, _draw(draw, LIGHT), _draw(draw, DARK))


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure without a window; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure, dpi: int = PAPER_DPI) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _draw(draw: Callable[[Style], Figure], style: Style) -> bytes:
    with mpl.rc_context(style.settings()):
        return png_bytes(draw(style), DPI)
