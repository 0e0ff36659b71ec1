"""One contract for every search algorithm, those of the registry, the documented example and a user's own."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import cloudpickle
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from support import start_search

from results.runlog.members import METRIC
from search.algorithms.base import SearchAlgorithm
from search.config.registry import ALGORITHMS, SETTINGS, capabilities, label, names_with
from search.config.schema import SweepConfig
from search.config.sections import SearchConfig
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.execution.trials import trial_config
from spaces import Genome, RequestError, Space, WorkError
from trainables import Recipe, Task
from trainables.data import load

EPOCHS, INTERVAL = 6, 2
CUSTOM = ("custom_algorithm:OneOperation", "local_search:LocalSearch")
FOLDERS = (Path(__file__).parents[1], Path(__file__).parents[3] / "examples" / "custom_algorithm")
CASES = {name: {"algorithm": name} for name in (*ALGORITHMS, *CUSTOM)}
CASES["tpe with early stopping"] = {"algorithm": "tpe", "early_stopping": "asha"}
CASES["factorial in two rounds"] = {"algorithm": "factorial", "rounds": 2, "trials": 8}
SIZES = {"population": 4, "trials": 4, "replicates": 2, "reduction": 2}
SPACE = Space(operations=("Rotate", "Cutout"), copies=1, augment=("identity", "cutmix"))
VALUES = {"population": 4, "trials": 4, "synchronous": True, "tie_break": "none", "quantile": 0.25}
VALUES |= {"start": "uniform", "growth": 2.0, "candidates": ("none", "uniform")}
VALUES |= {"reduction": 3, "replicates": 3, "early_stopping": "none", "rounds": 1}


@pytest.fixture(scope="module", autouse=True)
def importable():
    """As modules of a user's own in the working folder."""
    sys.path[:0] = map(str, FOLDERS)
    yield
    for folder in FOLDERS:
        sys.path.remove(str(folder))


@pytest.fixture(params=CASES)
def settings(request):
    """A small search section of each algorithm."""
    search = CASES[request.param]
    return {"epochs": EPOCHS, "interval": INTERVAL, **sizes_of(search), **search}


def sizes_of(search):
    config = SearchConfig(**search)
    taken = capabilities(config.algorithm).variant(config).settings
    return {name: value for name, value in SIZES.items() if name in taken}


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    return Task("student", "mlp", data, Recipe(batch_size=20), EPOCHS, validation=data.validation)


@pytest.fixture
def start(task, settings, tmp_path):
    """Starts the search with a journal of its own, or with the one in `folder`; nothing of it is trained."""
    journals = []

    def make(seed=0, folder=None, space=SPACE):
        folder = folder or tmp_path / str(len(journals))
        folder.mkdir(exist_ok=True)
        journals.append(Journal(folder))
        name = f"student-{label(settings['algorithm'])}"
        return start_search(name, space=space, task=task, journal=journals[-1], seed=seed, **settings)

    yield make
    for journal in journals:
        journal.__exit__(None, None, None)


def all_members(search):
    """Every member that the search has: drawn, or suggested one by one while none of those before it is delayed."""
    if (searcher := search.searcher([])) is None:
        return list(search.members)
    index = 0
    while (config := searcher.suggest(str(index))) != Searcher.FINISHED:
        assert config is not None, "every member before it has ended"
        finish(search, config["member"]["name"], 0.5)
        index += 1
    return list(search.members)


def finish(search, name, score, epochs=EPOCHS):
    """Let the journal know that a member is through."""
    journal = search._journal
    journal.reported(name, epochs, {METRIC: score})
    journal.saved(name, epochs, journal.folder / "trials" / name)
    journal.ended(name)


class Kept(Outcome):
    """An outcome whose checkpoint holds the one genome that it was trained with."""

    def state(self):
        return {"history": [{"epochs": self.epochs, "genome": self.genome.to_json()}]}


def outcome(member, score, error=""):
    found = Kept(member.name, EPOCHS, score, None, error)
    object.__setattr__(found, "genome", member.source)
    return found


# ---- draws -----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_members(start):
    one, again, other = (all_members(start(seed)) for seed in (3, 3, 4))
    assert one == again
    assert {member.seed for member in one}.isdisjoint(member.seed for member in other)


def test_members_are_numbered_and_named_after_the_search(start, settings):
    search = start()
    members = all_members(search)
    assert [member.index for member in members] == list(range(len(members)))
    assert [member.name for member in members] == [f"{search.name}-{index:02d}" for index in range(len(members))]
    assert {member.stage for member in members} == {f"{label(settings['algorithm'])} search"}


def test_genomes_come_from_the_space(start):
    for member in all_members(start()):
        assert isinstance(member.source, Genome)
        assert {entry.op for entry in member.source.policy} <= set(SPACE.operations)
        assert member.source.augment in SPACE.augmentations
        assert Genome.from_json(json.loads(json.dumps(member.source.to_json()))) == member.source


def test_it_has_as_many_members_and_epochs_as_it_says(start):
    search = start()
    count = type(search).member_count(search.search, SPACE)
    assert len(all_members(search)) == count
    budget = type(search).budget(search.search, SPACE)
    assert budget < count * EPOCHS if search.stops_early else budget == count * EPOCHS


# ---- what Ray is given -----------------------------------------------------------------------------


