"""A grid of the user's own images under a schedule at some of its epochs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from operator import index
from pathlib import Path

from torch import Tensor

from results.plots.contact_sheet import Band, Cell, ContactSheet, shorten
from results.plots.image_files import find_images, load_image
from spaces import OPERATIONS, ImageSpec, Parameters, RequestError, Schedule, apply, sample
from spaces.core.io import write_atomic
from spaces.core.seeding import seeded_generator
from spaces.policy.sampling import NO_OPERATION

MOST_CELLS = 400
"""Largest number of augmented images in a grid."""

LARGEST = 8192
"""Largest side of an image in px; such an image and its augmented copy take 400 MB."""

LEGEND = "Below each image: the operations applied, in this order, with level; the sign is the direction."

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
    """Draw images before and after the augmentation of a schedule, as a PNG at `path`.

    The original images are side by side at the top; below them, for each of `epochs`, are `draws` rows of augmented
    images with the operations applied. They are the same as `schedule.transform(epoch, seed=seed)` gives for a batch
    that repeats every image `draws` times in succession.

    Args:
        schedule: Schedule to show.
        images: Image files, and folders with image files at any depth.
        path: PNG file to write.
        epochs: Epochs to show, from 0; None: the last one of each quarter.
        rows: Largest number of images; of more, a spread over all is shown.
        draws: Number of augmented images for each image and epoch.
        seed: Seed of the augmentation draws.

    Returns:
        `path`.

    Raises:
        RequestError: An image cannot be read, an epoch is outside the schedule, the grid is too large, or the file
            cannot be written.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from spaces import Entry, Genome, Phase, Policy
        >>> rotate = Genome(Policy((Entry("Rotate", 10, 9),)))
        >>> schedule = Schedule((Phase(4, rotate),), "student", ImageSpec(8, 1, (0,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (8, 8), 100).save(f"{folder}/image.png")
        ...     plot_grid(schedule, folder, f"{folder}/grid.png", epochs=[3]).name
        'grid.png'
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
    """Return the PNG that `plot_grid` writes; the same request gives the same bytes.

    Args and Raises as for `plot_grid`; `targets` are the files that will be written, which must not be images shown.
    """
    if not images:
        raise RequestError("a grid needs images", hint="name files or folders: --images PATH")
    chosen = default_epochs(schedule.epochs) if epochs is None else _check_epochs(epochs, schedule.epochs)
    found = find_images(images)
    _check_targets(found, [Path(target) for target in targets])
    files = [Path(file) for file in spread(found, rows)]
    spec = schedule.image
    _check_size(spec, len(files), len(chosen), draws)
    sampled = [sample(schedule.at(epoch).policy, len(files) * draws, seeded_generator(seed, epoch)) for epoch in chosen]
    originals: list[Cell] = []
    augmented: list[list[list[Cell]]] = [[[] for _ in range(draws)] for _ in chosen]
    for number, file in enumerate(files):  # one at a time: they may be large
        image = load_image(file, spec)
        originals.append(Cell(image, [shorten(file.name)]))
        for parameters, by_draw in zip(sampled, augmented, strict=True):
            for draw, row in enumerate(by_draw):
                one = number * draws + draw
                row.append(augmented_cell(image, parameters[one : one + 1], spec))
    bands = [Band("original", rows=(tuple(originals),))]
    bands += [
        Band(*epoch_heading(schedule, epoch), tuple(map(tuple, by_draw)))
        for epoch, by_draw in zip(chosen, augmented, strict=True)
    ]
    legend = LEGEND
    if any(schedule.at(epoch).has_view for epoch in chosen):
        legend += " The second view of these epochs is not shown."
    if len(files) < len(found):
        legend += f" {len(files):,} of {len(found):,} images."
    return ContactSheet(f"Augmentation of the {schedule.role}", bands, legend).png()


def sample_bands(schedule: Schedule, images: Tensor, seed: int = 0) -> list[Band]:
    """Return images before augmentation, and at the last epoch of each quarter under the policy and in the second view.

    A second view that needs a network's predictions, or that is still to be learned, is left out.

    Args:
        schedule: Schedule to show.
        images: (B, C, H, W) uint8.
        seed: Seed of the augmentation draws, the same as in `schedule.transform(epoch, seed=seed)`.

    Raises:
        RequestError: The images do not have the channels of the schedule.
    """
    if images.ndim != 4 or images.shape[1] != schedule.image.channels:
        rule = f"the {schedule.role}'s policy needs images (B, {schedule.image.channels}, H, W)"
        raise RequestError(rule, value=tuple(images.shape))
    bands = [Band("original", rows=(tuple(map(Cell, images)),))]
    unchanged: list[int] = []
    for epoch in default_epochs(schedule.epochs):
        shown = list(_bands_at(schedule, epoch, images, seed))
        if shown:
            bands += [*_unchanged_band(unchanged), *shown]
            unchanged = []
        else:
            unchanged.append(epoch)
    return [*bands, *_unchanged_band(unchanged)]


def _bands_at(schedule: Schedule, epoch: int, images: Tensor, seed: int) -> Iterator[Band]:
    genome, augmented = schedule.at(epoch), images
    if not genome.policy.is_identity:
        parameters = sample(genome.policy, len(images), seeded_generator(seed, epoch))
        augmented = apply(images, parameters, schedule.image.fill)
        cells = [
            Cell(image, describe_operations(parameters[number : number + 1]) or ["unchanged"])
            for number, image in enumerate(augmented)
        ]
        yield Band(*epoch_heading(schedule, epoch), (tuple(cells),))
    view = schedule.second_view(epoch, seed=seed)
    if view is None or genome.augment.scored_by:
        return
    with suppress(RequestError):  # the view is still to be learned, or needs more images
        mixed = view(augmented)
        pairs = zip(mixed.first.tolist(), mixed.second.tolist(), mixed.weight.tolist(), strict=True)
        captions = [[f"{100 * share:.0f} % image {a + 1}"] if a != b and share < 1 else [] for a, b, share in pairs]
        note = f"second view: {genome.augment.to_json()['kind']}"
        yield Band(f"epoch {epoch}", note, (tuple(map(Cell, mixed.images, captions)),))


def _unchanged_band(epochs: Sequence[int]) -> Iterator[Band]:
    if epochs:
        heading = f"epoch{'s' if len(epochs) > 1 else ''} {', '.join(map(str, epochs))}"
        yield Band(heading, "no operation is active, no image is changed")


def augmented_cell(image: Tensor, parameters: Parameters, spec: ImageSpec) -> Cell:
    """Return one image (C, H, W) under the operations of one row of parameters, with their names as caption."""
    augmented = apply(image.unsqueeze(0), parameters, spec.fill).squeeze(0)
    return Cell(augmented, describe_operations(parameters) or ["unchanged"])


def epoch_heading(schedule: Schedule, epoch: int) -> tuple[str, str]:
    """Return heading and note of an epoch's images."""
    return f"epoch {epoch}", f"mean strength {schedule.at(epoch).policy.mean_strength():.2f}"


def default_epochs(epochs: int) -> list[int]:
    """Return the last epoch of each quarter, without repetition.

    Example:
        >>> default_epochs(24)
        [5, 11, 17, 23]
    """
    return sorted({max(0, epochs * quarter // 4 - 1) for quarter in range(1, 5)})


def describe_operations(parameters: Parameters) -> list[str]:
    """Return the operations applied to the first image of `parameters`, in order, with level and sign where used."""
    lines = []
    columns = (parameters.operations, parameters.levels, parameters.signs)
    for number, level, sign in zip(*(column[0].tolist() for column in columns), strict=True):
        if number != NO_OPERATION:
            operation = OPERATIONS[_NAMES[number]]
            signed = f" {'−' if operation.signed and level and sign < 0 else ''}{level}"
            lines.append(operation.name + (signed if operation.uses_level else ""))
    return lines


def spread(files: Sequence[str], most: int) -> list[str]:
    """Return at most `most` of `files`, evenly spread, so that folders by class are all represented.

    Raises:
        RequestError: `most` is below 1.
    """
    if most < 1:
        raise RequestError("rows must be >= 1", value=most, hint="ask for one image or more")
    count = min(most, len(files))
    return [files[row * len(files) // count] for row in range(count)]


def _check_epochs(epochs: Iterable[int], end: int) -> list[int]:
    try:
        chosen = list(dict.fromkeys(index(epoch) for epoch in epochs))
    except TypeError as error:
        raise RequestError("epochs must be whole numbers", value=epochs) from error
    for epoch in chosen:
        if not 0 <= epoch < end:
            raise RequestError(f"epochs must be 0 to {end - 1} for this schedule", value=epoch)
    if not chosen:
        raise RequestError("epochs must name at least one epoch", value=chosen)
    return chosen


def _check_targets(files: Sequence[str], targets: Sequence[Path]) -> None:
    for target in targets:
        for file in files:
            with suppress(OSError):  # usually there is no such file yet
                if file.endswith(target.name) and target.samefile(file):
                    raise RequestError(f"{target} must not be one of the images shown", hint="write to another file")


def _check_size(spec: ImageSpec, rows: int, epochs: int, draws: int) -> None:
    if draws < 1:
        raise RequestError("draws must be >= 1", value=draws)
    if rows * epochs * draws > MOST_CELLS:
        rule = f"a grid must have at most {MOST_CELLS} augmented images"
        request = f"{rows} rows × {epochs} epochs × {draws} draws"
        raise RequestError(rule, value=request, hint="ask for fewer rows, epochs or draws")
    if spec.size > LARGEST:
        raise RequestError(f"images of a grid must be at most {LARGEST} px wide", value=spec.size)
