"""A view of a policy: a table, a plot, and a grid of augmented images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from results.analysis.schedule_table import ScheduleTable
from spaces import RequestError, Schedule
from spaces.core.io import write_atomic


def describe_policy(
    schedule: Schedule,
    *,
    plot: Path | str | None = None,
    grid: Path | str | None = None,
    images: Path | str | Sequence[Path | str] = (),
    epochs: Iterable[int] | None = None,
    rows: int = 8,
    draws: int = 2,
    seed: int = 0,
) -> ScheduleTable:
    """Return the table of a schedule, and write a plot and a grid of augmented images if asked.

    Every picture is drawn before the first one is written.

    Args:
        schedule: Schedule to describe.
        plot: PNG file for the strengths over the epochs.
        grid: PNG file for the augmented images.
        images: Image files, and folders with image files at any depth, for the grid.
        epochs: Epochs of the grid, from 0; None: the last one of each quarter.
        rows: Largest number of images in the grid; of more, a spread over all is shown.
        draws: Number of augmented images for each image and epoch.
        seed: Seed of the grid's augmentation draws.

    Raises:
        RequestError: A file cannot be read or written, an epoch is outside the schedule, or the arguments contradict
            each other.

    Example:
        >>> from spaces import Entry, Genome, ImageSpec, Phase, Policy
        >>> rotate = Genome(Policy((Entry("Rotate", 5, 8),)))
        >>> table = describe_policy(Schedule((Phase(4, rotate),), "student", ImageSpec(8, 1, (0,))))
        >>> [(row.op, row.strength) for row in table.rows]
        [('Rotate', 4.0)]
    """
    targets = [Path(target) for target in (plot, grid) if target is not None]
    for target in targets:
        check_png(target)
    if len(targets) == 2 and targets[0].resolve() == targets[1].resolve():
        raise RequestError("plot and grid must be different files", value=str(grid), hint="rename one of them")
    if grid is None and (images or epochs is not None):
        raise RequestError("images and epochs need a grid", hint="add --grid FILE.png")
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
    return ScheduleTable(schedule)


def check_png(path: Path | str) -> None:
    """Check that a file name ends in `.png`.

    Raises:
        RequestError: It does not.
    """
    if Path(path).suffix.lower() != ".png":
        raise RequestError("a picture must be a PNG file", value=str(path), hint="choose a name that ends in .png")


def parse_epochs(text: str) -> list[int]:
    """Parse epochs separated by commas.

    Raises:
        RequestError: The text is not a list of whole numbers.

    Example:
        >>> parse_epochs("0,10,50")
        [0, 10, 50]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        rule = "epochs must be whole numbers separated by commas"
        raise RequestError(rule, value=text, hint="for example 0,10,50") from error
