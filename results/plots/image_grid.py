"""A grid of images under a schedule at some of its epochs: what a role really sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from operator import index
from pathlib import Path

from torch import Tensor

from results.plots.contact_sheet import ContactSheet
from results.plots.image_files import find_images, load_image
from spaces import OPERATIONS, ImageSpec, Parameters, RequestError, Schedule, apply, sample
from spaces.core.io import write_atomic
from spaces.core.seeding import seeded_generator
from spaces.policy.sampling import NO_OPERATION

MOST_CELLS = 400
"""Augmented images in one grid; more would be neither looked at nor held in memory."""

LARGEST = 8192
"""px; an image of this size and its augmented copy are 400 MB."""

_NAMES = tuple(OPERATIONS)


def plot_grid(
    schedule: Schedule,
    images: Path | str | Sequence[Path | str],
    path: Path | str,
    *,
    epochs: Iterable[int] | None = None,
    rows: int = 8,
    draws: int = 2,
    seed: int = 0,
) -> Path:
    """Draw images as they are and as the schedule augments them, as a PNG at `path`.

    One row an image: first the original, then `draws` augmented ones for each of `epochs`, each with what was applied
    to it. They are what `schedule.transform(epoch, seed=seed)` makes of a batch with every image `draws` times in
    succession.

    Args:
        schedule: says what is applied.
        images: image files, and folders with image files anywhere below them.
        path: where to write.
        epochs: counted from 0; None: the last one of each quarter.
        rows: images at most; of more, some that are spread over all.
        draws: augmented images of each image and epoch.
        seed: of the random numbers.

    Raises:
        RequestError: an image cannot be read, an epoch lies outside the schedule, the grid is too large, or the place
            cannot be written to.
    """
    content = grid_png(schedule, images, epochs=epochs, rows=rows, draws=draws, seed=seed, targets=[path])
    return write_atomic(path, content)


def grid_png(
    schedule: Schedule,
    images: Path | str | Sequence[Path | str],
    *,
    epochs: Iterable[int] | None = None,
    rows: int = 8,
    draws: int = 2,
    seed: int = 0,
    targets: Sequence[Path | str] = (),
) -> bytes:
    """The picture that `plot_grid` writes; the same request gives the same bytes.

    Args and Raises: as `plot_grid`; `targets` are the files that will be written, which must be none of the images.
    """
    if not images:
        raise RequestError("a grid shows images of yours", hint="name files or folders: --images PATH")
    chosen = default_epochs(schedule.epochs) if epochs is None else _checked(epochs, schedule.epochs)
    found = find_images(images)
    _check_targets(found, [Path(target) for target in targets])
    files = [Path(file) for file in spread(found, rows)]
    spec = schedule.image
    _check_size(spec, len(files), len(chosen), draws)
    drawn = [sample(schedule.at(epoch).policy, len(files) * draws, seeded_generator(seed, epoch)) for epoch in chosen]
    sheet = ContactSheet(spec.size, [_heading(schedule, epoch) for epoch in chosen], len(files), draws)
    for row, file in enumerate(files):  # one at a time: they may be large
        image = load_image(file, spec)
        sheet.put_original(row, image, file.name)
        for group, parameters in enumerate(drawn):
            for draw in range(draws):
                at = row * draws + draw
                own = parameters[at : at + 1]
                sheet.put(row, group, draw, _applied(image, own, spec), told(own) or ["unchanged"])
    legend = "Below each image: what was applied, in this order, and its level; the sign is the direction."
    if any(schedule.at(epoch).has_view for epoch in chosen):
        legend += " The second view of these epochs is not shown."
    if len(files) < len(found):
        legend += f" {len(files):,} of {len(found):,} images."
    return sheet.png(f"What the {schedule.role} sees", legend)


def default_epochs(epochs: int) -> list[int]:
    """The last epoch of each quarter, without repetition."""
    return sorted({max(0, epochs * quarter // 4 - 1) for quarter in range(1, 5)})


def told(parameters: Parameters) -> list[str]:
    """What is applied to the first image of `parameters`, in order: names, with level and sign where these matter."""
    lines = []
    columns = (parameters.operations, parameters.levels, parameters.signs)
    for place, level, sign in zip(*(column[0].tolist() for column in columns), strict=True):
        if place != NO_OPERATION:
            operation = OPERATIONS[_NAMES[place]]
            number = f" {'−' if operation.signed and level and sign < 0 else ''}{level}"
            lines.append(operation.name + (number if operation.uses_level else ""))
    return lines


def spread(files: Sequence[str], most: int) -> list[str]:
    """At most `most` of `files`, evenly spread: of a folder for each class, not only the first class.

    Raises:
        RequestError: fewer than one are asked for.
    """
    if most < 1:
        raise RequestError("a grid has one row or more", value=most)
    count = min(most, len(files))
    return [files[row * len(files) // count] for row in range(count)]


def _checked(epochs: Iterable[int], end: int) -> list[int]:
    try:
        chosen = list(dict.fromkeys(index(epoch) for epoch in epochs))
    except TypeError as error:
        raise RequestError("epochs are whole numbers", value=epochs) from error
    for epoch in chosen:
        if not 0 <= epoch < end:
            raise RequestError(f"this schedule covers the epochs 0 to {end - 1}", value=epoch)
    if not chosen:
        raise RequestError("a grid shows one epoch or more", value=chosen)
    return chosen


def _check_targets(files: Sequence[str], targets: Sequence[Path]) -> None:
    for target in targets:
        for file in files:
            with suppress(OSError):  # most often there is no such file yet
                if file.endswith(target.name) and target.samefile(file):
                    rule = f"{target} is one of the images that the grid is made from"
                    raise RequestError(rule, hint="write to another place")


def _check_size(spec: ImageSpec, rows: int, epochs: int, draws: int) -> None:
    if draws < 1:
        raise RequestError("each image is augmented once or more", value=draws)
    if rows * epochs * draws > MOST_CELLS:
        rule = f"a grid holds at most {MOST_CELLS} augmented images"
        got = f"{rows} rows × {epochs} epochs × {draws} draws"
        raise RequestError(rule, value=got, hint="ask for fewer rows, epochs or draws")
    if spec.size > LARGEST:
        raise RequestError(f"a grid is drawn for images of at most {LARGEST} px", value=spec.size)


def _heading(schedule: Schedule, epoch: int) -> tuple[str, str]:
    return f"epoch {epoch}", f"mean strength {schedule.at(epoch).policy.mean_strength():.2f}"


def _applied(image: Tensor, parameters: Parameters, spec: ImageSpec) -> Tensor:
    return apply(image.unsqueeze(0), parameters, spec.fill).squeeze(0)
