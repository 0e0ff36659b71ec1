"""The sections of a report that show figures: schedules, lineage, accuracy, T. stddev, choices and HARD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from matplotlib.figure import Figure

from results.analysis.choices import best_members_table
from results.analysis.confirmation import confirmation_table, describe_confirmation, describe_headroom
from results.analysis.pareto import pareto_table
from results.analysis.schedule_table import ScheduleTable
from results.analysis.tables import TextTable
from results.plots.choices import choices_figure
from results.plots.curves import accuracy_picture, t_stddev_picture
from results.plots.effects import effects_figure
from results.plots.evaluation import evaluation_figure
from results.plots.lineage import lineage_figure
from results.plots.pareto import pareto_figure
from results.plots.schedule import schedule_figure
from results.plots.screening import screening_figure
from results.plots.style import Picture, Style, draw_picture
from results.reporting.sweep_folder import SweepFolder
from results.runlog.lineage import Lineage
from results.runlog.members import StageHistory
from spaces import Schedule
from spaces.schedule.schedule import ROLES

NARROW = 5.6
"""Width in inches of figures that stand side by side."""

OPERATIONS_IN_ALT = 5
"""Number of operations in the description of a schedule."""

HARD = {
    "hard.grid.png": (
        "views",
        "images with the teacher's prediction, and below each its view with the predictions of teacher and student; a "
        "thick frame and ≠ mark different predictions",
    ),
    "hard.parameters.png": ("parameters", "distribution of every parameter of the augmentor over the epochs"),
    "hard.phases.png": ("phases", "running disagreement and steps of the augmentor over the student's steps"),
}


@dataclass(frozen=True)
class ReportFigure:
    """A picture with notes and a table, each of which may be missing.

    Args:
        heading: Heading.
        picture: Picture.
        notes: Sentences below the picture.
        table: The numbers of the picture.
        wide: True if the figure needs the whole width of a page.
    """

    heading: str
    picture: Picture | None = None
    notes: Sequence[str] = ()
    table: TextTable | None = None
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Figures under a title.

    Args:
        anchor: Name in links.
        title: Title.
        lead: How to read the figures.
        figures: Figures; a section without one is not shown.
    """

    anchor: str
    title: str
    lead: str
    figures: list[ReportFigure] = field(default_factory=list)


def sections(sweep: SweepFolder) -> list[Section]:
    """Return the sections that have figures, in the order of the page."""
    found = [
        Section(
            "confirmation",
            "Confirmation",
            "Before a policy is exported, it is compared with free baselines on validation images, from fresh seeds. "
            "The difference is of the last round alone, whose seeds had no part in choosing the two, so it is "
            "unbiased; the accuracies are means over all seeds of a candidate.",
            list(_confirmations(sweep)),
        ),
        Section(
            "schedules",
            "Augmentation schedules",
            "Strength is probability × level, 0 to 9, by epoch, along the lineage of the best member. A strength that "
            "rises from no augmentation is also what mutation alone gives.",
            list(_schedules(sweep)),
        ),
        Section(
            "lineage",
            "Lineage",
            "Each row is a member; the color of a cell is its validation accuracy, hatched cells have none. Arrows are "
            "copies from donor to target. The orange line follows the ancestors of the best member; the operations "
            "active along it are the schedule.",
            list(_lineages(sweep)),
        ),
        Section(
            "accuracy",
            "Validation accuracy",
            "Thin lines: members. Thick line: median, in a band from the lower to the upper quartile, where at least "
            "half of the members have a score. Dashed: the random control, fixed genomes drawn once.",
            list(_by_role(sweep, accuracy_picture)),
        ),
        Section(
            "t-stddev",
            "T. stddev and accuracy",
            "T. stddev is the standard deviation of the teacher's mean output over draws of images, here as a ratio to "
            "no augmentation; lower values should give better students (Wang et al., 2022).",
            list(_by_role(sweep, t_stddev_picture)),
        ),
        Section(
            "effects",
            "Effects by role",
            "Effect of each operation, choice and setting on the score of a trial, estimated from all trials at once, "
            "with its 95 % interval. Filled: in the policy, which has what is more likely good than not.",
            list(_effects(sweep)),
        ),
        Section(
            "choices",
            "Choices",
            "Members of a search by their choices of view, loss and bits.",
            list(_choices(sweep)),
        ),
        Section(
            "hard",
            "HARD: hard views by adversarial training",
            "The augmentor learns views on which the student's prediction differs most from the teacher's while the "
            "teacher keeps its own; then the student learns from these views.",
            list(_games(sweep)),
        ),
    ]
    return [section for section in found if section.figures]


def baseline_figures(sweep: SweepFolder) -> list[ReportFigure]:
    """Return one figure for each role evaluated against baselines; its first note is the claim."""
    found = []
    for role, evaluation in sweep.evaluations.items():
        known = [arm for arm in evaluation.ranked if not math.isnan(arm.mean)]
        means = ", ".join(f"{arm.name} {100 * arm.mean:.2f}" for arm in known)
        alt = f"Test accuracy of the {role} by arm, mean over {evaluation.seeds} seeds in percent: {means}."
        drawn = draw_picture(partial(evaluation_figure, evaluation), alt)
        found.append(ReportFigure(role.capitalize(), drawn, evaluation.notes(), evaluation.text_table(), wide=True))
    return found


def _schedules(sweep: SweepFolder) -> Iterator[ReportFigure]:
    for role, schedule in sweep.schedules.items():
        yield _schedule(role, schedule)
    for role, why in sweep.refused.items():
        yield ReportFigure(role.capitalize(), notes=[f"The policy cannot be read: {why}"])


