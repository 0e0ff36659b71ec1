"""A ranking of augmentations by T. stddev, as data, as a table and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from results.analysis.tables import TextTable
from spaces.core.errors import RequestError


@dataclass(frozen=True)
class ScreeningResult:
    """The result of a screening.

    T. stddev is the standard deviation of the teacher's mean output over draws of images; lower values predict better
    students (Wang et al., 2022, https://arxiv.org/abs/2012.02909).

    Args:
        folder: Folder with everything that the screening wrote.
        tracking_uri: MLflow's store, without credentials.
        seconds: Duration.
        images: Number of images drawn for each mean; a mean is over two outputs for each of them.
        means: Number of means.
        stopped_early: True if every interval was narrow enough before all requested means were taken.
        rows: One mapping for each augmentation: the informative ones, the best first, then the others. Its keys are
            `label`, `augment`, `t_stddev` with `low` and `high`, `ratio` (to no augmentation) with `ratio_low` and
            `ratio_high`, `agreement`, `entropy`, `informative` and `seconds`.
        dropped: Labels of the augmentations that the sweep does not search.
    """

    folder: str
    tracking_uri: str
    seconds: float
    images: int
    means: int
    stopped_early: bool
    rows: tuple[Mapping[str, Any], ...]
    dropped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data; numbers that are not finite are null."""
        rows = [{key: _finite(value) for key, value in row.items()} for row in self.rows]
        return {**asdict(self), "rows": rows, "dropped": list(self.dropped)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScreeningResult:
        """Return the result that `to_json` wrote; a null is NaN.

        Raises:
            RequestError: These are other data.
        """
        try:
            rows = tuple(
                {key: math.nan if value is None else value for key, value in row.items()} for row in data["rows"]
            )
            return cls(**{**data, "rows": rows, "dropped": tuple(data["dropped"])})
        except (KeyError, TypeError, AttributeError) as error:
            rule = f"the result of a screening must hold its rows: {error!r}"
            raise RequestError(rule, hint="give the whole screening.json") from error

    def text_table(self) -> TextTable:
        """Return one row for each augmentation, in the order of the ranking."""
        rows = [
            [
                display_label(row, self.dropped),
                f"{1e3 * row['t_stddev']:.2f}",
                f"{row['ratio']:.3f} ({row['ratio_low']:.3f} … {row['ratio_high']:.3f})",
                f"{row['agreement']:.2f}",
            ]
            for row in self.rows
        ]
        return TextTable(["augmentation", "T. stddev ×1e-3", "ratio to identity", "agreement"], rows)

    def table(self) -> Table:
        """Return the ranking for a terminal, at most 80 columns wide but for long labels."""
        table = Table(header_style="bold", show_edge=False, pad_edge=False)
        table.add_column("augmentation", overflow="fold")  # a long label must not squeeze the numbers
        for heading in ("T. stddev\n×1e-3", "ratio to\nidentity", "agree-\nment", "entropy\nnats", "s"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(
                escape(display_label(row, self.dropped)),
                f"{1e3 * row['t_stddev']:.2f} ± {500 * (row['high'] - row['low']):.2f}",
                f"{row['ratio']:.3f} ± {(row['ratio_high'] - row['ratio_low']) / 2:.3f}",
                f"{row['agreement']:.2f}",
                f"{row['entropy']:.2f}",
                f"{row['seconds']:.1f}",
                style=None if row["informative"] else "dim",
            )
        return table

    def notes(self) -> list[str]:
        """Return how to read the ranking, its precision, and what it leaves out."""
        why = "every interval was narrow enough" if self.stopped_early else "the requested number"
        notes = [
            "Lower is better; ± is the half width of the 95 % confidence interval, paired for a ratio. A ratio whose "
            "interval contains 1 is not significantly different from no augmentation.",
            f"{self.means} means of {2 * self.images} outputs ({self.images} images, drawn with replacement): {why}.",
        ]
        if not any(row["informative"] for row in self.rows):
            notes.append("No augmentation is ranked: the teacher is hardly better than chance on these images.")
        elif uninformative := [row["label"] for row in self.rows if not row["informative"]]:
            names = ", ".join(uninformative)
            notes.append(f"Not ranked, because the teacher no longer recognizes the images: {names}.")
        if self.dropped:
            notes.append(f"Dropped before the search of the student: {', '.join(self.dropped)}.")
        return notes

    def markdown(self) -> str:
        """Return the table and the notes as Markdown."""
        return "\n".join([self.text_table().markdown(), "", *(f"- {note}" for note in self.notes())]) + "\n"


def display_label(row: Mapping[str, Any], dropped: tuple[str, ...]) -> str:
    """Return an augmentation's label, marked with `?` if it is not informative, and if it was dropped."""
    marks = [mark for mark, holds in (("?", not row["informative"]), ("dropped", row["label"] in dropped)) if holds]
    return f"{row['label']} ({', '.join(marks)})" if marks else str(row["label"])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
