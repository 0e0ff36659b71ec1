"""A screening experiment as a search: its factors, its policy, a second round, and a session that was cut off."""

from __future__ import annotations

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
from ray.tune.search import Searcher
from support import start_search

from results.runlog.members import METRIC
from search import SweepConfig
from search.algorithms.factors import genome_of, space_factors, with_fixed, without_fixed
from search.config.sections import ResourceConfig
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.execution.trials import JournalCallback, run_trials
from spaces import RequestError, Schedule, Space, WorkError
from spaces.augmentations import CutMix
from trainables import Recipe, Task
from trainables.data import load

EPOCHS = 2
SCALED = Space(operations=("Rotate", "Invert", "Cutout"), genome="scaled", augment=("identity", "cutmix"))
PBA = Space(operations=("Rotate", "Invert", "Cutout"), genome="pba")


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    return Task("student", "mlp", data, Recipe(lr=0.05, batch_size=20), EPOCHS, validation=data.validation)


@pytest.fixture
def start(task, tmp_path):
    """Starts a search with a journal of its own, or with the one in `folder`; nothing of it is trained."""
    journals = []

    def make(space=SCALED, folder=None, **settings):
        folder = folder or tmp_path / str(len(journals))
        folder.mkdir(exist_ok=True)
        journals.append(Journal(folder))
        settings = {"trials": 16, "epochs": EPOCHS, **settings}
        return start_search("student-factorial", "factorial", task, space, journals[-1], **settings)

    yield make
    for journal in journals:
        journal.__exit__(None, None, None)


class Ended(Outcome):
    """An outcome with the state of a learner that played no game."""

    def state(self):
        return {"game": None}


def outcomes(search, score):
    """One for each member, with the score of its genome and noise that follows from its index."""
    noise = np.random.default_rng(0).normal(0, 0.002, 1000)
    scores = [(member.name, score(member.source) + noise[member.index]) for member in search.members]
    return [Ended(name, EPOCHS, value, None, "") for name, value in scores]


def on(genome, op):
    return any(entry.op == op and entry.weight > 0 for entry in genome.policy)


def strength(genome, op):
    return next(entry.strength for entry in genome.policy if entry.op == op)


# ---- factors ---------------------------------------------------------------------------------------


def test_everything_that_a_space_leaves_free_is_a_factor():
    distill = {"loss": ["kd", {"dkd": {"beta": {"low": 1.0, "high": 8.0}}}], "temperature": {"low": 1, "high": 9}}
    space = replace(SCALED, distill={**distill, "alpha": 0.5}, bits={"weights": [2, 4]})
    found = {factor.name: (factor.kind, factor.levels, factor.within) for factor in space_factors(space)}
    assert found == {
        **{op: ("operation", ("off", "on"), None) for op in SCALED.operations},
        **{f"{op} strength": ("level", ("low", "high"), (op, 1)) for op in SCALED.operations},
        "amount": ("setting", (0.5, 1.0), None),
        "operations": ("choice", (1, 2), None),
        "augment": ("choice", ("identity", "cutmix"), None),
        "distill.loss": ("choice", ("kd", "dkd"), None),
        "distill.loss[1].dkd.beta": ("setting", (1.0, 8.0), ("distill.loss", 1)),
        "distill.temperature": ("setting", (1, 9), None),
        "bits.weights": ("choice", ("2", "4"), None),
    }


def test_an_operation_without_a_level_has_no_strength_in_pba():
    assert [factor.name for factor in space_factors(PBA)] == [
        "Rotate",
        "Rotate strength",
        "Invert",
        "Cutout",
        "Cutout strength",
    ]
    assert space_factors(Space(operations=(), genome="scaled")) == ()


def test_levels_name_a_genome():
    distill = {
        "loss": ["kd", {"dkd": {"beta": {"low": 1.0, "high": 9.0, "log": True}}}],
        "temperature": {"low": 1, "high": 4},
    }
    space = replace(SCALED, distill=distill)
    levels = {"Rotate": 1, "Rotate strength": 0, "Invert": 1, "Cutout": 0, "amount": 1, "operations": 1}
    genome = genome_of(space, {**levels, "augment": 1, "distill.loss": 1, "distill.temperature": 1})
    policy = genome.policy
    assert (policy.amount, policy.operations) == (1.0, 2)
    assert [(e.weight, e.strength) for e in policy] == [(1.0, 0.5), (1.0, 0.75), (0.0, 0.75)]
    assert genome.augment == CutMix()
    assert genome.distill == {"loss": {"dkd": {"beta": 3.0}}, "temperature": 4}, "the middle where nothing is said"
    assert genome_of(space, {}).policy.is_identity and genome_of(space, {}).distill["temperature"] == 2


