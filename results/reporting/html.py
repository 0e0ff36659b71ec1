"""The HTML report of a sweep: one self-contained file, drawn from the sweep's folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import jinja2
from torch import Tensor

from results.analysis.cost import Cost, duration
from results.analysis.summary import front_notes
from results.plots.contact_sheet import Band, ContactSheet
from results.plots.image_grid import LEGEND, sample_bands
from results.plots.style import Picture
from results.reporting import narrative
from results.reporting.sections import baseline_figures, sections
from results.reporting.sweep_folder import SweepFolder
from spaces import RequestError
from spaces.core.io import write_atomic

TEMPLATE = "template.html.j2"

LOSSLESS_SIDE = 64
"""Sample images up to this side in px are embedded as PNG, larger ones as JPEG."""


def write_report(
    sweep: SweepFolder | Path | str,
    output: Path | str | None = None,
    *,
    images: Tensor | None = None,
    no_images: str = "none were given",
    own: Collection[str] = (),
) -> Path:
    """Write the HTML report of a sweep; that of an unfinished sweep shows what it has found so far.

    Args:
        sweep: Folder of a sweep, or its content.
        output: HTML file to write; None: `report/index.html` in the folder.
        images: (B, C, H, W) uint8: sample images to show under the schedules.
        no_images: Reason why there are none.
        own: Dotted names of custom augmentations and losses in the policies, which are imported.

    Returns:
        The file.

    Raises:
        RequestError: The folder is not that of a sweep, contains no results yet or a damaged file, or the report cannot
            be written.

    Example:
        >>> import json, tempfile
        >>> from results.analysis.summary import SweepResult
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "sweep.yaml").write_text("name: digits")
        ...     result = SweepResult("digits", folder, folder, "sqlite:///mlflow.db", "digits", seconds=75.0)
        ...     _ = Path(folder, "result.json").write_text(json.dumps(result.to_json()))
        ...     write_report(folder).name
        'index.html'
    """
    if not isinstance(sweep, SweepFolder):
        sweep = SweepFolder.read(sweep, own)
    path = sweep.path / "report" / "index.html" if output is None else Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        raise RequestError("a report must be an HTML file", value=str(path), hint="choose a name that ends in .html")
    return write_atomic(path, render_report(sweep, images, no_images))


def render_report(sweep: SweepFolder, images: Tensor | None = None, no_images: str = "") -> str:
    """Return the HTML; the arguments are those of `write_report`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "date": narrative.date}
    samples, no_images = _samples(sweep, images, no_images)
    return environment.get_template(TEMPLATE).render(
        sweep=sweep,
        subtitle=narrative.subtitle(sweep),
        facts=narrative.facts(sweep),
        summaries=narrative.summaries(sweep),
        front_notes=front_notes(sweep.result.roles) if sweep.result else [],
        baseline_figures=baseline_figures(sweep),
        sections=sections(sweep),
        samples=samples,
        no_images=no_images,
        cost=Cost.of(sweep.history) if sweep.history else None,
        failures=list(sweep.failures()),
        reproduction=narrative.reproduction(sweep),
    )


def _samples(sweep: SweepFolder, images: Tensor | None, no_images: str) -> tuple[dict[str, Picture], str]:
    """Return a sheet of sample images by role, and the reason for missing ones."""
    if images is None:
        return {}, no_images
    samples, no_images = {}, ""
    for role, schedule in sweep.schedules.items():
        try:
            bands = sample_bands(schedule, images)
        except RequestError as error:
            no_images = str(error)
            continue
        sheet = ContactSheet(f"Augmentation of the {role}", bands, LEGEND)
        alt = f"Sample images of the {role}: {_describe_bands(bands)}."
        if max(images.shape[2:]) <= LOSSLESS_SIDE:
            samples[role] = Picture(alt, sheet.png())
        else:
            samples[role] = Picture(alt, sheet.jpeg(), kind="image/jpeg")
    return samples, no_images


def _describe_bands(bands: list[Band]) -> str:
    """Return the captions of all images, and the notes of epochs without one."""
    parts = []
    for band in bands:
        captions = [", ".join(cell.caption) for row in band.rows for cell in row]
        parts += [f"image {n} at {band.heading}: {text}" for n, text in enumerate(captions, start=1) if text]
        if not band.rows:
            parts.append(f"{band.heading}: {band.note}")
    return "; ".join(parts) or "no image is changed"
