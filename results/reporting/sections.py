"""The chapters of a report that are made of pictures: schedules, lineage, curves, T. stddev, choices, HARD's game."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from matplotlib.figure import Figure

from results.analysis.evaluation import evaluation_png
from results.analysis.schedule_table import Overview
from results.plots.curves import curves, scatter
from results.plots.lineage import family_figure
from results.plots.schedule import schedule_figure
from results.plots.style import Picture, Style, picture
from results.reporting.sweep_folder import SweepFolder
from results.runlog.lineage import Family
from results.runlog.members import StageHistory
from spaces import Schedule

NARROW = 5.6
"""Inches of a schedule's picture."""

TOLD = 5
"""How many operations the words beside it name."""

HARD = {
    "hard.grid.png": (
        "images and their views",
        "images with the teacher's answer, and below each its view with what both answer; where they differ, the frame "
        "is thick and ≠ stands beside",
    ),
    "hard.parameters.png": ("what it draws", "the distribution of every parameter that is drawn, over the epochs"),
    "hard.phases.png": ("the phases", "the phases of the game in time, the student's steps and the augmentor's"),
}


@dataclass(frozen=True)
class Table:
    """Rows of cells below their headings; the columns from `numbers` on are set to the right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1


@dataclass(frozen=True)
class ReportFigure:
    """A picture with what belongs to it, each of which may be missing."""

    heading: str
    picture: Picture | None = None
    notes: Sequence[str] = ()
    table: Table | None = None
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Plates under a title, with a sentence on how to read them; `anchor` is its name in addresses."""

    anchor: str
    title: str
    lead: str
    plates: list[ReportFigure] = field(default_factory=list)


def chapters(sweep: SweepFolder) -> list[Section]:
    """Those that have something to show, in order."""
    found = [
        Section(
            "schedules",
            "What each role sees",
            "Strength is probability × level, from 0 to 9, epoch by epoch along the winner's line of ancestors. "
            "A search starts from no augmentation, so a schedule shows when a role begins to profit from which.",
            [_schedule(role, schedule) for role, schedule in sweep.schedules.items()]
            + [
                ReportFigure(f"{role}", notes=[f"Its policy is left out: {why}"]) for role, why in sweep.refused.items()
            ],
        ),
        Section(
            "lineage",
            "Who descends from whom",
            "One row a member, from left to right the epochs; the scale beside it gives a cell's score, hatched is not "
            "scored. Arrows lead from who was copied to who goes on from there, the orange line through the ancestors "
            "of the best: what was in force along it is the schedule.",
            list(_families(sweep)),
        ),
        Section(
            "curves",
            "The population over the epochs",
            "Thin: every member. Thick: the median, in a band from the lower to the upper quartile, as long as half of "
            "the members are scored. Dashed: the random control, fixed genomes drawn once.",
            list(_each(sweep, curves)),
        ),
        Section(
            "t-stddev",
            "T. stddev and accuracy",
            "T. stddev says how far the teacher's mean answer wanders from one handful of images to the next, here "
            "over what it is without augmentation: lower should be better (Wang et al. 2022).",
            list(_each(sweep, scatter)),
        ),
        Section("choices", "Which choices suit this pair", "Members by what they chose.", list(_choices(sweep))),
        Section(
            "hard",
            "HARD's game",
            "The augmentor seeks views on which the student's answer is far from the teacher's while the teacher keeps "
            "its own; then the student learns them.",
            list(_games(sweep)),
        ),
    ]
    return [chapter for chapter in found if chapter.plates]


def against(sweep: SweepFolder) -> list[ReportFigure]:
    """What each role's policies reached beside baselines; what may be claimed is the first of the notes."""
    found = []
    for role, evaluation in sweep.evaluations.items():
        known = [arm for arm in evaluation.arms if not math.isnan(arm.mean)]
        means = ", ".join(f"{arm.name} {100 * arm.mean:.2f}" for arm in sorted(known, key=lambda arm: -arm.mean))
        alt = f"Test accuracy of the {role} by arm, mean over {evaluation.seeds} seeds in percent: {means}."
        drawn = Picture(alt, evaluation_png(evaluation))
        found.append(ReportFigure(f"The {role}", drawn, evaluation.notes(), _table(evaluation.markdown()), wide=True))
    return found


