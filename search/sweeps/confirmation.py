"""Confirmation before a policy is exported, and headroom before one is searched: trainings from fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.markup import escape

from results.analysis.confirmation import describe_confirmation, describe_headroom
from results.analysis.statistics import paired_difference
from results.analysis.summary import POLICY, arm_name
from results.runlog.events import HeadroomMeasured, PolicyConfirmed
from results.runlog.members import CONFIRM, HEADROOM
from search.algorithms.base import member_seed
from search.algorithms.rejects import Decision, Measured, decide
from search.execution.members import Member
from search.sweeps.plan import RolePlan
from search.sweeps.session import SweepSession
from spaces import BASELINES, Genome, Phase, Schedule, WorkError
from spaces.augmentations import Identity
from trainables.task import Task

MEAN = "policy mean"
"""Candidate with the time average of a schedule's policies, constant over the training."""

FREE = tuple(BASELINES)
"""Candidates that cost no search."""

LEAST_GAIN = 0.001
"""Headroom in accuracy below which there is nothing to search for: a tenth of a point."""


def baseline_schedule(name: str, like: Schedule, *, chosen: bool = False) -> Schedule:
    """Return the schedule of a free baseline for the role and the images of another schedule.

    Args:
        name: Name in `spaces.BASELINES`.
        like: Schedule whose role and images it has.
        chosen: True for the distillation settings and bits that the other schedule ends with, too.
    """
    last = like.phases[-1].genome
    genome = replace(last, policy=BASELINES[name], augment=Identity()) if chosen else Genome(BASELINES[name])
    return replace(like, phases=(Phase(like.epochs, genome),), provenance={"baseline": name})


def candidates(found: Schedule, own: Mapping[str, Schedule]) -> dict[str, Schedule]:
    """Return the schedules that a policy is confirmed against, by name, and the policy itself.

    All have the distillation settings and bits that were chosen, so that augmentation alone is compared.

    Args:
        found: Policy that was found.
        own: The user's own policies by name.
    """
    every = {name: baseline_schedule(name, found, chosen=True) for name in FREE}
    if all(phase.genome.is_identity for phase in found.phases):
        return {**every, **own}
    every[POLICY] = found
    if len(found.phases) > 1:
        every[MEAN] = found.mean()
    return {**every, **own}


def confirm(session: SweepSession, plan: RolePlan, task: Task, found: Schedule) -> tuple[Schedule, Decision]:
    """Train the policy, its time average and the free baselines from fresh seeds, and return the best.

    They are trained for as many epochs as the final training, on the training images, and scored on the validation
    images; see `search.algorithms.rejects.decide` for who is rejected when. What the journal holds is not done again.

    Args:
        session: Session of the sweep.
        plan: Plan of the role.
        task: Task of the search, with the teacher that judges.
        found: Policy that was found.

    Returns:
        The schedule to export, with the outcome in its provenance, and the outcome.

    Raises:
        WorkError: Every training failed.
    """
    role = task.role
    every = candidates(found, plan.own_policies)
    learned = {key: part for schedule in every.values() for key, part in schedule.weights.items()}
    task = replace(task.with_bits_of(found), weights={**task.weights, **learned})

    def measure(number: int, names: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Measured]]:
        chosen = {name: every[name] for name in names}
        return _train(session, plan, task, chosen, seeds, CONFIRM, number)

    session.progress.stage(f"{role} confirmation")
    decision = decide(list(every), FREE, plan.confirm_seeds, measure)
    if all(map(math.isnan, decision.scores.values())):
        raise WorkError(f"every training of the confirmation of the {role}'s policy failed; see the journal")
    if role not in session.journal.history.confirmations:
        session.journal.write(_confirmed(role, decision))
    for name in sorted(decision.accuracies, key=lambda name: -decision.scores[name]):
        accuracy = decision.accuracies[name]
        session.progress.say(escape(f"  {arm_name(name):<20} validation {accuracy:.3f}"))
    session.progress.say(escape(f"  {describe(decision)}"))
    origin = {**(every[decision.winner].provenance or {}), "confirmed": decision.to_json()}
    if decision.winner in FREE:
        origin = {**found.provenance, "baseline": decision.winner, **origin}
    elif decision.winner == MEAN:
        origin = {**found.provenance, **origin}
    return replace(every[decision.winner], provenance=origin), decision


