"""What anybody reads of a sweep in its folder: while it runs, after its end or its death; and where there is none."""

import json
import math
from types import SimpleNamespace

import pytest

from results.runlog import events
from results.runlog.events import JOURNAL_FILE
from results.runlog.history import History
from results.runlog.lineage import Exploit, Slice
from results.runlog.members import METRIC, Report
from spaces import Entry, Genome, Policy, RequestError

START, NEXT = Genome(Policy((Entry("Rotate", 0, 0),))), Genome(Policy((Entry("Rotate", 5, 5),)))


def copy(epoch, target, donor):
    return Exploit(epoch, target, donor, 0.3, 0.6, START, NEXT)


class Sweep:
    """A journal as a sweep writes it, one line a millisecond."""

    def __init__(self, folder):
        self.folder, self.at = folder, 0
        self.write(events.SessionStarted, session=1, uuid="t")

    def write(self, kind, **content):
        self.at += 1
        with (self.folder / JOURNAL_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind.kind, "at": self.at, **content}) + "\n")

    def trained(self, member, first, last, score, **metrics):
        for epoch in range(first, last + 1):
            scored = {METRIC: score if epoch == last else None}
            self.write(
                events.TrialReported, trial=member, epoch=epoch, metrics={"loss": 1 / epoch, **scored, **metrics}
            )

    def perturbed(self, stage, epoch, scores, *copies):
        plain = [each.to_json() for each in copies]
        self.write(events.PopulationPerturbed, stage=stage, epoch=epoch, scores=scores, copies=plain)

    def ended(self, *members, stopped=False, error=""):
        for member in members:
            self.write(events.TrialEnded, trial=member, stopped=stopped, error=error)

    def read(self):
        return History.read(self.folder)


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def ends(lineage):
    return [(step.member, step.start, step.end) for step in lineage.path]


def test_a_finished_search(sweep):
    """b copies a at 2, and wins: its line leads through a."""
    sweep.trained("s-pbt-00", 1, 2, 0.6)
    sweep.trained("s-pbt-01", 1, 2, 0.3)
    sweep.perturbed("s-pbt", 2, {"s-pbt-00": 0.6, "s-pbt-01": 0.3}, copy(2, "s-pbt-01", "s-pbt-00"))
    sweep.trained("s-pbt-01", 3, 4, 0.8)
    sweep.trained("s-pbt-00", 3, 4, 0.7)
    sweep.ended("s-pbt-00", "s-pbt-01")
    stage = sweep.read().stage("s-pbt")
    assert (stage.role, stage.kind, stage.arm, stage.best) == ("s", "pbt", "", "s-pbt-01")
    assert [each.epoch for each in stage.perturbations] == [2]
    assert stage.perturbations[0].scores == {"s-pbt-00": 0.6, "s-pbt-01": 0.3}
    assert stage.exploits == (copy(2, "s-pbt-01", "s-pbt-00"),)
    assert stage.slices == (
        Slice("s-pbt-00", 0, 2, 0.6),
        Slice("s-pbt-01", 0, 2, 0.3),
        Slice("s-pbt-00", 2, 4, 0.7),
        Slice("s-pbt-01", 2, 4, 0.8),
    )
    assert ends(stage.lineage()) == [("s-pbt-00", 0, 2), ("s-pbt-01", 2, 4)]