def _schedule(role: str, schedule: Schedule) -> ReportFigure:
    seen = Overview(schedule)
    strongest = ", ".join(f"{row.op} {row.strength:.2f}" for row in seen.rows[:TOLD])
    alt = (
        f"Strength of each operation over the {schedule.epochs} epochs of the {role}'s schedule: mean strength "
        f"{schedule.mean_strength():.2f}; "
        + (f"strongest on average {strongest}." if strongest else "none is in force.")
    )
    rows = [
        [
            row.op,
            f"{row.probability:.2f}",
            "–" if row.level is None else f"{row.level:.1f}",
            f"{row.strength:.2f}",
            str(row.first_epoch),
        ]
        for row in seen.rows
    ]
    table = Table(["operation", "mean probability", "mean level", "mean strength", "first epoch"], rows)
    # The first note explains the strip of the terminal's table, which is not shown here.
    notes = [note for note in seen.notes() if not note.startswith("▁")]
    if schedule.provenance.get("unfinished"):
        notes.insert(0, "so far: the best at the last perturbation, the search goes on")
    drawn = picture(partial(_figure, schedule), alt) if rows else None
    if not rows:
        notes.insert(0, "no operation is ever in force")
    return ReportFigure(f"The {role}", drawn, notes, table if rows else None)


def _figure(schedule: Schedule, theme: Style) -> Figure:
    return schedule_figure(schedule, " ", theme, NARROW)


def _family(family: Family, theme: Style) -> Figure:
    return family_figure(family, " ", theme, NARROW)


def _each(sweep: SweepFolder, draw: Callable[[Sequence[StageHistory]], Picture | None]) -> Iterator[ReportFigure]:
    """A plate for each role that `draw` can draw something of its searches for."""
    for role in sweep.roles:
        if drawn := draw(sweep.searches(role)):
            yield ReportFigure(f"The {role}", drawn)


def _families(sweep: SweepFolder) -> Iterator[ReportFigure]:
    """A picture for each search whose members copy each other."""
    for role in sweep.roles:
        for stage in sweep.searches(role):
            if stage.perturbations:
                family = stage.family()
                drawn = picture(partial(_family, family), f"Who copied whom. {family}.")
                yield ReportFigure(f"The {role}", drawn, [str(family)])


def _choices(sweep: SweepFolder) -> Iterator[ReportFigure]:
    """What the search wrote of choices, sizes and screening, each a picture and its table."""
    for path in sorted((sweep.path / "report").glob("*.png")):
        kind, _, role = path.stem.partition(".")
        heading = {
            "choices": f"The {role}'s members by what they chose",
            "pareto": f"The {role}'s members by size and accuracy",
            "screening": "Screening by T. stddev, before any student was trained",
        }.get(kind)
        if heading is None:
            continue
        words = path.with_suffix(".md")
        table = _table(words.read_text("utf-8") if words.is_file() else "")
        best = ", ".join(map(" ".join, zip(table.headings, table.rows[0], strict=False))) if table else ""
        alt = f"{heading}. First of its table: {best}." if best else f"{heading}."
        yield ReportFigure(heading, Picture(alt, path.read_bytes()), table=table, wide=True)


def _table(text: str) -> Table | None:
    """The first table in Markdown; None: there is none."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("|")), None)
    if start is None:
        return None
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return Table(rows[0], rows[2:], numbers=len(rows[0])) if len(rows) > 2 else None


def _games(sweep: SweepFolder) -> Iterator[ReportFigure]:
    """The pictures of the winner's game; where it played none, of the first member that did."""
    folders = sorted(path for path in (sweep.path / "report" / "hard").glob("*") if path.is_dir())
    if not folders:
        return
    winners = {str(schedule.provenance.get("run")) for schedule in sweep.schedules.values()}
    shown = next((folder for folder in folders if folder.name in winners), folders[0])
    won = " (the winner)" if shown.name in winners else " (the winner played no game)"
    for name, (heading, what) in HARD.items():
        if (shown / name).is_file():
            drawn = Picture(f"{shown.name}{won}: {what}.", (shown / name).read_bytes())
            yield ReportFigure(f"{shown.name}{won}: {heading}", drawn, wide=True)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders if folder != shown)
        yield ReportFigure("", notes=[f"Likewise for {names}: in report/hard/ of the sweep's folder."])
