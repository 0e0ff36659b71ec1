"""A policy to look at: a table, a plot, and a grid of the user's own images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from results.analysis.schedule_table import Overview
from spaces import RequestError, Schedule
from spaces.core.io import write_atomic


def show(
    schedule: Schedule,
    *,
    plot: Path | str | None = None,
    grid: Path | str | None = None,
    images: Path | str | Sequence[Path | str] = (),
    epochs: Iterable[int] | None = None,
    rows: int = 8,
    draws: int = 2,
    seed: int = 0,
) -> Overview:
    """Look at a schedule; every picture is drawn before the first is written.

    Args:
        schedule: what to look at.
        plot: the PNG to draw the strengths over the epochs into.
        grid: the PNG to draw augmented images into.
        images: image files, and folders with image files anywhere below them, for the grid.
        epochs: which epochs the grid shows, counted from 0; None: the last one of each quarter.
        rows: how many images the grid shows at most; of more, some that are spread over all.
        draws: how often each image is augmented for each epoch.
        seed: of the grid's random numbers.

    Raises:
        RequestError: a file cannot be read or written, an epoch lies outside the schedule, or the request
            contradicts itself.
    """
    targets = [Path(target) for target in (plot, grid) if target is not None]
    for target in targets:
        check_png(target)
    if len(targets) == 2 and targets[0].resolve() == targets[1].resolve():
        raise RequestError("plot and grid are two files", value=str(grid), hint="choose another name for one of them")
    if grid is None and (images or epochs is not None):
        raise RequestError("images and epochs are for a grid", hint="say where to write it: --grid FILE.png")
    pictures = []
    if grid is not None:
        from results.plots.image_grid import grid_png

        content = grid_png(schedule, images, epochs=epochs, rows=rows, draws=draws, seed=seed, targets=targets)
        pictures.append((grid, content))
    if plot is not None:
        from results.plots.schedule import schedule_png

        pictures.append((plot, schedule_png(schedule)))
    for path, content in pictures:
        write_atomic(path, content)
    return Overview(schedule)


def check_png(path: Path | str) -> None:
    """Refuse a name that a picture cannot have.

    Raises:
        RequestError: it does not end in `.png`.
    """
    if Path(path).suffix.lower() != ".png":
        raise RequestError("pictures are written as PNG", value=str(path), hint="choose a name that ends in .png")


def parse_epochs(text: str) -> list[int]:
    """The epochs in `0,10,50`.

    Raises:
        RequestError: anything else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        rule = "epochs are whole numbers with commas between them"
        raise RequestError(rule, value=text, hint="write them as in 0,10,50") from error
