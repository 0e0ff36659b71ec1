"""A search that is cut off anywhere, and resumed, is the search that was not."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
from support import start_search

from results.runlog.events import JOURNAL_FILE, SessionStarted, TrialReported
from results.runlog.history import History
from search.config.schema import SweepConfig
from search.config.sections import ResourceConfig
from search.execution.journal import Journal
from search.execution.trials import JournalCallback, run_trials
from search.sweeps.resume import check_unchanged, newest
from spaces import RequestError, Space
from trainables import Recipe, Task
from trainables.data import load

EPOCHS, INTERVAL, SIZE = 6, 2, 4


class Died(BaseException):
    """Nobody who is told of an exception expects this one."""


class Mortal(Journal):
    """A journal whose writer dies before a given line of this session, or in the midst of it."""

    left = None
    torn = False

    def write(self, event):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                if self.torn:
                    self._file.write(b'{"event": "trial_repor')
                    self._file.flush()
                raise Died
        super().write(event)


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    recipe = Recipe(lr=0.05, batch_size=20)
    return Task("teacher", "mlp", data, recipe, EPOCHS, validation=data.validation, validate_every=INTERVAL)


def session(task, folder, left=None, torn=False):
    """One session of a search with a random control beside it: the policy's bytes, or None where it died."""
    folder.mkdir(exist_ok=True)
    settings = {"seed": 5, "epochs": EPOCHS, "interval": INTERVAL}
    sizes = {"pbt": {"population": SIZE}, "random": {"trials": SIZE}}
    with Mortal(folder) as journal:
        journal.left, journal.torn = left, torn
        stages = [
            start_search(f"teacher-{name}", name, task, Space(), journal, **settings, **size)
            for name, size in sizes.items()
        ]
        gc.collect()  # a session that was cut off lets go of its workers
        try:
            outcomes = run_trials(
                [member for stage in stages for member in stage.members],
                task,
                ResourceConfig(),
                JournalCallback(journal),
                name="teacher-search",
                save_every=INTERVAL,
                scheduler=stages[0].scheduler(),
            )
        except Died:
            return None
        return [stage.result(outcomes, {"sweep": "test"}).schedule.dumps() for stage in stages]


def lines(folder):
    return [json.loads(line) for line in (folder / JOURNAL_FILE).read_text().splitlines()]


def checkpoints(folder):
    return list(folder.glob("trials/*/*/*/checkpoint_*"))


@pytest.mark.slow
def test_wherever_it_dies_the_policies_are_those_of_an_undisturbed_search(task, marks, tmp_path):
    whole = session(task, tmp_path / "whole")
    count = len(lines(tmp_path / "whole"))
    assert len(checkpoints(tmp_path / "whole")) == 2 * SIZE, "one a member"
    folder = tmp_path / "cut"
    for left in (0, 3, 11, 17, 9, 23):  # of each session's lines; the first is that it started
        if session(task, folder, left, torn=left % 2 == 1) is not None:
            break
    else:
        assert session(task, folder) == whole
    assert session(task, folder) == whole, "and once more, when all is over"
    history = History.read(folder)
    trials = {name: trial for stage in history.stages.values() for name, trial in stage.members.items()}
    reported = [(name, report.epoch) for name, trial in trials.items() for report in trial.reports]
    assert len(reported) == len(set(reported)) == 2 * SIZE * EPOCHS, "each epoch once"
    assert history.exploits("teacher-pbt") == History.read(tmp_path / "whole").exploits("teacher-pbt") != []
    assert len(checkpoints(folder)) == 2 * SIZE
    assert count < len(lines(folder)), "the sessions that were lost stand in it"


@pytest.mark.slow
def test_the_disk_holds_one_checkpoint_a_member_and_those_that_are_copied(task, marks, tmp_path):
    most = 0

    class Counting(Mortal):
        def write(self, event):
            nonlocal most
            super().write(event)
            here = [path for path in checkpoints(self.folder) if "pbt" in path.parent.name]
            last = self.history.perturbations("teacher-pbt")[-1:]
            copied = {copy.donor for perturbation in last for copy in perturbation.copies}
            most = max(most, len(here) - len(copied))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Mortal", Counting)
        assert session(task, tmp_path / "run") is not None
    assert 0 < most <= SIZE + 2, "two are being written at any time"


