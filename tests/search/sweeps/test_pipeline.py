"""Pipelines of searches: what the file may say, where each search starts, and one sweep from headroom to the test."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from results.analysis.effects import EffectsReport
from results.runlog.events import HeadroomMeasured, PolicyConfirmed, parse_event
from results.runlog.history import History
from search.algorithms.base import SearchResult
from search.config.schema import SweepConfig
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.sweeps import runner
from search.sweeps.confirmation import MEAN, baseline_schedule, candidates, describe
from search.sweeps.plan import SweepPlan
from spaces import (
    BASELINES,
    Entry,
    Genome,
    ImageSpec,
    Phase,
    Policy,
    RequestError,
    ScaledEntry,
    ScaledPolicy,
    Schedule,
    Space,
    WorkError,
)

FACTORIAL = {"algorithm": "factorial", "trials": 8, "epochs": 3}
PBT = {"algorithm": "pbt", "population": 4, "epochs": 6, "interval": 2}


def config(**sections):
    content = {
        "name": "pipe",
        "data": {"name": "digits", "train": 60, "validation": 60},
        "teacher": {"model": "mlp", "search": [FACTORIAL, PBT], "final": {"epochs": 4}},
        "student": None,
        "space": {"genome": "scaled"},
    }
    return SweepConfig.from_mapping(content | sections)


def stages(search, **sections):
    teacher = {"model": "mlp", "search": search, "final": {"epochs": 4}}
    return SweepPlan.resolve(config(teacher=teacher, **sections)).roles["teacher"].stages


# ---- what the file may say -------------------------------------------------------------------------------------------


def test_a_list_is_written_as_it_was_read():
    read = config()
    assert [search.algorithm for search in read.teacher.searches] == ["factorial", "pbt"]
    assert SweepConfig.from_mapping(json.loads(read.model_dump_json(by_alias=True))) == read
    assert read.teacher.final_epochs == 4


@pytest.mark.parametrize(
    ("search", "rule"),
    [
        ([FACTORIAL, {**PBT, "epoch": 3}], "unknown key at teacher.search[1].epoch: 'epoch'; did you mean 'epochs'?"),
        (
            [FACTORIAL, {**PBT, "epochs": 0}],
            "teacher.search[1].epochs: Input should be greater than or equal to 1, got 0",
        ),
        ([], "teacher.search: "),
        ([PBT, {**PBT, "start": "factorial"}], "start: factorial must come after algorithm: factorial"),
        ([{"algorithm": "random", "start": "zero"}], "start must be left out with algorithm: random"),
        ([{"algorithm": "pb2", "growth": 2.0}], "growth must be left out with algorithm: pb2"),
    ],
)
def test_a_fault_names_its_place_in_the_list(search, rule):
    with pytest.raises(RequestError) as refused:
        config(teacher={"model": "mlp", "search": search})
    assert rule in str(refused.value)


def test_a_later_search_may_copy_weights_although_the_first_chose_bits():
    student = {"model": "mlp", "search": [FACTORIAL, PBT]}
    bits = {"space": {"genome": "scaled", "bits": {"weights": [2, 32]}}}
    assert config(student=student, **bits).student is not None
    with pytest.raises(RequestError, match=r"space\.bits must not be free with algorithm: pbt"):
        config(student={"model": "mlp", "search": [PBT, FACTORIAL]}, **bits)


# ---- where a search starts -------------------------------------------------------------------------------------------


def test_names_are_unique_and_each_search_continues_the_one_before():
    found = stages([FACTORIAL, PBT, {**PBT, "start": "factorial"}, {**PBT, "start": "uniform"}])
    assert [stage.name for stage in found] == ["teacher-factorial", "teacher-pbt", "teacher-pbt_2", "teacher-pbt_3"]
    assert [stage.continues for stage in found] == [None, 0, 0, None]


def test_the_random_control_has_the_budget_of_all_searches():
    plan = SweepPlan.resolve(config(baselines=["random", "blind"])).roles["teacher"]
    assert plan.control.epochs == pytest.approx(8 * 3 + 4 * 6, abs=3) and plan.control.settings.epochs == 6
    assert (plan.blind.members, plan.blind.epochs, plan.blind.continues) == (4, 24, 0)


def policy_file(tmp_path, policy, role="teacher"):
    schedule = Schedule((Phase(2, Genome()), Phase(3, Genome(policy))), role, ImageSpec(8, 1, (0,)))
    return str(schedule.save(tmp_path / "start.json"))


def test_a_search_can_start_from_a_policy_file(tmp_path):
    genome = Space(genome="scaled").uniform()
    (stage,) = stages([{**PBT, "start": policy_file(tmp_path, genome.policy)}])
    assert stage.first == genome and stage.continues is None


@pytest.mark.parametrize(
    ("policy", "role", "rule"),
    [
        (Space(genome="scaled").uniform().policy, "student", "teacher.search.start must be a policy for the teacher"),
        (Space().uniform().policy, "teacher", "must be scaled (genome: scaled)"),
        (ScaledPolicy(1, 1, (ScaledEntry("Rotate", 1, 1),)), "teacher", "must be those of the space, in its order"),
    ],
)
def test_a_start_file_that_does_not_fit_is_refused(tmp_path, policy, role, rule):
    with pytest.raises(RequestError) as refused:
        stages([{**PBT, "start": policy_file(tmp_path, policy, role)}])
    assert rule in str(refused.value)


def result_of(policy):
    schedule = Schedule((Phase(3, Genome(policy)),), "teacher", ImageSpec(8, 1, (0,)))
    return SearchResult(schedule, Outcome("best", 3, 0.5, None, ""), (), 0.5)


def test_a_later_search_moves_only_the_operations_that_passed():
    space = Space(("Rotate", "Cutout", "Invert"), genome="scaled")
    entries = (ScaledEntry("Rotate", 1, 0.5), ScaledEntry("Cutout", 0, 0.5), ScaledEntry("Invert", 0.2, 1))
    stage = stages([FACTORIAL, PBT])[1]
    narrow, first = runner._start(stage, space, [result_of(ScaledPolicy(0.8, 2, entries))])
    assert narrow.operations == ("Rotate", "Invert")
    assert first.policy == ScaledPolicy(0.8, 2, (entries[0], entries[2]))
    narrow.check(first)
    assert runner._start(stage, space, [result_of(ScaledPolicy(0.8, 2, ()))]) is None, "nothing is left to move"


@pytest.mark.parametrize("start", ["zero", "uniform", "random", None])
def test_every_member_starts_as_the_rule_says(tmp_path, start):
    plan = SweepPlan.resolve(config(teacher={"model": "mlp", "search": {**PBT, "start": start}})).roles["teacher"]
    with Journal(tmp_path) as journal:
        members = plan.stages[0].start(plan.task, plan.space, journal).members
    genomes = [member.source for member in members]
    if start == "random":
        assert len(set(genomes)) == 4
    else:
        expected = plan.space.uniform() if start == "uniform" else plan.space.zero()
        assert genomes == [expected] * 4


# ---- confirmation ----------------------------------------------------------------------------------------------------


def test_the_candidates_are_the_policy_its_average_and_the_free_baselines():
    rotate = Genome(Policy((Entry("Rotate", 5, 5),)))
    found = Schedule(
        (Phase(2, Genome(Policy((Entry("Rotate", 0, 0),)))), Phase(2, rotate)), "student", ImageSpec(8, 1, (0,))
    )
    every = candidates(found, {"mine": found})
    assert list(every) == [*BASELINES, "policy", MEAN, "mine"]
    assert every[MEAN].phases[0].genome.policy.entries[0].probability in (2, 3)
    assert every["uniform"].at(0).policy == BASELINES["uniform"] and every["uniform"].epochs == 4
    constant = replace(found, phases=(Phase(4, rotate),))
    assert list(candidates(constant, {})) == [*BASELINES, "policy"]
    assert list(candidates(baseline_schedule("none", found), {})) == list(BASELINES), "the identity is `none`"


def test_events_survive_the_journal():
    for event in (
        HeadroomMeasured(role="teacher", seeds=1, difference=0.1, half_width=float("nan")),
        PolicyConfirmed(
            role="student",
            winner="policy",
            against="uniform",
            free=False,
            seeds=3,
            difference=0.1,
            half_width=0.02,
            accuracies={"policy": 0.9, "none": float("nan")},
        ),
    ):
        again = parse_event(json.dumps(event.to_json(), allow_nan=False))
        assert repr(again) == repr(event)


# ---- a whole sweep ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("_ray", "scored_here")
def test_a_pipeline_from_headroom_to_the_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = config(
        student={"model": "mlp", "search": FACTORIAL, "final": {"epochs": 3}},
        headroom={"seeds": 1, "report": True},
        confirm={"seeds": 1},
        baselines=["none", "random", "blind"],
        tracking={"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
    )
    result = runner.run(sweep)
    folder = tmp_path / "runs" / "pipe-001"
    assert not result.failed
    history = History.read(folder)
    assert set(history.confirmations) == set(history.headroom) == {"teacher", "student"}
    assert set(EffectsReport.load(folder / "effects.json").roles) == {"teacher", "student"}
    for role in result.roles:
        assert role.confirmation and "policy" in role.test and {"random"} <= set(role.test)
        schedule = Schedule.load(role.policy_file)
        confirmed, event = schedule.provenance["confirmed"], history.confirmations[role.role]
        assert (confirmed["winner"], confirmed["seeds"]) == (event.winner, 1)
        assert result.notes()[0].startswith("teacher: ") and "confirmed" in result.notes()[0]
        if event.winner in BASELINES:
            assert schedule.at(0).policy == BASELINES[event.winner] and event.winner not in role.test
    assert "blind" in result.roles[0].test and "blind" not in result.roles[1].test
    trained = [member for stage in history.stages.values() for member in stage.members.values()]
    assert any(member.name == "teacher-full-train_only-0" for member in trained)
    spent = sum(member.epoch for member in trained)
    assert spent <= SweepPlan.resolve(sweep).total_epochs, "the plan counts every training that there may be"
    policies = [(folder / f"policy.{role}.json").read_bytes() for role in ("teacher", "student")]
    cut_off(folder)
    again = runner.run(sweep, resume=True)
    assert [(folder / f"policy.{role}.json").read_bytes() for role in ("teacher", "student")] == policies
    assert again.roles == result.roles


def cut_off(folder):
    """Leave a journal that ends amid the confirmation of the student's policy."""
    lines = (folder / "journal.jsonl").read_text("utf-8").splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if '"trial_started"' in line and "student-confirm" in line)
    (folder / "journal.jsonl").write_text("".join(lines[: place + 1]), "utf-8")
    for file in ("policy.student.json", "result.json"):
        (folder / file).unlink()


@pytest.mark.slow
@pytest.mark.usefixtures("_ray", "scored_here")
def test_a_sweep_ends_where_there_is_nothing_to_gain_unless_it_is_forced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nothing = {"operations": ["Invert"], "genome": "scaled"}
    sweep = config(
        teacher={"model": "mlp", "search": {"algorithm": "random", "trials": 2, "epochs": 1}, "final": {"epochs": 1}},
        space=nothing,
        headroom={"seeds": 2},
        baselines=[],
        tracking={"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
    )
    monkeypatch.setattr("search.sweeps.confirmation.LEAST_GAIN", 1.0)
    monkeypatch.setattr("search.sweeps.confirmation._upper", lambda difference: -1.0)
    with pytest.raises(WorkError, match=r"has nothing to gain for the teacher: .*; --force searches anyway"):
        runner.run(sweep)
    assert runner.run(sweep, resume=True, force=True).roles[0].role == "teacher"


def test_the_outcome_is_one_sentence():
    from search.algorithms.rejects import Decision

    lost = Decision("uniform", "policy", (-0.2, 0.1), (-0.01, None), 1)
    assert describe(lost) == (
        "not confirmed, uniform is exported: with policy − uniform = -1.00 points on validation images (1 seed)"
    )
