"""Pictures for a page that is light or dark: one drawing, both ways, with the words that stand for it."""

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

DPI = 144
"""Twice as fine as a page shows it, for screens that are."""


@dataclass(frozen=True)
class Style:
    """The colors of a drawing. The hues are those of Okabe and Ito (2008), which differ without color vision as well.

    Args:
        page: what it lies on.
        ink: of words.
        faint: of axes.
        line: of the grid.
        lead: of what was searched.
        control: of what it is compared with.
        heat: colors from weak to strong; both ends differ from the page.
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
        """From weak to strong; what is no number is left clear."""
        return LinearSegmentedColormap.from_list("heat", self.heat).with_extremes(bad="none")

    def settings(self) -> Any:
        """Matplotlib's settings for it."""
        words = ("text.color", "axes.labelcolor", "axes.titlecolor")
        rules = ("axes.edgecolor", "xtick.color", "ytick.color")
        colors = dict.fromkeys(words, self.ink) | dict.fromkeys(rules, self.faint) | {"grid.color": self.line}
        clear = dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none")
        return colors | clear | {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


BLUES = ("#e4eff9", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
"""Light to dark without changing sides, so that they read the same without color vision and in print."""

PAPER = Style("white", "#24292f", "#57606a", "#d0d7de", "#08306b", "#d55e00", BLUES)
LIGHT = Style("#ffffff", "#1f2328", "#57606a", "#e4e7eb", "#0072b2", "#d55e00", BLUES)
DARK = Style(
    "#0d1117", "#e6edf3", "#9aa4af", "#30363d", "#56b4e9", "#e69f00", ("#14304a", "#1f5f94", "#56b4e9", "#e3f3ff")
)


@dataclass(frozen=True)
class Picture:
    """A PNG, or a JPEG, in a page.

    Args:
        alt: what it shows, with its numbers, for those who do not see it.
        light: the file's content.
        dark: the same for a dark page; empty: `light` has a ground of its own, and serves both.
        kind: of the content, as the web names it.
    """

    alt: str
    light: bytes
    dark: bytes = b""
    kind: str = "image/png"

    @property
    def uri(self) -> str:
        """The picture itself, as an address."""
        return self._uri(self.light)

    @property
    def dark_uri(self) -> str:
        """That of the dark one; empty: there is none."""
        return self._uri(self.dark) if self.dark else ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, px, so that a page does not jump; None: no PNG."""
        if self.kind != "image/png":
            return None
        width, height = struct.unpack(">II", self.light[16:24])
        return int(width), int(height)

    def _uri(self, content: bytes) -> str:
        return f"data:{self.kind};base64,{base64.b64encode(content).decode()}"


def picture(draw: Callable[[Style], Figure], alt: str) -> Picture:
    """What `draw` draws, on a light and on a dark page; the same drawing gives the same bytes."""
    return Picture(alt, _drawn(draw, LIGHT), _drawn(draw, DARK))


def canvas(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which no window belongs to."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _drawn(draw: Callable[[Style], Figure], theme: Style) -> bytes:
    with mpl.rc_context(theme.settings()):
        figure, buffer = draw(theme), BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
