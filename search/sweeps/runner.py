"""A whole sweep: each role's search, its final trainings beside the baselines, and the test set at the very end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from torch import Tensor

from results.analysis.pareto import Candidate
from results.analysis.summary import POLICY, RoleResult, SweepResult
from results.runlog.events import AugmentationsScreened
from search.algorithms.base import SearchAlgorithm, SearchResult, member_seed
from search.config import registry
from search.config.schema import SweepConfig
from search.execution.members import Member, Outcome
from search.execution.vae_preparation import with_vaes
from search.sweeps.artifacts import Records
from search.sweeps.confirmation import FREE, baseline_schedule, confirm, describe, measure_headroom
from search.sweeps.final_training import FinalTraining, final_name
from search.sweeps.folders import open_folder
from search.sweeps.plan import RolePlan, SearchPlan, SweepPlan
from search.sweeps.resume import check_unchanged, newest
from search.sweeps.screening import metrics, screen_choices, write_files
from search.sweeps.session import SweepSession, open_session
from spaces import Genome, Phase, Policy, RequestError, Schedule, Space, WorkError
from trainables.quantization import size_in_bits
from trainables.task import Task, TrainedTeacher


def run(
    config: SweepConfig,
    *,
    resume: bool = False,
    force: bool = False,
    address: str | None = None,
    console: Console | None = None,
) -> SweepResult:
    """Run a sweep: search each role's policy, confirm it, train it in full, and test it.

    Args:
        config: Sweep to run.
        resume: Continue the newest sweep of this name in its storage. What is finished is not done again; with
            `synchronous: true` the policies are those of an undisturbed sweep.
        force: Search even where `headroom` finds nothing to gain.
        address: Address of a Ray cluster, HOST:PORT; None for RAY_ADDRESS, or this machine.
        console: Console that shows progress; None for none.

    Returns:
        Test accuracies and paths; everything else is in the sweep's folder and in MLflow.

    Raises:
        RequestError: The data, a model, the cluster or the tracking server is not as the sweep needs it; there is no
            sweep to resume, another process runs it, or its settings have changed.
        WorkError: Every member of a search failed, or every training of the teacher that the student needs; or
            augmentation has nothing to gain, by `headroom`.

    Example:
        >>> result = run(SweepConfig.load("examples/digits.yaml"))  # doctest: +SKIP
        >>> print(result.markdown())  # doctest: +SKIP
    """
    resumed = newest(config) if resume else None
    if resumed is not None:
        check_unchanged(config, resumed)
    return _run(SweepPlan.resolve(config), config.name, resumed, address, console, force=force)


def replay(
    config: SweepConfig,
    schedules: Sequence[Schedule],
    *,
    address: str | None = None,
    console: Console | None = None,
) -> SweepResult:
    """Train the roles of `schedules` in full, each on its schedule stretched to the epochs of the final training.

    A student needs a teacher: `teacher.weights` in the sweep, or the teacher's schedule among `schedules`.

    Args:
        config: Sweep whose final trainings are run.
        schedules: Policies to train with, at most one a role.
        address: Address of a Ray cluster, HOST:PORT; None for RAY_ADDRESS, or this machine.
        console: Console that shows progress; None for none.

    Returns:
        Test accuracies and paths.

    Raises:
        RequestError: As `run`; or a schedule's role is not in the sweep or comes twice, or a student has no teacher.
        WorkError: Every training of the teacher that the student needs failed.

    Example:
        >>> policy = Schedule.load("runs/digits-001/policy.teacher.json")  # doctest: +SKIP
        >>> result = replay(SweepConfig.load("examples/digits.yaml"), [policy])  # doctest: +SKIP
    """
    by_role = {schedule.role: schedule for schedule in schedules}
    if len(by_role) < len(schedules):
        raise RequestError("policies must be at most one a role", value=[schedule.role for schedule in schedules])
    for role in by_role:
        if role not in config.roles:
            rule = f"a policy must be for a role that the sweep trains: {', '.join(config.roles)}"
            raise RequestError(rule, value=f"a policy for the {role}")
    if "student" in by_role and "teacher" in config.roles and "teacher" not in by_role:
        hint = (
            "add --policy policy.teacher.json, or --set teacher.weights=FILE (a sweep keeps models/teacher.safetensors)"
        )
        raise RequestError("a student's policy must have a trained teacher", hint=hint)
    plan = SweepPlan.resolve(config).replaying(by_role)
    return _run(plan, f"{config.name}-train", None, address, console)


def _run(
    plan: SweepPlan,
    name: str,
    resumed: Path | None,
    address: str | None,
    console: Console | None,
    *,
    force: bool = False,
) -> SweepResult:
    plan.check_screening()
    open_place = partial(open_folder, plan.storage, name, plan.text, plan.name, plan.tracking_uri, resumed)
    checked = resumed or plan.storage
    with open_session(
        plan, open_place, checked=checked, total=plan.total_epochs, address=address, console=console
    ) as session:
        return _Sweep(plan, session, force).run()


@dataclass
class _Sweep:
    plan: SweepPlan
    session: SweepSession
    force: bool
    pareto: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)
    confirmations: dict[str, str] = field(default_factory=dict)
    search_teacher: TrainedTeacher | None = None

    def run(self) -> SweepResult:
        started, session = time.perf_counter(), self.session
        self.records = Records(self.plan, session.folder, session.tracker)
        trained: dict[str, FinalTraining] = {}
        for role, plan in self.plan.roles.items():
            teacher = self._teacher(trained) if role == "student" else None
            trained[role] = self._role(plan, teacher)
            if plan.trains_search_teacher:
                self.search_teacher = self._train_search_teacher(plan, trained[role].schedule)
            if weights := trained[role].policy_weights():
                self.records.network(trained[role].task, weights)
        session.progress.stage("test")
        results = tuple(self._tested(role, result) for role, result in trained.items())
        for result in trained.values():
            self._register(result)
        seconds = session.journal.seconds + time.perf_counter() - started
        return self.records.close(results, session.failed, seconds)

    # One role -------------------------------------------------------------------------------------------------------

    def _role(self, plan: RolePlan, teacher: TrainedTeacher | None) -> FinalTraining:
        found = None
        if plan.schedule is not None:
            arms = {POLICY: plan.schedule}
            self.records.schedule(plan.schedule)
        else:
            searching = replace(plan.task, teacher=self.search_teacher or teacher)
            found, arms = self._search(plan, searching, self._screened(plan, replace(plan.task, teacher=teacher)))
        trained = self._final(plan, plan.final_task(teacher), arms, found)
        role = plan.task.role
        self.records.arms(role, arms, {arm: final_name(role, arm, 0) for arm in arms})
        return trained

    def _search(self, plan: RolePlan, task: Task, space: Space) -> tuple[SearchResult | None, dict[str, Schedule]]:
        """Run the searches, and the controls in the gaps that the last one leaves, and confirm the result.

        Returns:
            The result of the last search, and the schedule of each arm of the final training.
        """
        if not plan.stages:  # nothing is chosen for this role: it is trained as it is
            genome = replace(space.zero(), policy=Policy())
            plain = Schedule((Phase(task.epochs, genome),), task.role, task.image, dict(plan.provenance))
            self.records.schedule(plain)
            return None, {POLICY: plain}
        task, space = self._with_vaes(task, space)
        if plan.headroom_seeds:
            measure_headroom(self.session, plan, task, force=self.force or plan.headroom_report)
        controls: dict[str, Schedule] = {}
        results: list[SearchResult] = []
        for number, stage in enumerate(plan.stages):
            alongside = plan.control if number == len(plan.stages) - 1 else None
            results.append(self._stage(plan, stage, task, space, results, alongside, controls))
        if plan.blind is not None:
            start = _start(plan.blind, space, results)
            if start is not None:
                controls["blind"] = self._run_stage(plan, plan.blind, task, *start)[0].schedule
        found = results[-1]
        arms = {POLICY: found.schedule, **{name: baseline_schedule(name, found.schedule) for name in plan.baselines}}
        if plan.confirm_seeds:
            schedule, decision = confirm(self.session, plan, task, found.schedule)
            self.confirmations[task.role] = describe(decision)
            found, arms[POLICY] = replace(found, schedule=schedule), schedule
            for name in sorted({decision.winner, decision.against} & set(FREE)):
                arms[name] = baseline_schedule(name, schedule)
                if arms[name].phases == schedule.phases:
                    del arms[name]  # it is the policy
        self.records.schedule(found.schedule)
        return found, {**arms, **controls}

    def _stage(
        self,
        plan: RolePlan,
        stage: SearchPlan,
        task: Task,
        space: Space,
        results: Sequence[SearchResult],
        control: SearchPlan | None,
        controls: dict[str, Schedule],
    ) -> SearchResult:
        """Run one search, and a control beside it, whose schedule is added to `controls`."""
        session = self.session
        start = _start(stage, space, results)
        if start is None:
            session.progress.say(f"  no operation passed: {escape(stage.name)} has nothing to move and is skipped")
            if control is not None:
                controls["random"] = self._run_stage(plan, control, task, space, None)[0].schedule
            return results[-1]
        result, outcomes, others = self._run_stage(plan, stage, task, *start, control)
        if control is not None:
            try:
                controls["random"] = others[0].result(outcomes, plan.provenance).schedule
            except WorkError as error:  # its members are in `failed`, and nothing else needs it
                session.progress.say(f"  [red]no random control[/red]: {escape(str(error))}")
        return result

    def _run_stage(
        self,
        plan: RolePlan,
        stage: SearchPlan,
        task: Task,
        space: Space,
        first: Genome | None,
        control: SearchPlan | None = None,
    ) -> tuple[SearchResult, Sequence[Outcome], Sequence[SearchAlgorithm]]:
        """Run one search to its end, and record what it found.

        Returns:
            Its result, the outcomes of all members, and the control.
        """
        session, records, role = self.session, self.records, task.role
        task, callback = stage.task(task), session.callback()
        search = stage.start(task, space, session.journal, callback, first)
        others = [] if control is None else [control.start(task, plan.space, session.journal, callback)]
        what = (
            f"{role} search" if len(plan.stages) == 1 else f"{role} {registry.label(stage.settings.algorithm)} search"
        )
        session.progress.stage(what + (" and random control" if others else ""))
        outcomes = session.run_stage(
            callback, stage.name, task, (), stage.settings.interval, searches=[search, *others]
        )
        found = search.result(outcomes, plan.provenance)
        records.schedule(found.schedule)
        records.lineage(search)
        if any(choice.learns for choice in space.augmentations):
            records.games(outcomes)
        records.choices(search, outcomes)
        if effects := records.effects(search, outcomes):
            session.progress.say(effects.roles[role].text_table(strengths=False).for_terminal())
            session.progress.say(escape("\n".join(f"  {line}" for line in effects.describe())))
        if front := records.front(search, outcomes, task):
            self.pareto[role] = front
        for name, value in search.scores(outcomes).items():
            session.tracker.log(records.parent, {f"choice/{name}/validation_accuracy": value})
            session.progress.say(escape(f"  {name:<20} validation {value:.3f}"))
        return found, outcomes, others

    def _screened(self, plan: RolePlan, task: Task) -> Space:
        """Return the role's space, without what screening drops of a student's second views."""
        if task.teacher is None or not self.plan.screens:
            return plan.space
        session, records = self.session, self.records
        session.progress.stage("screening")
        if (dropped := session.journal.history.screened) is None:
            result = screen_choices(self.plan, task, session.folder, session.tracker.uri)
            dropped = result.dropped
            records.artifacts(*write_files(result, session.folder))
            session.tracker.log(records.parent, metrics(result))
            session.tracker.tag(records.parent, {"screen.dropped": ", ".join(dropped)})
            session.journal.write(AugmentationsScreened(dropped=dropped))
        session.progress.say(escape(f"  dropped: {', '.join(dropped) or 'nothing'}"))
        kept = tuple(a.to_json() for a in plan.space.augmentations if a.label not in dropped)
        return replace(plan.space, augment=kept)

    def _with_vaes(self, task: Task, space: Space) -> tuple[Task, Space]:
        """Train the VAEs that the space's augmentations need."""
        cache = self.plan.storage.resolve() / "vae"
        task, space, files = with_vaes(task, space, self.plan.resources, cache)
        self.records.artifacts(*files)
        return task, space

    def _final(
        self, plan: RolePlan, task: Task, arms: Mapping[str, Schedule], found: SearchResult | None
    ) -> FinalTraining:
        """Train every arm from every seed."""
        learned = {key: part for schedule in arms.values() for key, part in schedule.weights.items()}
        task = replace(task.with_bits_of(arms[POLICY]), weights={**task.weights, **learned})
        bits = {arm: task.with_bits_of(schedule).bits for arm, schedule in arms.items()}
        session, role = self.session, task.role
        callback = session.callback()
        places = [(seed, arm) for seed in range(plan.seeds) for arm in arms]
        members = [
            Member(
                name=final_name(role, arm, seed),
                index=index,
                seed=member_seed(self.plan.seed, role, 1, seed),
                source=arms[arm].stretch(task.epochs),
                stage="final training",
                arm=arm,
            )
            for index, (seed, arm) in enumerate(places)
        ]
        session.progress.stage(f"{role} final training")
        outcomes = session.run_stage(callback, f"{role}-full", task, members, max(1, task.epochs // 10))
        by_name = {outcome.name: outcome for outcome in outcomes}
        by_arm = {arm: [by_name[final_name(role, arm, seed)] for seed in range(plan.seeds)] for arm in arms}
        return FinalTraining(task, found, arms[POLICY], by_arm, bits)

    def _train_search_teacher(self, plan: RolePlan, schedule: Schedule) -> TrainedTeacher:
        """Train the teacher without the validation images, for students that are scored on them."""
        task = replace(plan.task, epochs=plan.final_epochs, validate_every=plan.final_epochs)
        seed = member_seed(self.plan.seed, "teacher", 1, 0)
        source = schedule.stretch(task.epochs)
        member = Member(final_name("teacher", "train_only", 0), 0, seed, source, "final training", arm="train_only")
        self.session.progress.stage("teacher of the student search")
        session, every = self.session, max(1, task.epochs // 10)
        (outcome,) = session.run_stage(session.callback(), "teacher-train-only", task, [member], every)
        if outcome.error:
            raise WorkError(f"the training of the teacher without validation images failed: {outcome.error}")
        return _trained_teacher(task, outcome.state()["model"], schedule)

    def _teacher(self, trained: Mapping[str, FinalTraining]) -> TrainedTeacher | None:
        """Return the teacher that the sweep was given, or the one that it trained; None where there is none."""
        if "teacher" not in trained:
            return self.plan.teacher
        teacher = trained["teacher"]
        weights = teacher.policy_weights()
        if weights is None:
            prefix = final_name("teacher", POLICY)
            why = next(why for name, why in self.session.failed.items() if name.startswith(prefix))
            raise WorkError(f"every final training of the teacher with its policy failed; the first: {why}")
        return _trained_teacher(teacher.task, weights, teacher.schedule)

    # The test -------------------------------------------------------------------------------------------------------

    def _tested(self, role: str, trained: FinalTraining) -> RoleResult:
        """Open the test set, once for each training, after everything was chosen; export the model meanwhile."""
        bits = {each.name: trained.bits[arm] for arm, by_seed in trained.outcomes.items() for each in by_seed}
        every = [outcome for by_seed in trained.outcomes.values() for outcome in by_seed]
        tested = self.session.score_tests(trained.task, every, bits, partial(self._export, trained))
        accuracy = {name: each.score["accuracy"] for name, each in tested.items()}
        return RoleResult(
            role=role,
            best_validation=trained.found.value if trained.found else math.nan,
            test={arm: tuple(accuracy.get(o.name) for o in by_seed) for arm, by_seed in trained.outcomes.items()},
            confirmation=self.confirmations.get(role, ""),
            in_domain={
                arm: tuple(
                    tested[o.name].score.get("in_domain_accuracy") if o.name in tested else None for o in by_seed
                )
                for arm, by_seed in trained.outcomes.items()
                if trained.task.data.in_domain is not None
            },
            exploits=len(trained.found.exploits) if trained.found else 0,
            policy_file=str(self.records.policy_file(role)),
            size_in_bits=size_in_bits(trained.task.network()),
            pareto=self.pareto.get(role, ()),
        )

    def _export(self, trained: FinalTraining) -> None:
        """Write the first training with the policy that did not fail as an MLflow model."""
        if (first := trained.first) is None:
            return
        try:
            self.records.export(trained.task, first.state()["model"], trained.schedule)
        except WorkError as error:  # its weights are kept all the same
            self.session.progress.say(f"  [yellow]{escape(str(error))}[/yellow]")

    def _register(self, trained: FinalTraining) -> None:
        """Register the exported model, with its test score."""
        if (first := trained.first) is not None:
            self.records.model(trained.task, first.name, self.session.journal.history.tests.get(first.name))


def _start(stage: SearchPlan, space: Space, results: Sequence[SearchResult]) -> tuple[Space, Genome | None] | None:
    """Return the space of a search and the genome that it starts from; None where nothing is left to move.

    A search that continues another one moves only the operations that passed, and keeps the bits that were chosen.
    """
    if stage.continues is None:
        return space, stage.first
    genome = results[stage.continues].schedule.phases[-1].genome
    active = set(genome.policy.by_operation())
    narrow = replace(space, operations=tuple(op for op in space.operations if op in active), bits=dict(genome.bits))
    if not active and narrow.is_constant:
        return None
    # A search that chose no operation, such as a grid, gives an empty policy of PBA's kind in every space.
    policy = narrow.genes.restrict(genome.policy) if active else narrow.genes.zero()
    narrow.genes.check(policy)
    return narrow, replace(genome, policy=policy)


def _trained_teacher(task: Task, weights: Mapping[str, Tensor], schedule: Schedule) -> TrainedTeacher:
    data = task.data
    return TrainedTeacher(task.model, dict(weights), schedule, data.classes, (data.mean, data.std))