def test_one_process_at_a_time(tmp_path):
    with (
        Journal(tmp_path),
        pytest.raises(RequestError, match="another process runs the sweep"),
    ):
        Journal(tmp_path)
    with Journal(tmp_path) as journal:
        assert journal.session == 2


def test_a_damaged_line_is_named_and_a_torn_last_one_is_cut_off(tmp_path):
    with Journal(tmp_path) as journal:
        journal.reported("a", 1, {"loss": 0.5})
    whole = (tmp_path / JOURNAL_FILE).read_bytes()
    (tmp_path / JOURNAL_FILE).write_bytes(whole + b'{"event": "checkpoint_saved", "tri')
    with Journal(tmp_path) as journal:
        assert journal.progress("a").last.metrics == {"loss": 0.5}
    kinds = [SessionStarted, TrialReported, SessionStarted]
    assert [event["event"] for event in lines(tmp_path)] == [kind.kind for kind in kinds]
    (tmp_path / JOURNAL_FILE).write_bytes(b"{]\n" + whole)
    with pytest.raises(RequestError, match=r"line 1 of .* is damaged"):
        Journal(tmp_path)


def test_an_epoch_that_comes_again_after_a_retry_is_not_kept_twice(tmp_path):
    with Journal(tmp_path) as journal:
        assert journal.reported("a", 1, {"loss": 0.5})
        journal.saved("a", 1, tmp_path / "trials" / "one")
        assert journal.reported("a", 2, {"loss": 0.4})
        assert not journal.reported("a", 2, {"loss": 0.4})
        assert journal.reported("a", 3, {"loss": 0.3})
    with Journal(tmp_path) as journal:
        assert not journal.reported("a", 2, {}) and not journal.reported("a", 3, {}) and journal.reported("a", 4, {})
        assert journal.progress("a").epoch == 1
        assert journal.progress("a").checkpoint == Path(tmp_path / "trials" / "one").resolve()


# ---- which sweep is gone on with -------------------------------------------------------------------

PBT = {"algorithm": "pbt"}
SMALL = {
    "name": "small",
    "data": {"name": "digits"},
    "teacher": {"model": "mlp", "search": PBT},
    "student": {"model": "mlp", "search": PBT},
}


def config(storage, **changes):
    """The small sweep with other values, by their dotted places."""
    content = json.loads(json.dumps(SMALL | {"storage": str(storage)}))
    for place, value in {"tracking__uri": "http://user:s3cr3t@host:5000", **changes}.items():
        *parents, last = place.split("__")
        inner = content
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return SweepConfig.from_mapping(content)


@pytest.fixture
def started(tmp_path):
    folder = tmp_path / "small-002"
    for name in ("small-001", "small-002", "smaller-003", "small-x"):
        (tmp_path / name).mkdir()
    for name in ("small-001", "small-002"):
        told = config(tmp_path, tracking__uri="http://user:s3cr3t@host:5000").to_yaml()
        assert "http://host:5000" in told and "s3cr3t" not in told
        (tmp_path / name / "sweep.yaml").write_text(told)
    return folder


