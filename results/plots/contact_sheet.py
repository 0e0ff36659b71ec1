"""A sheet of images with captions: augmented images, sample images of a report, HARD's views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from results.plots.style import PAPER

MARGIN, GAP, BAND_GAP = 16, 8, 20
"""Distances in px: around the sheet, between images, and between bands."""

LEAST_SIDE, MOST_SIDE = 128, 256
"""Small images are enlarged by a whole number to about the first, large ones shrunk to the second; in px."""

LEAST_WIDTH = 480
"""Width of a sheet with few images in px, so that the legend has room."""

FRAME = 4
"""Width of the frame around a marked image in px."""


@dataclass(frozen=True)
class Text:
    """A line of text on a sheet: upper left pixel, text, font and color."""

    left: int
    top: int
    text: str
    font: ImageFont.FreeTypeFont
    color: str


class Cell:
    """An image in its size on the sheet, with its caption.

    Args:
        image: (C, H, W) uint8, gray or RGB. It is not kept, so that a sheet needs little memory.
        caption: Lines below the image.
        marked: True for a thick frame and a bold caption.
    """

    def __init__(self, image: Tensor, caption: Sequence[str] = (), *, marked: bool = False) -> None:
        """Bring the image to its size."""
        pixels = image.permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        scale = shown_side(max(picture.size)) / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        self.picture = picture.resize((width, height), way)
        self.caption = tuple(_printable(line) for line in caption)
        self.marked = marked


@dataclass(frozen=True, eq=False)
class Band:
    """Rows of images under one heading.

    Args:
        heading: What the images have in common.
        note: Details, in smaller letters behind the heading.
        rows: Rows of images; empty if there is nothing to show.
    """

    heading: str
    note: str = ""
    rows: tuple[tuple[Cell, ...], ...] = ()


class ContactSheet:
    """Bands of captioned images below each other, with a title and a legend.

    Args:
        title: First line.
        bands: Images, from top to bottom.
        legend: Text at the foot, wrapped.

    Example:
        >>> import torch
        >>> gray = torch.full((1, 8, 8), 128, dtype=torch.uint8)
        >>> sheet = ContactSheet("Images", [Band("epoch 0", rows=((Cell(gray, ["unchanged"]),),))])
        >>> sheet.draw().width
        512
    """

    def __init__(self, title: str, bands: Sequence[Band], legend: str = "") -> None:
        """Lay out the sheet, with room for every text."""
        self._title, self._bands = title, tuple(bands)
        cells = [cell for band in bands for row in band.rows for cell in row]
        self.side = max((max(cell.picture.size) for cell in cells), default=LEAST_SIDE)
        self._small, self._small_bold = _font(max(12, self.side // 16)), _font(max(12, self.side // 16), bold=True)
        self._bold, self._large = _font(max(14, self.side // 14), bold=True), _font(max(18, self.side // 11), bold=True)
        captions = [self._caption_font(cell).getlength(line) for cell in cells for line in cell.caption]
        self._column = ceil(max(self.side, *captions, 0)) + GAP
        columns = max((len(row) for band in bands for row in band.rows), default=1)
        headings = [self._note_offset(band) + self._small.getlength(band.note) for band in bands]
        room = max(columns * self._column - GAP, ceil(max([self._large.getlength(title), *headings])), LEAST_WIDTH)
        self.width = room + 2 * MARGIN
        self._heading_tops, self._row_tops, self._foot = self._layout()
        self._legend = self._wrap(legend)
        self.height = self._foot + len(self._legend) * _height(self._small) + MARGIN

    def corner(self, band: int, row: int, column: int) -> tuple[int, int]:
        """Return the upper left pixel (x, y) of an image."""
        return MARGIN + column * self._column, self._row_tops[band][row]

    def texts(self) -> Iterator[Text]:
        """Yield every text on the sheet."""
        yield Text(MARGIN, MARGIN, self._title, self._large, PAPER.ink)
        for number, band in enumerate(self._bands):
            top = self._heading_tops[number]
            yield Text(MARGIN, top, band.heading, self._bold, PAPER.ink)
            on_baseline = top + self._bold.getmetrics()[0] - self._small.getmetrics()[0]
            yield Text(MARGIN + self._note_offset(band), on_baseline, band.note, self._small, PAPER.faint)
            for left, upper, cell in self._placed_cells(number):
                for line, text in enumerate(cell.caption):
                    below = upper + self.side + GAP // 2 + line * _height(self._small)
                    yield Text(left, below, text, self._caption_font(cell), PAPER.ink if cell.marked else PAPER.faint)
        for line, text in enumerate(self._legend):
            yield Text(MARGIN, self._foot + line * _height(self._small), text, self._small, PAPER.faint)

    def draw(self) -> Image.Image:
        """Return the sheet as an image."""
        canvas = Image.new("RGB", (self.width, self.height), PAPER.page)
        pen = ImageDraw.Draw(canvas)
        for number in range(len(self._bands)):
            for left, top, cell in self._placed_cells(number):
                width, color = (FRAME, PAPER.control) if cell.marked else (1, PAPER.line)
                right, bottom = left + cell.picture.width - 1, top + cell.picture.height - 1
                # The frame is outside the image: it covers no pixel, and a white image has an edge.
                box = (left - width, top - width, right + width, bottom + width)
                pen.rectangle(box, outline=color, width=width)
                canvas.paste(cell.picture, (left, top))
        for text in self.texts():
            pen.text((text.left, text.top), text.text, text.color, text.font)
        return canvas

    def png(self) -> bytes:
        """Return the sheet as PNG; the same images and texts give the same bytes."""
        return self._encode("PNG")

    def jpeg(self) -> bytes:
        """Return the sheet as JPEG, which is smaller than PNG for photos."""
        return self._encode("JPEG", quality=88)

    def _encode(self, kind: str, **options: int) -> bytes:
        buffer = BytesIO()
        self.draw().save(buffer, kind, **options)
        return buffer.getvalue()

    def _layout(self) -> tuple[list[int], list[list[int]], int]:
        """Return the upper pixel of each heading, of each row of images, and of the legend."""
        headings: list[int] = []
        rows: list[list[int]] = []
        top = MARGIN + _height(self._large) + GAP
        for band in self._bands:
            headings.append(top)
            rows.append([])
            top += _height(self._bold) + GAP
            for row in band.rows:
                rows[-1].append(top)
                lines = max((len(cell.caption) for cell in row), default=0)
                top += self.side + GAP // 2 + lines * _height(self._small) + GAP
            top += BAND_GAP - GAP
        return headings, rows, top

    def _placed_cells(self, band: int) -> Iterator[tuple[int, int, Cell]]:
        for row, cells in enumerate(self._bands[band].rows):
            for column, cell in enumerate(cells):
                yield *self.corner(band, row, column), cell

    def _caption_font(self, cell: Cell) -> ImageFont.FreeTypeFont:
        return self._small_bold if cell.marked else self._small

    def _note_offset(self, band: Band) -> int:
        return ceil(self._bold.getlength(f"{band.heading}  ")) if band.heading else 0

    def _wrap(self, text: str) -> list[str]:
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self._small.getlength(longer) <= self.width - 2 * MARGIN:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines


def shown_side(size: int) -> int:
    """Return the side in px at which an image of `size` px is shown.

    Example:
        >>> [shown_side(size) for size in (8, 32, 100, 224, 512)]
        [128, 128, 100, 224, 256]
    """
    return min(size * max(1, round(LEAST_SIDE / size)), MOST_SIDE)


def shorten(name: str, most: int = 20) -> str:
    """Return a name of at most `most` characters, with an ellipsis in its middle if it is longer.

    Example:
        >>> shorten("a-very-long-file-name-indeed.png", 15)
        'a-very-…eed.png'
    """
    if len(name) <= most:
        return name
    tail = most // 2
    return f"{name[: most - tail - 1]}…{name[len(name) - tail :]}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return Matplotlib's own font; the basic layout engine is the same on every machine."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent
