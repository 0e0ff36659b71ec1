"""The trainable that Ray Tune drives, called here without a cluster."""

import json
import sys

import pytest
import ray
import torch
from ray import tune
from ray.tune.trainable import trainable as tunes

from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule, WorkError
from trainables.ray_trainable import STATE_FILE, RoleTrial, Worker, read_state

LATER = Genome(Policy((Entry("Solarize", 9, 5), Entry("ShearY", 6, 7))))


@pytest.fixture(autouse=True)
def no_cluster():
    """A trial starts no Ray of its own; another room's tests may have one running."""
    before = ray.is_initialized()
    yield
    assert ray.is_initialized() == before


@pytest.fixture(params=["teacher", "student"])
def task(request, make_task):
    return make_task(request.param, validate_every=2)


def config(seed, source):
    """What Ray carries for a member, plain JSON data."""
    key = "schedule" if isinstance(source, Schedule) else "genome"
    return {"member": json.loads(json.dumps({"name": f"m-{seed}", "index": 0, "seed": seed, key: source.to_json()}))}


@pytest.fixture
def make_trial(task, tmp_path, monkeypatch):
    """A trial as Tune makes one in an actor; `tune.with_parameters` gives `setup` its arguments in the same way."""

    class Local(RoleTrial):
        def setup(self, config):
            super().setup(config, task=task, worker=Worker(cpus=1, gpus=0))

    monkeypatch.setattr(tunes, "DEFAULT_STORAGE_PATH", str(tmp_path / "tune"))  # not the user's home
    return lambda seed, source: Local(config(seed, source))


def replay(*phases, role="teacher"):
    return Schedule(tuple(Phase(*phase) for phase in phases), role, ImageSpec(8, 1, (64,)))


def saved(trial, folder):
    folder.mkdir()
    trial.save_checkpoint(str(folder))
    return folder


def state(trial, folder):
    return read_state(saved(trial, folder))


def steps(trial, count):
    for _ in range(count):
        trial.train()
    return trial


def direct(task, source, seed, epochs):
    """The same training without Ray."""
    learner = task.learner(source, seed=seed)
    for _ in range(epochs):
        learner.step()
    return learner.state_dict()


def test_is_a_trainable_that_serves_many_trials(make_trial, rich):
    trial = make_trial(1, rich)
    assert isinstance(trial, tune.Trainable)
    assert trial.reset_config(config(2, LATER)) is True


def test_a_step_is_an_epoch_of_the_task(make_trial, task, rich):
    trial, learner = make_trial(1, rich), task.learner(rich, seed=1)
    for epoch in (1, 2):
        result, expected = trial.train(), task.train_epoch(learner)
        assert result["training_iteration"] == epoch
        assert expected.keys() <= result.keys() and ("validation_accuracy" in result) == (epoch == 2)
        timed = {name for name in expected if name.startswith(("seconds/", "images_per_s"))}
        assert {name: result[name] for name in expected.keys() - timed} == {
            name: expected[name] for name in expected.keys() - timed
        }


