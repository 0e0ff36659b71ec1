"""Tables of text cells, rendered as Markdown, in a terminal and in the HTML report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only a terminal needs rich
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """A table of text cells.

    Args:
        headings: Column headings.
        rows: One sequence of cells for each row, as long as `headings`.
        numbers: Indices of the right-aligned columns; None: all but the first.

    Example:
        >>> print(TextTable(["arm", "test, %"], [["no augmentation", "91.20"]]).markdown())
        | arm | test, % |
        | --- | ---: |
        | no augmentation | 91.20 |
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] | None = None

    def is_number(self, column: int) -> bool:
        """Return True if `column` is right-aligned."""
        return column > 0 if self.numbers is None else column in self.numbers

    def markdown(self) -> str:
        """Return the table as Markdown, without a final line break."""
        rules = ["---:" if self.is_number(column) else "---" for column in range(len(self.headings))]
        return "\n".join("| " + " | ".join(line) + " |" for line in (self.headings, rules, *self.rows))

    def for_terminal(self, row_styles: Sequence[str] = ()) -> Table:
        """Return the table for rich.

        Args:
            row_styles: One of rich's styles for each row; empty: plain rows.
        """
        from rich.table import Table

        table = Table(header_style="bold", show_edge=False, pad_edge=False)
        for column, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if self.is_number(column) else "left", overflow="fold")
        for row, style in zip(self.rows, row_styles or [""] * len(self.rows), strict=True):
            table.add_row(*row, style=style)
        return table


def format_percent(fraction: float, half_width: float | None = None) -> str:
    """Return a fraction in percent with two decimals, and the half width of its interval where there is one.

    Example:
        >>> format_percent(0.912, 0.0345)
        '91.20 ± 3.45'
    """
    percent = f"{100 * fraction:.2f}"
    return percent if half_width is None else f"{percent} ± {100 * half_width:.2f}"
