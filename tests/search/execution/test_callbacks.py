"""The watchdog, and the journal's care for checkpoints, alone: no Ray is started, no clock is looked at."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial
from rich.console import Console

import search.execution.callbacks
from results.runlog.events import JOURNAL_FILE, SessionStarted, TrialEnded, TrialStarted, read_events
from results.runlog.lineage import Exploit
from results.runlog.members import METRIC, SCORE
from search.execution.callbacks import LEAST, SLOWER, EpochWatchdog, SweepCallback
from search.execution.journal import Journal
from search.execution.progress import ProgressReporter
from search.execution.trials import Member
from spaces import Genome, ImageSpec


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, and the actors that were ended."""
    clock = SimpleNamespace(now=0.0, killed=[])
    monkeypatch.setattr(search.execution.callbacks, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(search.execution.callbacks, "ray", SimpleNamespace(kill=clock.killed.append))
    return clock


def trial(name, status=Trial.RUNNING):
    return SimpleNamespace(trial_id=name, status=status, temporary_state=SimpleNamespace(ray_actor=f"actor {name}"))


def test_who_is_silent_for_too_long_is_ended_once_and_nobody_else(clock):
    watchdog, silent, alive = EpochWatchdog(10.0), trial("silent"), trial("alive")
    for one in (alive, silent):
        watchdog.record_activity(one)
    for now in (5.0, 10.0, 11.0, 12.0, 30.0):
        clock.now = now
        if now < 30:
            watchdog.record_activity(alive)
        watchdog.check()
    assert clock.killed == ["actor silent", "actor alive"]
    assert "more than 10 s" in watchdog.why(silent)


def test_who_waits_is_not_ended_and_is_looked_after_again_once_it_runs(clock):
    watchdog, one = EpochWatchdog(10.0), trial("one", Trial.PAUSED)
    watchdog.record_activity(one)
    clock.now = 100.0
    watchdog.check()
    one.status = Trial.RUNNING
    watchdog.record_activity(one)
    clock.now = 109.0
    watchdog.check()
    assert clock.killed == []
    clock.now = 111.0
    watchdog.check()
    assert clock.killed == ["actor one"] and watchdog.why(one)
    watchdog.record_activity(one)
    assert not watchdog.why(one), "it was started again"


def test_a_worker_that_is_not_there_yet_is_ended_when_it_is(clock):
    watchdog, one = EpochWatchdog(10.0), trial("one")
    one.temporary_state.ray_actor = None
    watchdog.record_activity(one)
    clock.now = 11.0
    watchdog.check()
    one.temporary_state.ray_actor = "actor one"
    watchdog.check()
    assert clock.killed == ["actor one"]


def test_without_a_limit_the_slowest_epoch_sets_one(clock):
    watchdog, one = EpochWatchdog(None), trial("one")
    watchdog.record_activity(one)
    clock.now = 1e6
    watchdog.check()
    watchdog.record_activity(one, seconds=100.0)
    assert SLOWER * 100.0 > LEAST
    for silent, ended in ((SLOWER * 100.0, 0), (SLOWER * 100.0 + 1, 1)):
        clock.now = 1e6 + silent
        watchdog.check()
        assert len(clock.killed) == ended


@pytest.mark.parametrize("again", [False, True], ids=["in one session", "in two sessions"])
def test_a_checkpoint_stays_as_long_as_anybody_goes_on_from_it(tmp_path, again):
    def saved(journal, member, number):
        folder = tmp_path / "trials" / "001" / "stage" / member / f"checkpoint_{number}"
        folder.mkdir(parents=True)
        journal.reported(member, number, {"loss": 1.0})
        journal.saved(member, number, folder)
        return folder

    def copies(journal, *targets):
        events = [Exploit(1, target, "donor", 0.1, 0.2, Genome(), Genome()) for target in targets]
        journal.perturbed("stage", 1, {"donor": 0.2}, events)

    journal = Journal(tmp_path)
    first = saved(journal, "donor", 1)
    own = [saved(journal, member, 1) for member in ("a", "b")]
    copies(journal, "a", "b")
    assert first.exists() and not any(folder.exists() for folder in own)
    if again:
        journal.__exit__(None, None, None)
        journal = Journal(tmp_path)
    for member in ("donor", "a"):
        saved(journal, member, 2)
        assert first.exists(), "b goes on from it"
    last = saved(journal, "b", 2)
    assert not first.exists() and last.exists()
    saved(journal, "b", 3)
    assert not last.exists()
    journal.__exit__(None, None, None)


def test_a_session_records_who_goes_on_and_who_was_through(tmp_path):
    """The earlier session trained one member half, and died between the last checkpoint of another and its end."""

    def saved(journal, name, epoch):
        journal.reported(name, epoch, {"loss": 1.0})
        journal.saved(name, epoch, journal.trials / "s" / name / f"checkpoint_{epoch}")

    task = SimpleNamespace(epochs=4, role="teacher", image=ImageSpec(8, 1, (0,)))
    members = [Member(f"t-pbt-0{index}", index, index, Genome(), "pbt search", evolves=True) for index in range(4)]
    with Journal(tmp_path) as journal:
        for name, epoch in (("t-pbt-00", 2), ("t-pbt-01", 4), ("t-pbt-02", 4)):
            saved(journal, name, epoch)
        journal.ended("t-pbt-02")
    with Journal(tmp_path) as journal:
        reporter = ProgressReporter(None, 16)
        skipped = []
        reporter.skip = skipped.append
        callback = SweepCallback(journal, reporter)
        for _ in range(2):
            callback.begin(task, members)
            callback.start(members[0].config())
        assert skipped == [2, 4, 4, 0] * 2
    events = [event for _, event in read_events(tmp_path / JOURNAL_FILE)][-3:]
    assert [type(event) for event in events] == [SessionStarted, TrialStarted, TrialEnded]
    assert (events[1].trial, events[1].role, events[1].epochs, events[1].choices) == ("t-pbt-00", "teacher", 4, {})
    assert (events[2].trial, events[2].epoch, events[2].error) == ("t-pbt-01", 4, "")


def test_accuracies_are_shown_although_losses_count(tmp_path):
    console = Console(file=io.StringIO(), width=120)
    with Journal(tmp_path) as journal, ProgressReporter(console, total=8) as reporter:
        callback = SweepCallback(journal, reporter)
        for name, accuracy, loss in (("a", 0.5, 1.25), ("b", 0.75, 0.5), ("c", math.nan, math.nan)):
            journal.reported(name, 2, {METRIC: accuracy, SCORE: -loss})
        scores = {name: journal.progress(name).score(2) for name in "abc"}
        callback.generation(1, 3, scores, 1)
        callback.rung(2, scores, ["b"])
        callback.generation(2, 3, {"c": math.nan}, 0)
    assert console.file.getvalue().splitlines() == [
        "  generation 1/3  validation 0.500 … 0.750 (loss 0.500 … 1.250)  1 copy",
        "  epoch 2  best 0.750  1 of 3 go on",
        "  generation 2/3  validation no score  0 copies",
    ]