def _schedule(role: str, schedule: Schedule) -> ReportFigure:
    table = ScheduleTable(schedule)
    strongest = ", ".join(f"{row.op} {row.strength:.2f}" for row in table.rows[:OPERATIONS_IN_ALT])
    alt = (
        f"Strength of each operation over the {schedule.epochs} epochs of the {role}'s schedule: mean strength "
        f"{schedule.mean_strength():.2f}; "
        + (f"strongest on average {strongest}." if strongest else "no operation is active.")
    )
    notes = table.schedule_notes()
    if schedule.provenance.get("unfinished"):
        notes.insert(0, "so far: the best member at the last perturbation of an unfinished search")
    if not table.rows:
        return ReportFigure(role.capitalize(), notes=["no operation is ever active", *notes])
    drawn = draw_picture(partial(_schedule_figure, schedule), alt)
    return ReportFigure(role.capitalize(), drawn, notes, table.text_table())


def _schedule_figure(schedule: Schedule, style: Style) -> Figure:
    return schedule_figure(schedule, " ", style, NARROW)


def _lineage_figure(lineage: Lineage, style: Style) -> Figure:
    return lineage_figure(lineage, " ", style, NARROW)


def _by_role(sweep: SweepFolder, draw: Callable[[Sequence[StageHistory]], Picture | None]) -> Iterator[ReportFigure]:
    for role in sweep.roles:
        if drawn := draw(sweep.searches(role)):
            yield ReportFigure(role.capitalize(), drawn)


def _lineages(sweep: SweepFolder) -> Iterator[ReportFigure]:
    for role in sweep.roles:
        for stage in sweep.searches(role):
            if stage.perturbations:
                lineage = stage.lineage()
                drawn = draw_picture(partial(_lineage_figure, lineage), f"Lineage of a population. {lineage}.")
                yield ReportFigure(role.capitalize(), drawn, [str(lineage)])


def _confirmations(sweep: SweepFolder) -> Iterator[ReportFigure]:
    if sweep.history is None:
        return
    for role in ROLES:
        notes, table = [], None
        if (headroom := sweep.history.headroom.get(role)) is not None:
            notes.append(f"{describe_headroom(headroom)}.")
        if (confirmed := sweep.history.confirmations.get(role)) is not None:
            notes.append(f"{describe_confirmation(confirmed)}.")
            table = confirmation_table(confirmed)
        if notes:
            yield ReportFigure(role.capitalize(), notes=[each[0].upper() + each[1:] for each in notes], table=table)


def _effects(sweep: SweepFolder) -> Iterator[ReportFigure]:
    if sweep.effects is None or not sweep.effects.roles:
        return
    largest = []
    for role, effects in sweep.effects.roles.items():
        ordered = sorted(effects.effects, key=lambda effect: -abs(effect.estimate))[:OPERATIONS_IN_ALT]
        largest.append(f"{role}: {', '.join(f'{each.label} {each.estimate:+.3g}' for each in ordered)}")
    alt = f"Largest effects with their sign; {'; '.join(largest)}."
    heading = "Teacher and student" if len(sweep.effects.roles) > 1 else next(iter(sweep.effects.roles)).capitalize()
    drawn = draw_picture(partial(effects_figure, sweep.effects), alt)
    yield ReportFigure(heading, drawn, sweep.effects.describe(), sweep.effects.text_table(), wide=True)


def _choices(sweep: SweepFolder) -> Iterator[ReportFigure]:
    if sweep.screening is not None:
        heading = "Screening by T. stddev, before the search of the student"
        yield _tabulated(heading, sweep.screening.text_table(), partial(screening_figure, sweep.screening))
    for role, members in sweep.choices.items():
        heading = f"{role.capitalize()}: members by their choices"
        yield _tabulated(heading, best_members_table(members), partial(choices_figure, members))
    for role, candidates in sweep.candidates.items():
        heading = f"{role.capitalize()}: members by size and accuracy"
        yield _tabulated(heading, pareto_table(candidates), partial(pareto_figure, candidates))


def _tabulated(heading: str, table: TextTable, draw: Callable[[Style], Figure]) -> ReportFigure:
    """Return a figure that is described by the first row of its table."""
    first = ", ".join(map(" ".join, zip(table.headings, table.rows[0], strict=True))) if table.rows else ""
    alt = f"{heading}. First row of the table: {first}." if first else f"{heading}."
    return ReportFigure(heading, draw_picture(draw, alt), table=table, wide=True)


def _games(sweep: SweepFolder) -> Iterator[ReportFigure]:
    """Show the best member's game, or that of the first member with one."""
    folders = sorted(path for path in (sweep.path / "report" / "hard").glob("*") if path.is_dir())
    if not folders:
        return
    best = {str(schedule.provenance.get("run")) for schedule in sweep.schedules.values()}
    shown = next((folder for folder in folders if folder.name in best), folders[0])
    member = f"{shown.name} ({'best member' if shown.name in best else 'the best member does not use HARD'})"
    for name, (heading, description) in HARD.items():
        if (shown / name).is_file():
            drawn = Picture(f"{member}: {description}.", (shown / name).read_bytes())
            yield ReportFigure(f"{member}: {heading}", drawn, wide=True)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders if folder != shown)
        yield ReportFigure("", notes=[f"The plots of {names} are in report/hard/ of the sweep's folder."])
