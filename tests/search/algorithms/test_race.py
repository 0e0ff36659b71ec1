"""Races: rounds that follow from scores alone, candidates in the terms of the space, and what is refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from ray.tune.search import Searcher
from support import start_search

from results.runlog.members import METRIC
from search.algorithms.optuna_searcher import Suggestions
from search.algorithms.race import candidate_genomes
from search.config.schema import SweepConfig
from search.config.sections import ResourceConfig, SearchConfig
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.execution.trials import JournalCallback, run_trials
from search.sweeps.plan import SweepPlan
from spaces import BASELINES, Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, Space
from trainables import Recipe, Task
from trainables.data import load

SPACE = Space(("Rotate", "Invert"), genome="scaled", augment=("identity", "cutmix"))
TRUE = {"none": 0.5, "uniform": 0.6, "trivialaugment": 0.8, "randaugment": 0.7}


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    return Task("student", "mlp", data, Recipe(batch_size=20), 2, validation=data.validation)


@pytest.fixture
def race(task, tmp_path):
    """Makes a race with a journal of its own, or with the one in `folder`."""
    journals = []

    def make(folder=None, seed=0, space=SPACE, **settings):
        folder = folder or tmp_path / str(len(journals))
        folder.mkdir(exist_ok=True)
        journals.append(Journal(folder))
        settings = {"trials": 16, "epochs": 2, "interval": 1, **settings}
        return start_search("student-race", "race", task, space, journals[-1], seed=seed, **settings)

    yield make
    for journal in journals:
        journal.__exit__(None, None, None)


def ends(search, name, true):
    """Let the journal know that a member is through; its score has noise of its own and of its seed."""
    candidate, seed = search._places[int(name.rpartition("-")[2])]
    score = true[candidate] + random.Random(seed).gauss(0, 0.05) + random.Random(f"{candidate} {seed}").gauss(0, 0.01)
    journal = search._journal
    journal.reported(name, 2, {METRIC: score})
    journal.saved(name, 2, journal.folder / "trials" / name)
    journal.ended(name)


def played(search, slots, order, true=TRUE, left=None):
    """Run the race without Ray, `slots` at once; returns its members. With `left`, only so many are handed out."""
    searcher, running, count = Suggestions(search, (), search._journal), [], 0
    while True:
        while len(running) < slots and count != left:
            config = searcher.suggest(str(count))
            if config is None or config == Searcher.FINISHED:
                break
            running.append(config["member"]["name"])
            count += 1
        if not running or count == left:
            return search.members
        ends(search, running.pop(order.randrange(len(running))), true)


def outcomes(search):
    found = [search._journal.progress(member.name) for member in search.members]
    return [Outcome(each.name, 2, each.score(1), None, each.error) for each in found]


def test_the_rounds_do_not_depend_on_which_worker_was_faster(race):
    runs = [played(race(), slots, random.Random(seed)) for slots, seed in ((1, 0), (2, 1), (5, 2), (30, 3))]
    assert all(members == runs[0] for members in runs) and len(runs[0]) == 16
    assert [member.cohort for member in runs[0]] == [0] * 8 + [1] * 8


def test_the_worse_half_is_rejected_and_the_best_wins(race):
    search = race()
    played(search, 2, random.Random(0))
    names = [name for name, _ in search._places]
    assert set(names[:8]) == set(BASELINES) and set(names[8:]) == {"trivialaugment", "randaugment"}
    assert [seed for _, seed in search._places[8:]] == [2, 2, 3, 3, 4, 4, 5, 5], "seeds of its own"
    paired = {}
    for (_, seed), member in zip(search._places, search.members, strict=True):
        assert paired.setdefault(seed, member.seed) == member.seed, "the same weights and batches for every candidate"
    assert len(set(paired.values())) == len(paired)
    found = search.result(outcomes(search), {"sweep": "test"})
    (phase,) = found.schedule.phases
    assert phase.genome == candidate_genomes(search.search, "student", SPACE)["trivialaugment"]
    decided = found.schedule.provenance["race"]
    assert (decided["winner"], decided["against"], decided["seeds"]) == ("trivialaugment", "randaugment", 4)
    assert decided["accuracy_difference"] == pytest.approx(0.1, abs=0.02)
    assert list(search.scores(outcomes(search))) == list(BASELINES)
    assert found.value == pytest.approx(0.8, abs=0.06) and found.best.name.startswith("student-race-")


@pytest.mark.parametrize("left", [1, 5, 8, 9, 15])
def test_a_race_that_is_cut_off_goes_on_as_it_would_have(race, left):
    whole = race()
    members = played(whole, 1, random.Random(0))
    cut = race()
    played(cut, 1, random.Random(0), left=left)
    folder = cut._journal.folder
    cut._journal.__exit__(None, None, None)
    again = race(folder=folder)
    assert len(again.members) == max(8, left)
    assert played(again, 1, random.Random(0)) == members
    assert again.result(outcomes(again), {}).schedule == whole.result(outcomes(whole), {}).schedule


def test_a_candidate_that_fails_loses(race):
    search = race(candidates=("none", "uniform"), trials=2)
    for member in search.members:
        if search._places[member.index][0] == "uniform":
            search._journal.ended(member.name, error="it broke")
        else:
            ends(search, member.name, TRUE)
    assert search.result(outcomes(search), {}).schedule.phases[0].genome == SPACE.zero()


def test_candidates_are_of_the_space(task):
    search = SearchConfig(algorithm="race")
    scaled = candidate_genomes(search, "student", SPACE)
    assert list(scaled) == list(BASELINES)
    for genome in scaled.values():
        SPACE.check(genome)
        assert genome.augment.kind == "identity"
    assert scaled["none"].is_identity and set(scaled["trivialaugment"].policy.by_operation()) == {"Rotate"}
    pba = Space(("Rotate",))
    assert candidate_genomes(search, "student", pba) == {"none": pba.zero(), "uniform": pba.uniform()}


def policy_file(tmp_path, space, name="mine", role="student"):
    schedule = Schedule((Phase(1, space.zero()), Phase(3, space.uniform())), role, ImageSpec(8, 1, (0,)))
    return str(schedule.save(tmp_path / f"{name}.json"))


def test_a_policy_file_races_as_its_average_over_time(tmp_path):
    path = policy_file(tmp_path, SPACE)
    found = candidate_genomes(SearchConfig(algorithm="race", candidates=("none", path)), "student", SPACE)
    assert list(found) == ["none", "mine"]
    SPACE.check(found["mine"])
    assert 0 < found["mine"].policy.amount < SPACE.uniform().policy.amount


def sweep(search, genome="scaled", **sections):
    content = {
        "data": {"name": "digits", "train": 60, "validation": 60},
        "teacher": {"model": "mlp", "search": search},
        "student": None,
        "space": {"operations": ["Rotate", "Invert"], "genome": genome},
    }
    return SweepConfig.from_mapping(content | sections)


RACE = {"algorithm": "race", "epochs": 2}


@pytest.mark.parametrize(
    ("search", "genome", "rule"),
    [
        ({"candidates": ["none", "unifrom"]}, "scaled", "unknown candidate 'unifrom'; did you mean 'uniform'?"),
        ({"candidates": ["none"]}, "scaled", "candidates must be two or more, with different names, got none"),
        ({"candidates": ["none", "a/b.json", "c/b.json"]}, "scaled", "with different names, got none, b, b"),
        ({"trials": 5}, "scaled", "trials must be >= 6 to race 4 candidates from one seed, got 5"),
        (
            {"candidates": ["none", "randaugment"]},
            "pba",
            "with space.genome: pba, got randaugment; set space.genome: scaled",
        ),
        ({"start": "zero"}, "scaled", "start must be left out with algorithm: race"),
    ],
)
def test_what_cannot_race_is_refused(search, genome, rule):
    with pytest.raises(RequestError) as refused:
        sweep({**RACE, **search}, genome)
    assert rule in str(refused.value)


def test_a_race_does_not_choose_bits():
    student, space = {"model": "mlp", "search": RACE}, {"bits": {"weights": [2, 4]}}
    with pytest.raises(RequestError, match=r"bits must not be free with algorithm: race"):
        SweepConfig.from_mapping({"data": {"name": "digits"}, "student": student, "space": space})


def test_a_race_is_the_first_search_of_its_list():
    pbt = {"algorithm": "pbt", "epochs": 6}
    plan = SweepPlan.resolve(sweep([RACE, pbt])).roles["teacher"]
    assert [stage.continues for stage in plan.stages] == [None, 0] and plan.stages[0].members == 16
    with pytest.raises(RequestError, match=r"algorithm: race must be the first search of teacher\.search"):
        sweep([pbt, RACE])


def test_a_file_that_does_not_fit_is_refused_before_anything_is_started(tmp_path):
    of_pba = Schedule((Phase(1, Genome(Policy((Entry("Rotate", 5, 5),)))),), "teacher", ImageSpec(8, 1, (0,)))
    files = {
        policy_file(tmp_path, SPACE): "teacher.search.candidates must be a policy for the teacher",
        str(of_pba.save(tmp_path / "pba.json")): "must be scaled (genome: scaled)",
        policy_file(tmp_path, Space(("Rotate",), genome="scaled"), "other", "teacher"): "must be those of the space",
        str(tmp_path / "missing.json"): "missing.json",
    }
    for path, rule in files.items():
        with pytest.raises(RequestError) as refused:
            SweepPlan.resolve(sweep({**RACE, "candidates": ["none", path]}))
        assert rule in str(refused.value)


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
def test_a_race_of_two_rounds_on_ray(task, tmp_path):
    teacher, settings = replace(task, role="teacher"), {"trials": 6, "epochs": 2, "interval": 1}
    with Journal(tmp_path) as journal:
        search = start_search("teacher-race", "race", teacher, SPACE, journal, **settings)
        stage = {"name": "teacher-race", "save_every": 1, "suggestions": search.searcher([])}
        run_trials(search.members, teacher, ResourceConfig(), JournalCallback(journal), **stage)
        progress = [journal.progress(member.name) for member in search.members]
        assert not search.missing and not search.pending and [member.cohort for member in search.members][4:] == [1, 1]
        ends = [Outcome(each.name, each.epoch, each.score(1), each.checkpoint, each.error) for each in progress]
        assert search.result(ends, {}).schedule.provenance["race"]["seeds"] == 1
