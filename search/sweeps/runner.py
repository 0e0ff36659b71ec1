"""A whole sweep: each role's search, its full training beside the baselines, and the test at the very end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.markup import escape

from results.analysis.pareto import Candidate
from results.analysis.summary import POLICY, RoleResult, SweepResult
from results.tracking.tracker import Tracker
from search.algorithms.base import SearchAlgorithm, SearchResult, member_seed
from search.algorithms.grid import GridSearch
from search.config.schema import GRIDS, RoleConfig, StudentConfig, SweepConfig
from search.execution.callbacks import SweepCallback
from search.execution.cluster import connected, slots
from search.execution.journal import Journal
from search.execution.preflight import factories, preflight
from search.execution.progress import ProgressReporter
from search.execution.scoring import score_once
from search.execution.trials import Member, Outcome, outcome, run_trials
from search.sweeps.artifacts import Records
from search.sweeps.final_training import FinalTraining, full_name
from search.sweeps.plan import (
    checked_data,
    full_images,
    given_teacher,
    members,
    opened,
    planned_epochs,
    role_space,
    scored_images,
    searches,
    teacher_data,
)
from search.sweeps.resume import check_unchanged, newest
from search.sweeps.screening import contestants, figures, rankable, screened, write
from search.sweeps.vae_preparation import with_vaes
from spaces import Genome, Phase, Policy, RequestError, Schedule, Space, WorkError
from trainables.data import DataSet
from trainables.quantization import size_in_bits
from trainables.screening.ranking import check_request
from trainables.task import Task, TrainedTeacher

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from search.algorithms.tpe import TPESearch


def stage_class(kind: str) -> type[SearchAlgorithm]:
    """What carries out a search, by the sweep file's name for it."""
    if kind.startswith("tpe"):
        from search.algorithms.tpe import TPESearch  # Optuna, which no other search needs

        return TPESearch
    return GridSearch if kind in GRIDS else SearchAlgorithm


def run(
    config: SweepConfig, *, resume: bool = False, address: str | None = None, console: Console | None = None
) -> SweepResult:
    """Run the sweep that `config` describes.

    Args:
        config: the sweep.
        resume: go on with the newest sweep of this name in its storage, after whatever ended it. What is finished is
            not done again; where `search.synch` holds, the policies are those that it would have found undisturbed.
        address: of a Ray cluster; None: RAY_ADDRESS, or this machine.
        console: shows progress; None keeps quiet.

    Returns:
        Figures and paths; everything else lies in the sweep's folder and in MLflow.

    Raises:
        RequestError: the data, a model, the cluster or the tracking server is not as the sweep needs it; there is no
            sweep to resume, another process runs it, or its settings have changed.
        WorkError: every member of a search failed, or every training of the teacher that the student needs.
    """
    with _started(config, config.name, planned_epochs(config), address, console, resume=resume) as sweep:
        return sweep.run()


def replay(
    config: SweepConfig,
    schedules: Sequence[Schedule],
    *,
    address: str | None = None,
    console: Console | None = None,
) -> SweepResult:
    """Train the roles of `schedules` in full, each on its schedule stretched to the epochs that `config` asks for.

    A student needs a teacher: `teacher.weights` in the sweep, or the teacher's schedule among `schedules`.

    Raises:
        RequestError: as `run`, or a schedule's role is not in the sweep or comes twice, or a student has no teacher.
        WorkError: every training of the teacher that the student needs failed.
    """
    by_role = {schedule.role: schedule for schedule in schedules}
    if len(by_role) < len(schedules):
        raise RequestError("at most one policy a role", value=[schedule.role for schedule in schedules])
    for role in by_role:
        if role not in config.roles:
            raise RequestError(f"the sweep trains {', '.join(config.roles)}", value=f"a policy for the {role}")
    if "student" in by_role and "teacher" in config.roles and "teacher" not in by_role:
        hint = (
            "add --policy policy.teacher.json, or --set teacher.weights=FILE (a sweep keeps models/teacher.safetensors)"
        )
        raise RequestError("a student's policy needs a trained teacher", hint=hint)
    total = planned_epochs(config, by_role)
    with _started(config, f"{config.name}-train", total, address, console, by_role) as sweep:
        return sweep.run()


