"""A sweep as one page: a single HTML file that needs no network, drawn from the sweep's folder alone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import jinja2
from torch import Tensor

from results.analysis.cost import Cost, duration
from results.reporting import narrative
from results.reporting.sample_images import bands
from results.reporting.sections import against, chapters
from results.reporting.sweep_folder import SweepFolder
from spaces import RequestError
from spaces.core.io import write_atomic

TEMPLATE = "template.html.j2"


def report(
    folder: Path | str,
    output: Path | str | None = None,
    *,
    images: Tensor | None = None,
    no_images: str = "none were given",
    own: Collection[str] = (),
) -> Path:
    """Write a sweep's page.

    A sweep that has not ended gets a page of what it has found so far, which says so.

    Args:
        folder: the sweep's.
        output: the file to write; None: `report/index.html` in the folder.
        images: (B, C, H, W) uint8, some of the sweep's own, to be shown under its policies.
        no_images: where there are none, why.
        own: dotted names of augmentations and losses that the policies may hold; they are imported.

    Returns:
        The file.

    Raises:
        RequestError: it is no sweep's folder, nothing has happened in it yet, a file of it is damaged, or the place
            cannot be written to.
    """
    return write(SweepFolder.read(folder, own), output, images=images, no_images=no_images)


def write(
    sweep: SweepFolder,
    output: Path | str | None = None,
    *,
    images: Tensor | None = None,
    no_images: str = "none were given",
) -> Path:
    """As `report`, of a folder that was read before."""
    path = sweep.path / "report" / "index.html" if output is None else Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        raise RequestError("a report is HTML", value=str(path), hint="choose a name that ends in .html")
    return write_atomic(path, page(sweep, images, no_images))


def page(sweep: SweepFolder, images: Tensor | None = None, no_images: str = "") -> str:
    """The page itself; the arguments are those of `report`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "when": narrative.when}
    samples, why = _samples(sweep, images, no_images)
    return environment.get_template(TEMPLATE).render(
        sweep=sweep,
        question=narrative.question(sweep),
        facts=narrative.facts(sweep),
        answers=narrative.answers(sweep),
        notes=narrative.notes(sweep),
        against=against(sweep),
        chapters=chapters(sweep),
        samples=samples,
        no_images=why,
        cost=Cost.of(sweep.history) if sweep.history else None,
        failures=list(sweep.failures()),
        origin=narrative.origin(sweep),
    )


def _samples(sweep: SweepFolder, images: Tensor | None, why: str) -> tuple[dict[str, Any], str]:
    """By role, the images under its schedule; and why there are none."""
    if images is None:
        return {}, why
    found, why = {}, ""
    for role, schedule in sweep.schedules.items():
        try:
            found[role] = bands(schedule, images)
        except RequestError as error:
            why = str(error)
    return found, why
