"""A running sweep: cluster, folder, journal, MLflow and terminal, and the one procedure that runs its trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from results.runlog.events import SlotsPlaced
from results.tracking.tracker import Tracker
from search.algorithms.base import SearchAlgorithm
from search.execution.callbacks import SweepCallback
from search.execution.cluster import connected, slots
from search.execution.journal import Journal
from search.execution.members import Member, Outcome
from search.execution.preflight import preflight
from search.execution.progress import ProgressReporter
from search.execution.scoring import Tested, score_once
from search.execution.trials import outcome, run_trials
from search.sweeps.plan import SweepPlan
from trainables.quantization import Bits
from trainables.task import Task


@dataclass
class SweepSession:
    """A sweep that is running.

    Args:
        plan: Plan of the sweep.
        folder: Folder of its results.
        journal: Journal of its trials.
        tracker: Connection to MLflow.
        progress: Progress on the terminal.
        failed: Why trials failed, by their names.
    """

    plan: SweepPlan
    folder: Path
    journal: Journal
    tracker: Tracker
    progress: ProgressReporter
    failed: dict[str, str] = field(default_factory=dict)

    def callback(self) -> SweepCallback:
        """Return the callback of one stage."""
        return SweepCallback(self.journal, self.progress, self.plan.resources.epoch_limit)

    def run_stage(
        self,
        callback: SweepCallback,
        name: str,
        task: Task,
        members: Sequence[Member],
        save_every: int,
        *,
        searches: Sequence[SearchAlgorithm] = (),
        retry_each: bool = False,
    ) -> list[Outcome]:
        """Run trials to the end; what the journal holds of them is not done again.

        Args:
            callback: Callback of the stage.
            name: Name of the stage.
            task: Task of the trials.
            members: Trials that do not belong to a search.
            save_every: Epochs between checkpoints, and between scores.
            searches: Searches to run; the first one brings the scheduler and the searcher, the others run in its gaps.
            retry_each: Try every failed trial again; otherwise only where all of them failed.
        """
        drawn = [*members, *(member for search in searches for member in search.members)]
        for group in [[member.name] for member in drawn] if retry_each else [[member.name for member in drawn]]:
            self.journal.retry_failed(group)
        main, *others = searches or (None,)
        scheduler = main.scheduler() if main else None
        searcher = main.searcher([member for other in others if other for member in other.members]) if main else None
        run_trials(
            drawn,
            task,
            self.plan.resources,
            callback,
            name=name,
            save_every=save_every,
            scheduler=scheduler,
            suggestions=searcher,
        )
        finished = [*members, *(member for search in searches for member in search.members)]
        outcomes = [outcome(self.journal.progress(member.name), save_every) for member in finished]
        self.failed |= {each.name: each.error for each in outcomes if each.error}
        return outcomes

    def score_tests(
        self,
        task: Task,
        outcomes: Sequence[Outcome],
        bits: Mapping[str, Bits],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, Tested]:
        """Score trainings on the test set, each once.

        Args:
            task: Task of the trainings.
            outcomes: Outcomes of the trainings.
            bits: Bits of each network, by the training's name.
            meanwhile: Work for this process while the workers score.
        """
        tested, failed = score_once(self.journal, task, outcomes, bits, self.plan.resources, meanwhile)
        self.failed |= {f"{name} on the test set": why for name, why in failed.items()}
        return tested


@contextmanager
def open_session(
    plan: SweepPlan,
    open_place: Callable[[], tuple[Path, Tracker]],
    *,
    checked: Path,
    total: int,
    address: str | None,
    console: Console | None,
    journal_folder: str = "",
) -> Iterator[SweepSession]:
    """Connect to the cluster, check it, open the sweep's folder and MLflow, and show progress.

    Args:
        plan: Plan of the sweep.
        open_place: Function that opens the folder of the results and connects to MLflow; called once all checks have
            passed, so that a refusal leaves no folder behind.
        checked: Folder that is checked to be writable from every node.
        total: Epochs of training over all trials.
        address: Address of a Ray cluster; None for RAY_ADDRESS, or this machine.
        console: Console that shows progress; None for none.
        journal_folder: Folder of the journal within that of the results.

    Raises:
        RequestError: The cluster, the storage or MLflow is not as the sweep needs it.
    """
    with connected(address):
        fits = slots(plan.resources)
        preflight(plan.requirements, checked)
        folder, tracker = open_place()
        with (
            Journal(folder / journal_folder) as journal,
            tracker.follow(journal),
            ProgressReporter(console, total) as progress,
        ):
            journal.write(SlotsPlaced(slots=fits))
            again = f"  ·  start {journal.session}" if journal.session > 1 else ""
            progress.say(f"{escape(str(folder))}  ·  {fits} trial{'s' if fits != 1 else ''} at once{again}")
            if imports := plan.requirements.imports:
                progress.say(escape(f"imports your own code: {', '.join(imports)}"))
            yield SweepSession(plan, journal.folder if not journal_folder else folder, journal, tracker, progress)
