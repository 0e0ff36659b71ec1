"""Stages on a real Ray: members that copy, fail, die, and share workers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from support import start_search

from results.runlog.export import export_policy
from results.runlog.history import History
from results.runlog.lineage import ancestry
from search.algorithms.base import member_seed
from search.config.sections import ResourceConfig
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.execution.trials import JournalCallback, run_trials
from spaces import Genome, Space, WorkError
from trainables import Recipe, Task
from trainables.data import load

pytestmark = pytest.mark.slow

EPOCHS, INTERVAL, SIZE = 6, 2, 4


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)  # three batches an epoch: a ninth batch is in the third
    recipe = Recipe(lr=0.05, batch_size=20)
    return Task("teacher", "mlp", data, recipe, EPOCHS, validation=data.validation, validate_every=INTERVAL)


SIZES = {"epochs": EPOCHS, "interval": INTERVAL}


def search(task, folder, *, seed=0, synchronous=True, retries=0):
    settings = {**SIZES, "population": SIZE, "synchronous": synchronous}
    folder.mkdir(exist_ok=True)
    with Journal(folder) as journal:
        stage = start_search("teacher-pbt", "pbt", task, Space(), journal, seed=seed, **settings)
        outcomes = run_trials(
            stage.members,
            task,
            ResourceConfig(retries=retries),
            JournalCallback(journal),
            name=stage.name,
            save_every=INTERVAL,
            scheduler=stage.scheduler(),
        )
    return stage, outcomes


def test_a_search_finds_the_same_policy_twice(task, marks, tmp_path):
    stage, outcomes = search(replace(task, model="faulty:whose_process"), tmp_path / "first")
    found = stage.result(outcomes, {"sweep": "test"})
    assert [outcome.epochs for outcome in outcomes] == [EPOCHS] * SIZE
    assert found.best.score == max(outcome.score for outcome in outcomes)
    assert found.schedule.epochs == EPOCHS and found.schedule.provenance["run"] == found.best.name
    assert len(found.exploits) == 2
    assert History.read(tmp_path / "first").exploits("teacher-pbt") == list(found.exploits)
    # Two slots, so two workers, through all pauses and copies.
    assert 1 <= len(list(marks.glob("pid-*"))) <= 2
    # A checkpoint of each member carries the genomes that its weights were trained with.
    for outcome in outcomes:
        carried = [(item["epochs"], Genome.from_json(item["genome"])) for item in outcome.state()["history"]]
        line = ancestry(outcome.name, EPOCHS, {m.name: m.source for m in stage.members}, found.exploits)
        assert carried == [(phase.epochs, phase.genome) for phase in line.phases]
    # No policy file was written yet: what the driver kept at the boundaries is enough to export one.
    assert export_policy(str(tmp_path / "first"), "teacher").phases == found.schedule.phases

    again, outcomes = search(replace(task, model="faulty:whose_process"), tmp_path / "second")
    assert again.result(outcomes, {"sweep": "test"}).schedule.dumps() == found.schedule.dumps()


def test_a_member_that_raises_is_named_and_the_others_go_on(task, marks, tmp_path):
    stage, outcomes = search(replace(task, model="faulty:raises_once"), tmp_path)
    failed = [outcome for outcome in outcomes if outcome.error]
    assert len(failed) == 1 and "RuntimeError: a cable was pulled" in failed[0].error
    assert failed[0].epochs == 2 and "\n" not in failed[0].error
    assert [outcome.epochs for outcome in outcomes if not outcome.error] == [EPOCHS] * (SIZE - 1)
    assert stage.result(outcomes, {}).best.name != failed[0].name


def test_a_worker_that_dies_is_replaced_and_its_member_goes_on_from_its_checkpoint(task, marks, tmp_path):
    _, outcomes = search(replace(task, model="faulty:dies_once"), tmp_path, retries=1)
    assert list(marks.glob("fault-*"))
    assert [(outcome.epochs, outcome.error) for outcome in outcomes] == [(EPOCHS, "")] * SIZE


def test_without_waiting_for_each_other_all_members_end_too(task, marks, tmp_path):
    stage, outcomes = search(task, tmp_path, synchronous=False)
    assert [outcome.epochs for outcome in outcomes] == [EPOCHS] * SIZE
    assert stage.result(outcomes, {}).schedule.epochs == EPOCHS


def stage_of(task, folder, seed=0):
    with Journal(folder) as journal:
        return start_search("teacher-random", "random", task, Space(), journal, seed=seed, trials=SIZE, **SIZES)


def test_random_members_have_genomes_of_their_own_and_nobody_moves_them(task, tmp_path):
    stage = stage_of(task, tmp_path, seed=3)
    genomes = [member.source for member in stage.members]
    assert len(set(genomes)) == SIZE and not any(genome.is_identity for genome in genomes)
    assert stage.scheduler() is None
    assert genomes == [member.source for member in stage_of(task, tmp_path, seed=3).members]
    assert genomes != [member.source for member in stage_of(task, tmp_path, seed=4).members]


def test_where_all_members_fail_the_first_reason_is_given(task, tmp_path):
    stage = stage_of(task, tmp_path)
    outcomes = [Outcome(m.name, 2, 0.5, None, f"reason {m.index}") for m in stage.members]
    with pytest.raises(WorkError, match="every member of teacher-random failed; the first: reason 0"):
        stage.result(outcomes, {})
    with pytest.raises(WorkError, match="no member was scored"):
        stage.result([Outcome(stage.members[0].name, EPOCHS, math.nan, None, "")], {})


def test_no_two_purposes_share_a_seed():
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2,)]
    seeds = [member_seed(seed, role, *place) for seed in (0, 1) for role in ("teacher", "student") for place in places]
    assert len(set(seeds)) == len(seeds)