def test_the_newest_sweep_of_that_name_is_gone_on_with(tmp_path, started):
    assert newest(config(tmp_path)) == started
    (tmp_path / "small-003").mkdir()
    assert newest(config(tmp_path)) == started, "an empty folder is no sweep"
    for nothing in (config(tmp_path / "elsewhere"), config(tmp_path, name="other")):
        with pytest.raises(RequestError, match="must hold a sweep"):
            newest(nothing)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resources__cpus_per_trial": 4, "resources__retries": 9},
        {"student__search__epochs": 30, "teacher__search__population": 8},
        {"student__final__seeds": 3, "teacher__final__epochs": 50},
        {"tracking__uri": "http://other:an0ther@host:5000"},
    ],
)
def test_more_of_the_same_may_be_asked_for(tmp_path, started, changes):
    check_unchanged(config(tmp_path, **changes), started)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"student__model": "cnn"}, 'student.model: "mlp" → "cnn"'),
        ({"student__search__epochs": 12}, "student.search.epochs: 24 → 12"),
        ({"student__search__interval": 4}, "student.search.interval: 3 → 4"),
        ({"seed": 1, "data__train": 50}, "seed: 0 → 1; data.train: null → 50"),
        ({"space__augment": ["identity", "flip"]}, 'space.augment: ["identity"] → ["identity", "flip"]'),
        ({"tracking__uri": "http://u:n3w@h"}, 'tracking.uri: "http://host:5000" → "http://h"'),
        ({"student": None}, 'student.model: "mlp" → nothing'),
    ],
)
def test_any_other_change_is_refused_and_shown(tmp_path, started, changes, shown):
    with pytest.raises(RequestError, match="must not change") as refusal:
        check_unchanged(config(tmp_path, **changes), started)
    assert shown in str(refusal.value) and "\n" not in str(refusal.value)


PIPELINE = [{"algorithm": "factorial", "trials": 24}, {"algorithm": "pbt", "epochs": 30}]


@pytest.mark.parametrize(
    ("search", "shown"),
    [
        ([PIPELINE[0], {**PIPELINE[1], "epochs": 40}], None),
        ([{**PIPELINE[0], "epochs": 40}, PIPELINE[1]], "student.search[0].epochs: 24 → 40"),
        ([{**PIPELINE[0], "trials": 30}, PIPELINE[1]], "student.search[0].trials: 24 → 30"),
        (PIPELINE[:1], 'student.search[1].algorithm: "pbt" → nothing'),
        ([*PIPELINE, {"algorithm": "random"}], 'student.search[2].algorithm: nothing → "random"'),
    ],
)
def test_of_a_list_of_searches_only_the_last_may_be_longer(tmp_path, search, shown):
    (tmp_path / "sweep.yaml").write_text(config(tmp_path, student__search=PIPELINE).to_yaml())
    changed = config(tmp_path, student__search=search)
    if shown is None:
        check_unchanged(changed, tmp_path)
        return
    with pytest.raises(RequestError, match="must not change") as refusal:
        check_unchanged(changed, tmp_path)
    assert shown in str(refusal.value)


@pytest.mark.parametrize("algorithm", ["factorial", "race"])
def test_an_experiment_keeps_its_number_of_trials(tmp_path, algorithm):
    (tmp_path / "sweep.yaml").write_text(
        config(tmp_path, space__genome="scaled", student__search={"algorithm": algorithm, "trials": 20}).to_yaml()
    )
    more = config(tmp_path, space__genome="scaled", student__search={"algorithm": algorithm, "trials": 30})
    with pytest.raises(RequestError, match="trials: 20 → 30"):
        check_unchanged(more, tmp_path)


def test_the_confirmation_keeps_its_seeds(tmp_path, started):
    with pytest.raises(RequestError, match=r"confirm\.seeds"):
        check_unchanged(config(tmp_path, confirm__seeds=9), started)


def test_a_sweep_of_an_earlier_version_is_not_resumed(tmp_path, started):
    (started / "sweep.yaml").write_text("name: small\ndata: {name: digits}\nsearch: {kind: pbt}\n")
    with pytest.raises(RequestError, match="must be started by this version of roletune to be resumed") as refusal:
        check_unchanged(config(tmp_path), started)
    assert "\n" not in str(refusal.value)


def test_what_is_finished_cannot_be_made_longer(tmp_path, started):
    (started / "policy.teacher.json").touch()
    for name in ("epochs", "population"):
        with pytest.raises(RequestError, match=f"teacher.search.{name}"):
            check_unchanged(config(tmp_path, **{f"teacher__search__{name}": 100}), started)
    check_unchanged(config(tmp_path, student__search__epochs=100, teacher__final__epochs=100), started)
    (started / "models").mkdir()
    (started / "models" / "teacher.safetensors").touch()
    with pytest.raises(RequestError, match=r"teacher\.final\.epochs"):
        check_unchanged(config(tmp_path, teacher__final__epochs=100), started)
    check_unchanged(config(tmp_path, teacher__final__seeds=100), started)