@pytest.mark.parametrize(("level", "magnitudes"), [(0, (3, 3)), (1, (8, 8)), (None, (3, 8))])
def test_levels_of_pba_are_magnitudes_of_both_copies(level, magnitudes):
    levels = {"Rotate": 1} if level is None else {"Rotate": 1, "Rotate strength": level}
    genome = genome_of(PBA, levels)
    PBA.check(genome)
    rotate = [entry for entry in genome.policy if entry.op == "Rotate"]
    assert tuple(entry.magnitude for entry in rotate) == magnitudes
    assert [entry.probability for entry in rotate] == [10, 10]
    assert {entry.probability for entry in genome.policy if entry.op != "Rotate"} == {0}


def test_factors_within_a_fixed_one_are_in_all_trials_or_in_none():
    factors = space_factors(SCALED)
    left = {
        factor.name: factor.within
        for factor in without_fixed(factors, {"Rotate": 1, "Invert": 0, "Cutout strength": 1})
    }
    assert left["Rotate strength"] is None and "Invert strength" not in left and "Cutout strength" not in left
    assert with_fixed(factors, {"Cutout strength": 1}, {"Cutout": 0}) == {"Cutout": 0}
    assert with_fixed(factors, {"Cutout strength": 1}, {"Cutout": 1}) == {"Cutout": 1, "Cutout strength": 1}


# ---- the policy ------------------------------------------------------------------------------------


def test_the_policy_has_what_is_more_likely_good_than_not(start):
    def score(genome):
        rotate = on(genome, "Rotate") * (0.02 + 0.04 * (strength(genome, "Rotate") == 0.5))
        return 0.8 + rotate - 0.1 * on(genome, "Invert") + 0.03 * (genome.augment == CutMix())

    search = start(trials=24)
    ends = outcomes(search, score)
    found = search.result(ends, {"sweep": "test"})
    (phase,) = found.schedule.phases
    assert phase.epochs == EPOCHS and phase.genome.policy.by_operation().keys() >= {"Rotate"}
    assert not on(phase.genome, "Invert")
    assert strength(phase.genome, "Rotate") == 0.5 and phase.genome.augment == CutMix()
    effects = search.effects(ends)
    assert effects.policy["Rotate"] == "on" and effects.policy["Rotate strength"] == "low"
    assert effects.policy["Invert"] == "off" and "Invert strength" not in effects.policy
    estimates = {effect.factor: effect for effect in effects.effects}
    assert estimates["Invert"].low < -10 < estimates["Invert"].high
    best = max(ends, key=lambda each: each.score)
    origin = found.schedule.provenance
    assert found.best == best and found.value == origin["value"] == best.score and origin["run"] == best.name
    assert origin["effects"]["Rotate"][0] == estimates["Rotate"].estimate and origin["trials"] == 24
    assert Schedule.loads(found.schedule.dumps()) == found.schedule


@pytest.mark.parametrize("space", [replace(SCALED, augment=("identity",)), PBA])
def test_where_every_operation_harms_the_policy_is_the_identity(start, space):
    def score(genome):
        return 0.9 - 0.02 * sum(value > 0 for value in genome.policy.probability().values())

    search = start(space)
    (phase,) = search.result(outcomes(search, score), {}).schedule.phases
    assert phase.genome.is_identity


def test_a_member_that_failed_says_nothing(start):
    search = start(trials=8)
    ends = outcomes(search, lambda genome: 0.8)
    broken = [replace(each, error="it broke", score=math.nan) if each.name.endswith("03") else each for each in ends]
    assert search.effects(broken).trials == 7
    few = [each if index < 2 else replace(each, error="it broke") for index, each in enumerate(ends)]
    with pytest.raises(WorkError, match="every member of student-factorial failed; the first: it broke"):
        search.effects(few)


# ---- two rounds ------------------------------------------------------------------------------------


def finish(search, member, score):
    journal = search._journal
    journal.reported(member.name, EPOCHS, {METRIC: score})
    journal.saved(member.name, EPOCHS, journal.folder / "trials" / member.name)
    journal.ended(member.name)


def score_of(genome):
    return 0.8 - 0.2 * on(genome, "Invert") + 0.1 * on(genome, "Rotate")


def suggest_all(search, stop=1000):
    """Run trials one after another, each finished before the next; at most `stop` of them."""
    searcher, noise = search.searcher([]), np.random.default_rng(1).normal(0, 0.001, 1000)
    for number in range(stop):
        if (config := searcher.suggest(str(number))) == Searcher.FINISHED:
            break
        member = next(each for each in search.members if each.name == config["member"]["name"])
        finish(search, member, score_of(member.source) + noise[member.index])
    return search.members


