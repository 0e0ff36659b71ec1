"""Images under a schedule, one by one with what was done to each: the grid of `results.plots.image_grid`, for a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from PIL import Image
from torch import Tensor

from results.plots.image_grid import default_epochs, told
from results.plots.style import Picture
from spaces import RequestError, Schedule, apply, sample
from spaces.core.seeding import seeded_generator

LARGEST = 128
"""px; larger images are shrunk to it."""

SMALL = 64
"""px; up to this size a picture keeps its very pixels, above it is a JPEG."""


@dataclass(frozen=True)
class Band:
    """A row of images.

    Args:
        heading: what they have in common.
        note: more of it, smaller.
        cells: each image, and the words below it; none where nothing is to be seen.
    """

    heading: str
    note: str
    cells: tuple[tuple[Picture, str], ...] = ()


def bands(schedule: Schedule, images: Tensor, seed: int = 0) -> list[Band]:
    """The images as they are, and at the last epoch of each quarter under the policy, and in the second view.

    A second view that needs a network's answers, or has not learned yet, is left out.

    Args:
        schedule: says what is applied.
        images: (B, C, H, W) uint8.
        seed: of the random numbers; they are those of `schedule.transform(epoch, seed=seed)`.

    Raises:
        RequestError: the images have other channels than the schedule's.
    """
    if images.ndim != 4 or images.shape[1] != schedule.image.channels:
        rule = f"the {schedule.role}'s policy is for images of {schedule.image.channels} channels"
        raise RequestError(rule, value=tuple(images.shape))
    found = [_band("as they are", "", images, [""] * len(images), "unchanged")]
    idle: list[int] = []
    for epoch in default_epochs(schedule.epochs):
        shown = list(_at(schedule, epoch, images, seed))
        if shown:
            found += [*_idle(idle), *shown]
            idle = []
        else:
            idle.append(epoch)
    return [*found, *_idle(idle)]


def _at(schedule: Schedule, epoch: int, images: Tensor, seed: int) -> Iterator[Band]:
    """What is to be seen at an epoch."""
    genome, heading, seen = schedule.at(epoch), f"epoch {epoch}", images
    if not genome.policy.is_identity:
        parameters = sample(genome.policy, len(images), seeded_generator(seed, epoch))
        seen = apply(images, parameters, schedule.image.fill)
        words = [", ".join(told(parameters[row : row + 1])) or "unchanged" for row in range(len(images))]
        note = f"mean strength {genome.policy.mean_strength():.2f}"
        yield _band(heading, note, seen, words, f"at {heading}")
    view = schedule.second_view(epoch, seed=seed)
    if view is None or genome.augment.scored_by:
        return
    with suppress(RequestError):  # it is still to be learned, or wants more images
        made = view(seen)
        pairs = zip(made.first.tolist(), made.second.tolist(), made.weight.tolist(), strict=True)
        words = [f"{100 * share:.0f} % image {a + 1}" if a != b and share < 1 else "" for a, b, share in pairs]
        note = f"second view: {genome.augment.to_json()['kind']}"
        yield _band(heading, note, made.images, words, f"in the second view at {heading}")


def _idle(epochs: Sequence[int]) -> Iterator[Band]:
    if epochs:
        heading = f"epoch{'s' if len(epochs) > 1 else ''} {', '.join(map(str, epochs))}"
        yield Band(heading, "no operation is in force, no image is changed")


def _band(heading: str, note: str, images: Tensor, words: Sequence[str], where: str) -> Band:
    cells = [
        (_picture(image, f"image {number} {where}{f': {said}' if said else ''}"), said)
        for number, (image, said) in enumerate(zip(images, words, strict=True), start=1)
    ]
    return Band(heading, note, tuple(cells))


def _picture(image: Tensor, alt: str) -> Picture:
    """An image (C, H, W) uint8 as a small file."""
    pixels = image.permute(1, 2, 0).numpy()
    drawn = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    small = max(drawn.size) <= SMALL
    drawn.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if small:
        drawn.save(buffer, "PNG", optimize=True)
        return Picture(alt, buffer.getvalue())
    drawn.save(buffer, "JPEG", quality=88)
    return Picture(alt, buffer.getvalue(), kind="image/jpeg")