@contextmanager
def _started(
    config: SweepConfig,
    name: str,
    total: int,
    address: str | None,
    console: Console | None,
    replayed: dict[str, Schedule] | None = None,
    resume: bool = False,
) -> Iterator[_Sweep]:
    """Everything that a sweep needs, checked one by one: a refusal leaves no folder behind."""
    old = newest(config) if resume else None
    if old is not None:
        check_unchanged(config, old)
    data = checked_data(config)
    for schedule in (replayed or {}).values():
        if schedule.image.channels != data.channels:
            rule = f"the {schedule.role}'s policy is for images of {schedule.image.channels} channels"
            raise RequestError(rule, value=data.channels, hint="choose other data")
    if config.screen.drop:
        check_request(contestants(config), config.screen.precision, len(data.train) + len(data.validation))
    with connected(address):
        fits = slots(config.resources)
        preflight(config, old or Path(config.storage))
        folder, tracker = opened(config, name, old)
        with tracker, Journal(folder) as journal, ProgressReporter(console, total) as ticker:
            journal.note("placed", slots=fits)
            tracker.recall(journal.ticket, folder.name)
            again = f"  ·  start {journal.life}" if journal.life > 1 else ""
            ticker.say(f"{escape(str(folder))}  ·  {fits} trial{'s' if fits != 1 else ''} at once{again}")
            if own := factories(config):
                ticker.say(escape(f"imported, as the sweep file says: {', '.join(own)}"))
            yield _Sweep(config, data, journal, tracker, ticker, replayed or {})