def test_the_second_round_fixes_what_is_clear(start):
    search = start(trials=32, rounds=2)
    assert len(search.members) == 16 and search.missing == 16 and search.waits
    members = suggest_all(search)
    assert len(members) == 32 and search.missing == 0
    assert {on(member.source, "Invert") for member in members[16:]} == {False}
    assert {on(member.source, "Rotate") for member in members[16:]} == {True}
    cutout = [on(member.source, "Cutout") for member in members[16:]]
    assert sum(cutout) == 8, "what is not clear is balanced again"
    found = search.effects([Ended(m.name, EPOCHS, score_of(m.source), None, "") for m in members])
    assert found.trials == 32 and found.policy["Rotate"] == "on" and found.policy["Invert"] == "off"


def test_the_second_round_waits_for_the_first(start):
    search = start(trials=16, rounds=2)
    searcher = search.searcher([])
    handed = [searcher.suggest(str(number)) for number in range(9)]
    assert handed[-1] is None and all(handed[:8]), "not finished, but nothing to hand out"


@pytest.mark.parametrize("stop", [3, 8, 13])
def test_a_search_of_two_rounds_that_was_cut_off_is_the_one_that_was_not(start, stop):
    whole = suggest_all(start(trials=16, rounds=2))
    cut = start(trials=16, rounds=2)
    suggest_all(cut, stop)
    cut._journal.__exit__(None, None, None)
    again = start(folder=cut._journal.folder, trials=16, rounds=2)
    assert suggest_all(again) == whole


# ---- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 3}, "trials must be >= 4 with algorithm: factorial, got 3"),
        ({"trials": 7, "rounds": 2}, "trials must be >= 8 with algorithm: factorial for 2 rounds, got 7"),
        ({"rounds": 3}, "rounds.*less than or equal to 2"),
        ({"population": 8}, "population must be left out with algorithm: factorial; set trials"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(RequestError, match=message):
        SweepConfig.from_mapping(
            {"data": {"name": "digits"}, "teacher": {"search": {"algorithm": "factorial", **changes}}}
        )


def test_a_space_with_nothing_to_choose_is_refused():
    content = {
        "data": {"name": "digits"},
        "teacher": {"search": {"algorithm": "factorial"}},
        "space": {"operations": []},
    }
    with pytest.raises(RequestError, match="algorithm: factorial must have something to choose; free operations"):
        SweepConfig.from_mapping(content)


def test_it_has_24_trials_if_nothing_else_is_said():
    config = SweepConfig.from_mapping({"data": {"name": "digits"}, "teacher": {"search": {"algorithm": "factorial"}}})
    assert config.teacher.search.trials == 24


def test_too_few_trials_for_the_factors_are_warned_of(start, caplog):
    search = start(Space(genome="scaled"), trials=12)
    assert "12 trials cannot tell 17 effects apart" in caplog.text
    assert search.effects(outcomes(search, lambda genome: 0.8)).notes[0].startswith("12 trials cannot tell 17")


# ---- with Ray --------------------------------------------------------------------------------------


class Died(BaseException):
    """Nobody who is told of an exception expects this one."""


class Mortal(Journal):
    """A journal whose writer dies before a given line of this session."""

    left = None

    def write(self, event):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Died
        super().write(event)


def session(task, folder, left=None):
    """One session of a search of two rounds: the policy's bytes, or None where it died."""
    folder.mkdir(exist_ok=True)
    settings = {"seed": 5, "epochs": EPOCHS, "interval": 1, "trials": 8, "rounds": 2}
    with Mortal(folder) as journal:
        journal.left = left
        search = start_search(
            "student-factorial", "factorial", task, replace(SCALED, augment=("identity",)), journal, **settings
        )
        gc.collect()  # a session that was cut off lets go of its workers
        searcher = search.searcher([])
        callback = JournalCallback(journal)
        stage = {"name": "student-search", "save_every": 1, "suggestions": searcher}
        try:
            run_trials(search.members, task, ResourceConfig(), callback, **stage)
        except Died:
            return None
        progress = [journal.progress(member.name) for member in search.members]
        ends = [Outcome(each.name, each.epoch, each.score(1), each.checkpoint, each.error) for each in progress]
        return search.result(ends, {"sweep": "test"}).schedule.dumps()


@pytest.mark.slow
def test_wherever_it_dies_the_policy_is_that_of_an_undisturbed_search(task, marks, tmp_path):
    alone = replace(task, role="teacher")
    whole = session(alone, tmp_path / "whole")
    folder = tmp_path / "cut"
    assert session(alone, folder, 26) is None, "in the second"
    assert session(alone, folder) == whole