def measure_headroom(session: SweepSession, plan: RolePlan, task: Task, *, force: bool) -> None:
    """Train without augmentation and with the uniform policy, and end the sweep if the latter gains nothing.

    Args:
        session: Session of the sweep.
        plan: Plan of the role.
        task: Task of the search.
        force: True to report alone.

    Raises:
        WorkError: There is nothing to gain.
    """
    role = task.role
    like = Schedule((Phase(1, Genome()),), role, task.image)
    arms = {name: baseline_schedule(name, like) for name in ("none", "uniform")}
    session.progress.stage(f"{role} headroom")
    found = _train(session, plan, task, arms, range(plan.headroom_seeds), HEADROOM, 0)
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(found["uniform"], found["none"], strict=True)
        if math.isfinite(ours.score) and math.isfinite(theirs.score)
    ]
    if not pairs:
        return
    accuracy = paired_difference(*zip(*((ours.accuracy, theirs.accuracy) for ours, theirs in pairs), strict=True))
    score = paired_difference(*zip(*((ours.score, theirs.score) for ours, theirs in pairs), strict=True))
    event = HeadroomMeasured(role=role, seeds=len(pairs), difference=accuracy[0], half_width=_or_nan(accuracy[1]))
    if role not in session.journal.history.headroom:
        session.journal.write(event)
    line = describe_headroom(event)
    session.progress.say(escape(f"  {line}"))
    if _upper(accuracy) > LEAST_GAIN or _upper(score) > 0:
        return
    hint = "more epochs, fewer training images, a better teacher or second views may leave something to gain"
    if not force:
        raise WorkError(f"augmentation has nothing to gain for the {role}: {line}; {hint}; --force searches anyway")
    session.progress.say(escape(f"  nothing to gain; {hint}"))


def describe(decision: Decision) -> str:
    """Return the outcome as one sentence.

    Example:
        >>> from search.algorithms.rejects import Decision
        >>> describe(Decision("policy", "uniform", (0.1, 0.05), (0.012, 0.004), 3))
        'confirmed: with policy − uniform = +1.20 ± 0.40 points on validation images (3 seeds)'
    """
    return describe_confirmation(_confirmed("", decision))


def _confirmed(role: str, decision: Decision) -> PolicyConfirmed:
    mean, half_width = decision.accuracy_difference
    return PolicyConfirmed(
        role=role,
        winner=decision.winner,
        against=decision.against,
        free=decision.winner in FREE,
        seeds=decision.seeds,
        difference=mean,
        half_width=_or_nan(half_width),
        accuracies=dict(decision.accuracies),
    )


def _train(
    session: SweepSession,
    plan: RolePlan,
    task: Task,
    schedules: Mapping[str, Schedule],
    seeds: Sequence[int],
    kind: str,
    number: int,
) -> dict[str, list[Measured]]:
    """Train each schedule from each seed, for the epochs of the final training, and score it."""
    role, epochs = task.role, plan.final_epochs
    task = replace(task, epochs=epochs, validate_every=epochs, score=plan.final_score)
    places = [(name, seed) for seed in seeds for name in schedules]
    members = [
        Member(
            name=_name(role, kind, name, seed),
            index=index,
            seed=member_seed(plan.seed, role, 5 if kind == CONFIRM else 6, seed),
            source=schedules[name].stretch(epochs),
            stage="confirmation" if kind == CONFIRM else kind,
            arm=name,
        )
        for index, (name, seed) in enumerate(places)
    ]
    outcomes = session.run_stage(
        session.callback(), f"{role}-{kind}-{number}", task, members, max(1, epochs // 10), retry_each=True
    )
    found: dict[str, list[Measured]] = {name: [] for name in schedules}
    for (name, _), outcome in zip(places, outcomes, strict=True):
        found[name].append(Measured(math.nan) if outcome.error else Measured(outcome.score, outcome.accuracy))
    return found


def _name(role: str, kind: str, candidate: str, seed: int) -> str:
    return f"{role}-{kind}-{candidate.replace(' ', '_')}-{seed}"


def _upper(difference: tuple[float, float | None]) -> float:
    return difference[0] + (difference[1] or 0.0)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