@dataclass
class _Sweep:
    config: SweepConfig
    data: DataSet
    journal: Journal
    tracker: Tracker
    ticker: ProgressReporter
    replayed: dict[str, Schedule]
    failed: dict[str, str] = field(default_factory=dict)
    pareto: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The sweep's own."""
        return self.journal.folder

    def run(self) -> SweepResult:
        started = time.perf_counter()
        what = "Replay" if self.replayed else f"Search {self.config.search.kind}"
        self.records = Records(self.config, self.folder, self.tracker, what)
        trained: dict[str, FinalTraining] = {}
        for role, settings in self.config.roles.items():
            if self.replayed and role not in self.replayed:
                continue
            teacher = self._teacher(trained) if role == "student" else None
            trained[role] = self._role(role, settings, teacher)
            if weights := trained[role].policy_weights():
                self.records.network(trained[role].task, weights)
        self.ticker.stage("test")
        results = tuple(self._tested(role, result) for role, result in trained.items())
        for result in trained.values():
            self._model(result)
        seconds = self.journal.seconds + time.perf_counter() - started
        return self.records.close(results, self.failed, seconds, self.data)

    # One role -------------------------------------------------------------------------------------------------------

    def _role(self, role: str, config: RoleConfig, teacher: TrainedTeacher | None) -> FinalTraining:
        task = self._task(role, config, teacher)
        found = None
        if self.replayed:
            arms = {POLICY: self.replayed[role]}
            self.records.schedule(self.replayed[role])
        else:
            found, arms = self._search(task, config)
        data = replace(task.data, train=full_images(self.config, role, task.data))
        full = replace(task, data=data, validation=None, epochs=config.full_epochs)
        trained = self._full(full, config.full.seeds, arms, found)
        self.records.arms(role, arms, {arm: trained.runs[full_name(role, arm, 0)] for arm in arms})
        return trained

    def _search(self, task: Task, config: RoleConfig) -> tuple[SearchResult | None, dict[str, Schedule]]:
        """The search, and the random control beside it, which runs in the gaps that the population leaves.

        Returns:
            What the search found, and the schedule of each arm of the full training.
        """
        kinds = searches(self.config, task.role)
        if not kinds:  # nothing is chosen for this role: it is trained as it is
            genome = replace(self._space(task).zero(), policy=Policy())
            origin = self.records.provenance(task)
            plain = Schedule((Phase(task.epochs, genome),), task.role, task.image, origin)
            self.records.schedule(plain)
            return None, {POLICY: plain}
        task, space = self._ready(task, self._space(task))
        watch = self._watch(task)
        stages = [
            stage_class(kind)(
                f"{task.role}-{kind}",
                kind,
                task,
                config.stage.model_copy(update={"population": members(self.config, kind, config.stage)}),
                self.config.search,
                space,
                self.journal,
                watch,
            )
            for kind in kinds
        ]
        self.ticker.stage(f"{task.role} search" + (" and random control" if len(stages) > 1 else ""))
        drawn = [member for stage in stages for member in stage.members]
        self.journal.forgive([member.name for member in drawn])
        watch.recall(drawn, stages[0].exploits)
        moves: dict[str, Any] = {"scheduler": stages[0].scheduler()}
        suggested = kinds[0].startswith("tpe")
        if suggested:
            from search.algorithms.tpe import Suggestions

            others = [member for stage in stages[1:] for member in stage.members]
            if stages[0].missing or any(stage.pending for stage in stages):
                moves["suggestions"] = Suggestions(cast("TPESearch", stages[0]), others, self.journal)
        outcomes = self._trials(drawn, task, f"{task.role}-search", watch, config.stage.interval, **moves)
        if suggested:
            outcomes = [
                outcome(self.journal.progress(m.name), config.stage.interval) for s in stages for m in s.members
            ]
            self.failed |= {each.name: each.error for each in outcomes if each.error}
        origin = self.records.provenance(task)
        found = stages[0].found(outcomes, origin)
        self.records.schedule(found.schedule)
        self.records.family(stages[0])
        if any(choice.learns for choice in space.augmentations):
            self.records.games(outcomes, watch.runs)
        self.records.choices(stages[0], outcomes)
        self.pareto[task.role] = self.records.front(stages[0], outcomes, task)
        if isinstance(stages[0], GridSearch):
            for label, value in stages[0].scores(outcomes).items():
                self.tracker.log(self.records.parent, {f"choice/{label}/validation_accuracy": value})
                self.ticker.say(escape(f"  {label:<20} validation {value:.3f}"))
        arms = {POLICY: found.schedule}
        if "none" in self.config.baselines:
            arms["none"] = replace(found.schedule, phases=(Phase(1, Genome()),), provenance={})
        for control in stages[1:]:
            try:
                arms["random"] = control.found(outcomes, origin).schedule
            except WorkError as error:  # its members stand in `failed`, and nothing else needs it
                self.ticker.say(f"  [red]no random control[/red]: {escape(str(error))}")
        return found, arms

    def _space(self, task: Task) -> Space:
        """Where a role's genomes may move: second views are the student's, and screening may take some away."""
        space = self.config.space
        if task.role == "teacher" or task.teacher is None:
            return role_space(space, task.role)
        if not self.config.screen.drop or len(rankable(space)) < 2:
            return space
        self.ticker.stage("screening")
        if not (known := self.journal.notes("screened")):
            result = screened(self.config, task, self.folder, self.tracker.uri)
            self.records.artifacts(*write(result, self.folder))
            self.tracker.log(self.records.parent, figures(result))
            self.tracker.tag(self.records.parent, {"screen.dropped": ", ".join(result.dropped)})
            self.journal.note("screened", dropped=list(result.dropped))
        dropped = known[0]["dropped"] if known else result.dropped
        self.ticker.say(escape(f"  dropped: {', '.join(dropped) or 'nothing'}"))
        return replace(space, augment=tuple(a.to_json() for a in space.augmentations if a.label not in dropped))

    def _ready(self, task: Task, space: Space) -> tuple[Task, Space]:
        """With what the space's augmentations need to have been trained beforehand."""
        cache = Path(self.config.storage).resolve() / "vae"
        task, space, files = with_vaes(task, space, self.config.resources, cache)
        self.records.artifacts(*files)
        return task, space

    def _full(self, task: Task, seeds: int, arms: dict[str, Schedule], found: SearchResult | None) -> FinalTraining:
        learned = {key: part for schedule in arms.values() for key, part in schedule.weights.items()}
        task = replace(task.with_bits_of(arms[POLICY]), weights={**task.weights, **learned})
        bits = {arm: task.with_bits_of(schedule).bits for arm, schedule in arms.items()}
        watch = self._watch(task)
        places = [(seed, arm) for seed in range(seeds) for arm in arms]
        members = [
            Member(
                name=full_name(task.role, arm, seed),
                index=index,
                seed=member_seed(self.config.search.seed, task.role, 1, seed),
                source=arms[arm].stretch(task.epochs),
                stage="full training",
                arm=arm,
            )
            for index, (seed, arm) in enumerate(places)
        ]
        self.ticker.stage(f"{task.role} full training")
        self.journal.forgive([member.name for member in members])
        watch.recall(members)
        outcomes = self._trials(members, task, f"{task.role}-full", watch, max(1, task.epochs // 10))
        by_name = {outcome.name: outcome for outcome in outcomes}
        by_arm = {arm: [by_name[full_name(task.role, arm, seed)] for seed in range(seeds)] for arm in arms}
        return FinalTraining(task, found, arms[POLICY], by_arm, bits, watch.runs)

    def _watch(self, task: Task) -> SweepCallback:
        limit = self.config.resources.epoch_limit
        return SweepCallback(
            self.journal, self.tracker, self.records.parent, task.role, self.ticker, task.epochs, limit
        )

    def _trials(
        self,
        members: Sequence[Member],
        task: Task,
        name: str,
        watch: SweepCallback,
        save_every: int,
        **moves: Any,
    ) -> list[Outcome]:
        outcomes = run_trials(
            members,
            task,
            self.config.resources,
            watch,
            name=name,
            save_every=save_every,
            **moves,
        )
        self.failed |= {outcome.name: outcome.error for outcome in outcomes if outcome.error}
        return outcomes

    def _teacher(self, trained: dict[str, FinalTraining]) -> TrainedTeacher | None:
        """The one that the sweep was given, or the one that it trained; None: there is none."""
        if self.config.teacher is None:
            return None
        if (given := given_teacher(self.config, self.data)) is not None:
            return given
        weights = trained["teacher"].policy_weights()
        if weights is None:
            why = next(why for name, why in self.failed.items() if name.startswith(f"teacher-full-{POLICY}-"))
            raise WorkError(f"every full training of the teacher with its policy failed; the first: {why}")
        data = trained["teacher"].task.data
        statistics = (data.mean, data.std)
        model = self.config.teacher.model
        return TrainedTeacher(model, weights, trained["teacher"].schedule, data.classes, statistics)

    # The test -------------------------------------------------------------------------------------------------------

    def _tested(self, role: str, trained: FinalTraining) -> RoleResult:
        """Open the test set, once for each training, after everything was chosen; write the model meanwhile."""
        bits = {each.name: trained.bits[arm] for arm, by_seed in trained.outcomes.items() for each in by_seed}
        every = [outcome for by_seed in trained.outcomes.values() for outcome in by_seed]
        tested, failed = score_once(
            self.journal, trained.task, every, bits, self.config.resources, partial(self._export, trained)
        )
        self.failed |= {f"{name} on the test set": why for name, why in failed.items()}
        for name, each in tested.items():
            final = {f"final_test_{key}": value for key, value in each.score.items()}
            self.tracker.log(trained.runs[name], final, trained.task.epochs, at=each.at)
        accuracy = {name: each.score["accuracy"] for name, each in tested.items()}
        return RoleResult(
            role=role,
            best_validation=trained.found.value if trained.found else math.nan,
            test={arm: tuple(accuracy.get(o.name) for o in by_seed) for arm, by_seed in trained.outcomes.items()},
            exploits=len(trained.found.exploits) if trained.found else 0,
            policy_file=str(self.records.policy_file(role)),
            size_in_bits=size_in_bits(trained.task.network()),
            pareto=self.pareto.get(role, ()),
        )

    def _export(self, trained: FinalTraining) -> None:
        """Write the first training with the policy that did not fail as a model that anybody can load."""
        if (first := trained.first) is None:
            return
        try:
            self.records.export(trained.task, first.state()["model"], trained.schedule)
        except WorkError as error:  # its weights are kept all the same
            self.ticker.say(f"  [yellow]{escape(str(error))}[/yellow]")

    def _model(self, trained: FinalTraining) -> None:
        """Register the model that was written, with what it scored."""
        if (first := trained.first) is not None:
            tested = next((event for event in self.journal.notes("tested") if event["training"] == first.name), None)
            self.records.model(trained.task, trained.runs[first.name], tested)

    # Small things ---------------------------------------------------------------------------------------------------

    def _task(self, role: str, config: RoleConfig, teacher: TrainedTeacher | None) -> Task:
        data = teacher_data(self.config, self.data) if role == "teacher" else self.data
        task = Task(
            role="teacher" if role == "teacher" else "student",
            model=config.model,
            data=data,
            recipe=config.recipe,
            epochs=config.stage.epochs,
            validation=scored_images(self.config, data),
            validate_every=config.stage.interval if self.config.validate_.every == "slice" else 1,
            teacher=teacher,
        )
        return replace(task, distill=config.distill, bits=config.bits) if isinstance(config, StudentConfig) else task