def test_threads_and_search_path(task, rich, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    known, threads = sys.path[0], []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    trial = RoleTrial.__new__(RoleTrial)
    for _ in range(2):
        trial.setup(config(1, rich), task=task, worker=Worker(cpus=3, gpus=0, search_path=(known, "/roletune/nets")))
    assert threads == [3, 3]
    assert sys.path.count("/roletune/nets") == 1 and sys.path.count(known) == 1 and sys.path[-1] == "/roletune/nets"


def test_nothing_is_built_before_it_is_needed(task, rich, make_trial, monkeypatch):
    built = []
    monkeypatch.setattr(type(task), "learner", lambda *args, **kwargs: built.append(kwargs) or pytest.fail("built"))
    make_trial(1, rich).reset_config(config(2, LATER))
    assert not built


def test_a_trial_is_the_plain_training(make_trial, task, rich, tmp_path, assert_same):
    trial = steps(make_trial(7, rich), 3)
    assert_same(state(trial, tmp_path / "end"), direct(task, rich, 7, 3))


def test_a_replay_is_the_plain_training(make_trial, task, rich, tmp_path, assert_same):
    schedule = replay((1, rich), (1, Genome()), (2, LATER))
    trial = steps(make_trial(7, schedule), 4)
    found = state(trial, tmp_path / "end")
    assert_same(found, direct(task, schedule, 7, 4))
    assert [phase["epochs"] for phase in found["history"]] == [1, 1, 2]


def test_a_checkpoint_is_one_file_of_plain_data(make_trial, task, rich, tmp_path):
    folder = saved(steps(make_trial(7, rich), 1), tmp_path / "one")
    assert [file.name for file in folder.iterdir()] == [STATE_FILE]
    assert torch.load(folder / STATE_FILE, weights_only=True).keys() == read_state(str(folder)).keys()


def test_a_checkpoint_before_the_first_epoch(make_trial, task, rich, tmp_path, assert_same):
    assert_same(state(make_trial(7, rich), tmp_path / "start"), direct(task, rich, 7, 0))


@pytest.mark.parametrize("fresh", [True, False], ids=["in a new actor", "in an actor that served another"])
def test_resumed_is_uninterrupted(make_trial, task, rich, tmp_path, fresh, assert_same):
    first = steps(make_trial(7, rich), 2)
    folder = saved(first, tmp_path / "two")
    second = make_trial(7, rich)
    if not fresh:
        second = steps(make_trial(8, LATER), 3)
        second.reset_config(config(7, rich))
    second.load_checkpoint(str(folder))
    second.step()
    assert_same(state(second, tmp_path / "end"), direct(task, rich, 7, 3))


def test_through_tunes_own_save_and_restore(make_trial, task, rich, tmp_path, assert_same):
    first = steps(make_trial(7, rich), 2)
    second = make_trial(7, rich)
    second.restore(first.save(str(tmp_path / "two")))
    assert second.training_iteration == 2
    assert_same(state(steps(second, 1), tmp_path / "end"), direct(task, rich, 7, 3))


@pytest.mark.parametrize("other", ["genome", "schedule"])
def test_reset_to_another_member_is_a_fresh_trial(make_trial, task, rich, tmp_path, other, assert_same):
    source = LATER if other == "genome" else replay((1, LATER), (3, rich))
    reused = steps(make_trial(7, rich), 2)
    assert reused.reset_config(config(9, source)) is True
    reused.step()
    reused.step()
    found = state(reused, tmp_path / "reused")
    assert_same(found, state(steps(make_trial(9, source), 2), tmp_path / "fresh"))
    assert_same(found, direct(task, source, 9, 2))


def test_reset_and_saved_at_once_is_the_new_members_start(make_trial, task, rich, tmp_path, assert_same):
    reused = steps(make_trial(7, rich), 2)
    reused.reset_config(config(9, LATER))
    assert_same(state(reused, tmp_path / "reused"), direct(task, LATER, 9, 0))


def test_reset_to_the_same_member_starts_anew(make_trial, task, rich, tmp_path, assert_same):
    trial = steps(make_trial(7, rich), 2)
    trial.reset_config(config(7, rich))
    trial.step()
    assert_same(state(trial, tmp_path / "again"), direct(task, rich, 7, 1))


@pytest.mark.parametrize("busy", [True, False])
def test_a_donors_checkpoint(make_trial, task, rich, tmp_path, busy, assert_same):
    """Weights and history are the donor's, the genome from here on is the member's own."""
    donor = steps(make_trial(7, rich), 2)
    folder = saved(donor, tmp_path / "donor")
    member = make_trial(9, Genome())
    if busy:
        steps(member, 1)
    member.reset_config(config(9, LATER))
    member.load_checkpoint(str(folder))
    before = state(member, tmp_path / "copied")
    assert_same(before, read_state(folder))
    member.step()
    after = state(member, tmp_path / "after")
    assert after["history"] == [
        {"epochs": 2, "genome": rich.to_json()},
        {"epochs": 1, "genome": LATER.to_json()},
    ]
    assert_same(after, direct(task, replay((2, rich), (2, LATER)), 7, 3))  # one training, as its lineage says
    donor.step()
    assert state(donor, tmp_path / "donor-after")["history"] == [{"epochs": 3, "genome": rich.to_json()}]


def test_from_search_to_replay_in_one_actor(make_trial, task, rich, tmp_path, assert_same):
    """An actor that served a searching member serves a replaying one from its checkpoint, and the other way round."""
    searching = steps(make_trial(7, rich), 1)
    folder = saved(searching, tmp_path / "one")
    schedule = replay((1, rich), (3, LATER))
    searching.reset_config(config(7, schedule))
    searching.load_checkpoint(str(folder))
    searching.step()
    assert_same(state(searching, tmp_path / "two"), direct(task, schedule, 7, 2))
    searching.reset_config(config(7, rich))
    searching.load_checkpoint(str(folder))
    searching.step()
    assert_same(state(searching, tmp_path / "three"), direct(task, rich, 7, 2))


def test_without_a_reserved_gpu_it_keeps_to_the_cpu_and_a_reserved_one_must_be_there(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Worker(cpus=1, gpus=0).enter() == torch.device("cpu")
    assert Worker(cpus=1, gpus=0.25).enter() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(WorkError, match="a GPU was reserved for this trial, but PyTorch finds none"):
        Worker(cpus=1, gpus=1).enter()