def test_members_schedulers_and_searchers_are_what_ray_takes(start):
    search = start()
    for member in search.members:
        config = trial_config(member, search._journal, INTERVAL)
        assert pickle.loads(pickle.dumps(config)) == config == json.loads(json.dumps(config))
    scheduler, searcher = search.scheduler(), search.searcher([])
    assert scheduler is None or isinstance(scheduler, TrialScheduler)
    assert searcher is None or isinstance(searcher, Searcher)
    for part in (scheduler, searcher):
        if part is not None:
            assert type(cloudpickle.loads(cloudpickle.dumps(part))) is type(part), "Ray pickles both as it goes"


def test_its_class_and_its_settings_are_pickled(start):
    search = start()
    assert pickle.loads(pickle.dumps(type(search))) is type(search)
    assert pickle.loads(pickle.dumps(search.search)) == search.search


# ---- capabilities ----------------------------------------------------------------------------------


def test_capabilities_are_what_the_members_do(start):
    search = start()
    members = all_members(search)
    assert all(member.evolves != search.constant_genomes for member in members)
    changed = search.copies_weights or search.stops_early
    assert all(member.moved == changed for member in members)
    assert (search.scheduler() is not None) == changed
    if search.copies_weights:
        assert not search.constant_genomes


def test_it_refuses_the_settings_that_it_does_not_take(settings):
    algorithm = settings["algorithm"]
    taken = capabilities(algorithm).variant(SearchConfig(**settings)).settings
    assert taken <= SETTINGS
    for name, value in VALUES.items():
        given = {**settings, name: settings.get(name, value)}
        if name in taken:
            SearchConfig(**given).check_algorithm(capabilities(algorithm))
        else:
            with pytest.raises(ValueError, match=f"{name} must be left out with algorithm: "):
                SearchConfig(**given).check_algorithm(capabilities(algorithm))


def test_it_refuses_two_objectives_or_takes_them(settings):
    config = SearchConfig(**settings)
    cls = capabilities(config.algorithm)
    several = {**settings, "objective": ("accuracy", "size")}
    if cls.variant(config).multi_objective:
        assert SearchConfig(**several).objective == ("accuracy", "size")
    else:
        with pytest.raises(ValueError, match=r"objective must be \[accuracy\]"):
            SearchConfig(**several).check_algorithm(cls)


def test_its_section_is_written_as_it_was_read(settings, tmp_path):
    content = {"data": {"name": "digits"}, "teacher": {"search": None}, "student": {"search": settings}}
    config = SweepConfig.from_mapping(content)
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert SweepConfig.load(tmp_path / "again.yaml") == config
    assert SweepConfig.load(tmp_path / "again.yaml").to_yaml() == config.to_yaml()


# ---- the result ------------------------------------------------------------------------------------


def test_the_best_member_is_found(start, settings):
    search = start()
    members = all_members(search)
    best = members[-1]
    scores = {member.name: 0.9 if member.source == best.source else 0.5 for member in members}
    others = [Outcome("student-other-00", EPOCHS, 0.99, None, "")]
    found = search.result([*others, *(outcome(member, scores[member.name]) for member in members)], {"sweep": "test"})
    assert found.value == pytest.approx(0.9) and found.best.name.startswith(search.name)
    assert found.schedule.epochs == EPOCHS and found.schedule.role == "student"
    if search.effects([outcome(member, scores[member.name]) for member in members]) is None:
        assert {phase.genome for phase in found.schedule.phases} == {best.source}
    else:  # the policy is put together from what each factor does
        assert len(found.schedule.phases) == 1
    assert found.schedule.provenance["sweep"] == "test" and found.schedule.provenance["run"] == found.best.name


def test_what_failed_is_not_found(start):
    search = start()
    members = all_members(search)
    ends = [outcome(member, 0.5 if member.index else 0.99, "" if member.index else "it broke") for member in members]
    assert search.result(ends, {}).best.name != members[0].name
    with pytest.raises(WorkError, match=f"every member of {search.name} failed; the first: it broke"):
        search.result([outcome(member, 0.5, "it broke") for member in members], {})


def test_a_search_that_was_cut_off_has_the_same_members(start, tmp_path):
    whole = all_members(start())
    search = start()
    finish(search, (search.members or [search.suggest()])[0].name, 0.5)
    folder = search._journal.folder
    search._journal.__exit__(None, None, None)
    again = start(folder=folder)
    assert again._journal.progress(whole[0].name).epoch == EPOCHS
    assert whole[0].name not in [member.name for member in again.pending]
    assert all_members(again) == whole


# ---- the registry ----------------------------------------------------------------------------------


def test_every_class_says_what_it_is():
    for name in ALGORITHMS:
        cls = capabilities(name)
        assert issubclass(cls, SearchAlgorithm) and cls.__doc__ and cls.settings <= SETTINGS
        assert set(cls.defaults) <= set(SearchConfig.model_fields)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(RequestError, match="unknown algorithm 'pbtt'; did you mean 'pbt'"):
        capabilities("pbtt")
    for other in ("pathlib:Path", "pathlib:Path.cwd"):
        with pytest.raises(RequestError, match="must name a class of search algorithms"):
            capabilities(other)


def test_algorithms_are_named_by_what_they_do():
    assert names_with(copies_weights=True) == "pbt, pba, blind or pb2"
    assert names_with(stops_early=True) == "successive_halving"