def test_a_member(sweep):
    sweep.trained("s-pbt-00", 1, 2, 0.5, **{"seconds/train": 1.5, "seconds/augment": 0.25})
    sweep.trained("s-pbt-00", 3, 3, None, **{"seconds/train": None})
    sweep.ended("s-pbt-00", stopped=True)
    member = sweep.read().stage("s-pbt").members["s-pbt-00"]
    assert member.reports[0] == Report(1, 2, member.reports[0].metrics) and member.epoch == 3
    assert member.curve("loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert member.curve(METRIC) == [(2, 0.5)] and member.score == 0.5 and member.curve("none such") == []
    assert member.seconds == {"train": 3.0, "augment": 0.5}
    assert member.span == (2, 5) and (member.ended, member.stopped, member.error) == (5, True, "")


def test_members_are_grouped_by_name_and_sorted_by_number(sweep):
    """A full training's arm has no digits of its own; the hundredth member comes after the ninety-ninth."""
    for name in ("s-pbt-100", "s-pbt-99", "s-tpe+asha-00", "s-full-policy-1", "s-full-policy-0", "s-full-none-0"):
        sweep.trained(name, 1, 1, None)
    history = sweep.read()
    assert list(history.stages) == ["s-pbt", "s-tpe+asha", "s-full-policy", "s-full-none"]
    assert list(history.stage("s-pbt").members) == ["s-pbt-99", "s-pbt-100"]
    assert [stage.kind for stage in history.searches] == ["pbt", "tpe+asha"]
    assert [(stage.arm, len(stage.members)) for stage in history.trainings] == [("policy", 2), ("none", 1)]


def test_the_best_is_the_one_whose_policy_was_taken(sweep):
    """In a grid it need not be the one with the highest score of all; the random control has no policy of its own."""
    for name, score in (("s-grid-00", 0.5), ("s-grid-01", 0.9), ("s-random-00", 0.1), ("s-random-01", 0.2)):
        sweep.trained(name, 1, 1, score)
    assert sweep.read().stage("s-grid").best == "s-grid-01"
    (sweep.folder / "policy.s.json").write_text(json.dumps({"provenance": {"run": "s-grid-00"}}))
    assert sweep.read().stage("s-grid").best == "s-grid-00" and sweep.read().stage("s-random").best == "s-random-01"


def test_who_failed_or_was_stopped_is_not_the_best(sweep):
    for index, score in enumerate((0.9, 0.8, 0.3, None)):
        sweep.trained(f"s-asha-0{index}", 1, 1, score)
    sweep.ended("s-asha-00", error="it broke")
    sweep.ended("s-asha-01", stopped=True)
    stage = sweep.read().stage("s-asha")
    assert stage.best == "s-asha-02" and stage.members["s-asha-00"].error == "it broke"
    sweep.write(events.TrialRetried, trial="s-asha-00")
    stage = sweep.read().stage("s-asha")
    assert stage.best == "s-asha-00" and stage.members["s-asha-00"].ended is None


def test_who_parted_on_a_rung(sweep):
    sweep.trained("s-asha-00", 1, 1, 0.5)
    standings = {"s-asha-00": [0, 0.5, None], "s-asha-01": [1, None, None]}
    sweep.write(events.RungDecided, stage="s-asha", epoch=1, standings=standings, kept=["s-asha-00"])
    rung = sweep.read().stage("s-asha").rungs[0]
    assert (rung.epoch, rung.kept, rung.scores["s-asha-00"]) == (1, ("s-asha-00",), 0.5)
    assert math.isnan(rung.scores["s-asha-01"])


def test_a_member_that_falls_back_to_a_donor_behind_it(sweep):
    """Where nobody waits: 00 has 4 epochs when it copies 01, which has 2. Its curve shows the weights that it has."""
    sweep.trained("s-pbt-01", 1, 2, 0.9)
    sweep.perturbed("s-pbt", 2, {"s-pbt-01": 0.9})
    sweep.trained("s-pbt-00", 1, 4, 0.1)
    sweep.perturbed("s-pbt", 4, {"s-pbt-00": 0.1}, copy(2, "s-pbt-00", "s-pbt-01"))
    sweep.trained("s-pbt-00", 3, 4, 0.95)
    stage = sweep.read().stage("s-pbt")
    assert stage.slices[-1] == Slice("s-pbt-00", 2, 4, 0.95) and stage.slices[1] == Slice("s-pbt-00", 0, 4, 0.1)
    assert stage.members["s-pbt-00"].curve(METRIC) == [(4, 0.95)]
    assert ends(stage.lineage()) == [("s-pbt-01", 0, 2), ("s-pbt-00", 2, 4)]


def test_sessions_tests_and_what_screening_dropped(sweep):
    sweep.write(events.AugmentationsScreened, dropped=["cutmix"])
    sweep.write(events.TrialTested, trial="s-full-policy-0", scores={"accuracy": 0.75, "loss": None})
    sweep.write(SimpleNamespace(kind="something of a later version"), odd=True)
    sweep.write(events.SessionStarted, session=2, uuid="t")
    history = sweep.read()
    assert [(each.started, each.last_event) for each in history.sessions] == [(1, 4), (5, 5)]
    assert (history.started, history.last_event, history.dropped) == (1, 5, ("cutmix",))
    assert history.tests["s-full-policy-0"].scores["accuracy"] == 0.75
    assert math.isnan(history.tests["s-full-policy-0"].scores["loss"])
    assert not history.finished and history.name == sweep.folder.name
    (sweep.folder / "result.json").write_text("{}")
    assert sweep.read().finished


def test_every_moment_of_a_sweep_can_be_read(sweep):
    """Cut anywhere, also within a line: never an error, and never a report that was not whole."""
    sweep.trained("s-pbt-00", 1, 2, 0.6)
    sweep.trained("s-pbt-01", 1, 2, 0.3)
    sweep.perturbed("s-pbt", 2, {"s-pbt-00": 0.6, "s-pbt-01": None}, copy(2, "s-pbt-01", "s-pbt-00"))
    sweep.trained("s-pbt-01", 3, 3, 0.8)
    whole = (sweep.folder / JOURNAL_FILE).read_bytes()
    for length in range(0, len(whole) + 1, 7):
        (sweep.folder / JOURNAL_FILE).write_bytes(whole[:length])
        history = sweep.read()
        count = whole[:length].count(b'"event": "trial_reported"') - (
            b'"trial_reported"' in whole[:length].rpartition(b"\n")[2]
        )
        found = [member for stage in history.stages.values() for member in stage.members.values()]
        assert sum(len(member.reports) for member in found) == count
        for stage in history.stages.values():
            assert stage.lineage().winner == stage.best


def test_a_folder_that_is_no_sweeps_is_refused(tmp_path, sweep):
    with pytest.raises(RequestError, match=r"unknown stage 's-pbd'"):
        sweep.read().stage("s-pbd")
    for place in (tmp_path / "nowhere", tmp_path / JOURNAL_FILE):
        with pytest.raises(RequestError, match=r"must be a sweep's folder, but has no journal.jsonl; "):
            History.read(place)


@pytest.mark.parametrize(
    "line", ["no json", "[1]", '{"event": "trial_reported"}', '{"event": "population_perturbed", "at": 1}']
)
def test_a_damaged_journal_is_refused(sweep, line):
    with (sweep.folder / JOURNAL_FILE).open("a") as file:
        file.write(line + "\n")
    sweep.write(events.SessionStarted, session=2, uuid="t")
    with pytest.raises(RequestError, match=r"line 2 of .*journal.jsonl is damaged"):
        sweep.read()
