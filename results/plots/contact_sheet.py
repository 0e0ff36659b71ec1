"""A sheet of images with words: where everything stands, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import ceil
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spaces import OPERATIONS
from spaces.policy.sampling import MAX_OPERATIONS

MARGIN, GAP, GROUP_GAP = 16, 8, 28
"""px: round the sheet, between neighbors, and between one epoch and the next."""

LEAST_SIDE, MOST_SIDE = 128, 256
"""px: small images are enlarged by a whole number to about the one, large ones shrunk to the other."""

INK, FAINT, LINE = "#1f2328", "#57606a", "#d0d7de"


class ContactSheet:
    """A canvas with a column of originals and, for each group, columns of augmented images.

    Args:
        size: side of the images, px.
        headings: two lines for each group.
        rows: how many.
        draws: columns of a group.
    """

    def __init__(self, size: int, headings: Sequence[tuple[str, str]], rows: int, draws: int) -> None:
        """Lay out the sheet: every text has room."""
        self.size = size
        self.factor = max(1, round(LEAST_SIDE / size))
        self.side = min(size * self.factor, MOST_SIDE)
        self._small = _font(max(12, self.side // 16))
        self._bold = _font(max(14, self.side // 14), "DejaVuSans-Bold.ttf")
        self._title = _font(max(18, self.side // 11), "DejaVuSans-Bold.ttf")
        self._line = _height(self._small)
        labels = max(self._small.getlength(f"{name} −9") for name in OPERATIONS)
        first = max((self._bold.getlength(line[0]) for line in headings), default=0)
        second = max((self._small.getlength(line[1]) for line in headings), default=0)
        self.cell = ceil(max(self.side, labels, (max(first, second) - (draws - 1) * GAP) / draws))
        self._draws = draws
        self._top = MARGIN + _height(self._title) + _height(self._bold) + self._line + 2 * GAP
        self._row = self.side + MAX_OPERATIONS * self._line + GAP + GAP // 2
        self._bottom = self._top + rows * self._row
        self._width = self._left(len(headings), 0) - GROUP_GAP + MARGIN
        # What stands below has as much room as it needs, and is not known yet: `png` cuts the rest off.
        self._canvas = Image.new("RGB", (self._width, self._bottom + 12 * self._line), "white")
        self._pen = ImageDraw.Draw(self._canvas)
        for group, (upper, lower) in enumerate(headings):
            left = self._left(group, 0)
            self._pen.text((left, self._heading), upper, INK, self._bold)
            self._pen.text((left, self._heading + _height(self._bold)), lower, FAINT, self._small)
            rule = left - GROUP_GAP // 2
            self._pen.line((rule, self._heading, rule, self._bottom - GAP), LINE)
        self._pen.text((MARGIN, self._heading), "original", INK, self._bold)

    def put_original(self, row: int, image: Tensor, name: str) -> None:
        """Draw an image (C, size, size) uint8 in the first column, its file's name below."""
        self._put(MARGIN, row, image, [self._fitting(name)])

    def put(self, row: int, group: int, draw: int, image: Tensor, lines: Sequence[str]) -> None:
        """Draw an augmented image (C, size, size) uint8, and `lines` below."""
        self._put(self._left(group, draw), row, image, lines)

    def corner(self, row: int, group: int | None = None, draw: int = 0) -> tuple[int, int]:
        """The left upper pixel (x, y) of an image; group None: of an original."""
        return MARGIN if group is None else self._left(group, draw), self._top + row * self._row

    def png(self, title: str, legend: str) -> bytes:
        """The sheet with its title and, at the foot, its legend."""
        self._pen.text((MARGIN, MARGIN), title, INK, self._title)
        y = self._bottom
        for line in self._wrapped(legend):
            self._pen.text((MARGIN, y), line, FAINT, self._small)
            y += self._line
        buffer = BytesIO()
        self._canvas.crop((0, 0, self._width, min(y + MARGIN, self._canvas.height))).save(buffer, "PNG")
        return buffer.getvalue()

    @property
    def _heading(self) -> int:
        return MARGIN + _height(self._title) + GAP

    def _left(self, group: int, draw: int) -> int:
        column = self.cell + GAP
        return MARGIN + column - GAP + GROUP_GAP + group * (self._draws * column - GAP + GROUP_GAP) + draw * column

    def _put(self, left: int, row: int, image: Tensor, lines: Sequence[str]) -> None:
        top = self._top + row * self._row
        # A frame outside the image, since a white one would have no edge.
        self._pen.rectangle((left - 1, top - 1, left + self.side, top + self.side), outline=LINE)
        self._canvas.paste(self._shown(image), (left, top))
        for number, line in enumerate(lines):
            self._pen.text((left, top + self.side + GAP // 2 + number * self._line), line, FAINT, self._small)

    def _shown(self, image: Tensor) -> Image.Image:
        pixels = image.permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        if self.side < self.size:
            return picture.resize((self.side, self.side), Image.Resampling.LANCZOS)
        return picture.resize((self.side, self.side), Image.Resampling.NEAREST)

    def _fitting(self, name: str) -> str:
        """A file's name, its middle left out where it is too long."""
        clean = "".join(character if character.isprintable() else "?" for character in name)
        keep = len(clean)
        short = clean
        while keep > 1 and self._small.getlength(short) > self.cell:
            keep -= 1
            short = f"{clean[: (keep + 1) // 2]}…{clean[len(clean) - keep // 2 :]}"
        return short

    def _wrapped(self, text: str) -> list[str]:
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self._small.getlength(longer) > self._width - 2 * MARGIN:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines


def _font(size: int, file: str = "DejaVuSans.ttf") -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib; the basic layout is the same on every machine."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / file
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent
