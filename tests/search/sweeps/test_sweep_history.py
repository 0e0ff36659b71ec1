"""What the journal writes, `results.runlog.history` reads, and both know the same of it."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from results.runlog.events import RungDecided, TrialTested
from results.runlog.history import History
from results.runlog.lineage import Exploit
from results.runlog.members import METRIC
from search.config.registry import capabilities
from search.config.schema import SweepConfig
from search.execution.journal import Journal
from search.sweeps.artifacts import Records
from search.sweeps.plan import SweepPlan
from spaces import Genome


def test_a_sweeps_history_is_its_journals(tmp_path):
    copy = Exploit(1, "s-pbt-01", "s-pbt-00", math.nan, 0.5, Genome(), Genome())
    names = ("s-pbt-00", "s-pbt-01")
    for _ in range(2):
        with Journal(tmp_path) as journal:
            for name in names:
                journal.reported(name, 1, {"loss": math.inf, METRIC: 0.5})
                if journal.session == 1:
                    journal.saved(name, 1, journal.trials / "s-search" / name / "checkpoint_000000")
            if journal.session == 1:
                journal.perturbed("s-pbt", 1, {names[0]: 0.5, names[1]: math.nan}, [copy])
            standings = {"s-asha-00": (0, 0.5, math.nan)}
            journal.write(RungDecided(stage="s-asha", epoch=1, standings=standings, kept=("s-asha-00",)))
            journal.write(TrialTested(trial="s-full-policy-0", scores={"accuracy": 0.5}))
            journal.ended(names[0], error="it broke")
            history = History.read(tmp_path)
            stage = history.stage("s-pbt")
            assert len(history.sessions) == journal.session and history.tests["s-full-policy-0"].scores == {
                "accuracy": 0.5
            }
            assert [event.epoch for event in stage.exploits] == [
                event.epoch for event in journal.history.exploits("s-pbt")
            ]
            assert stage.members[names[0]].error == journal.progress(names[0]).error == "it broke"
            assert list(stage.members) == list(journal.members) == list(names)
            assert stage.members[names[0]].epoch == journal.progress(names[0]).epoch == 1
            assert history.stage("s-asha").rungs[0].kept == ("s-asha-00",)


@pytest.mark.parametrize(("kind", "copies"), [("pbt", True), ("pb2", True), ("random", False)])
def test_a_sweep_draws_who_copied_whom(tmp_path, kind, copies):
    """Where members copy each other, beside the schedule's picture, and in MLflow."""
    kept = []
    tracker = SimpleNamespace(start=lambda *args, **kwargs: "parent", artifact=lambda run, path: kept.append(path))
    role = SimpleNamespace(role="student")
    search = SimpleNamespace(name=f"student-{kind}", copies_weights=capabilities(kind).copies_weights, task=role)
    with Journal(tmp_path) as journal:
        journal.reported(f"student-{kind}-00", 1, {METRIC: 0.5})
        plan = SweepPlan.resolve(SweepConfig.from_mapping({"data": {"name": "digits"}}))
        records = Records(plan, tmp_path, tracker)
        kept.clear()
        records.lineage(search)
    assert kept == [tmp_path / "report" / "lineage.student.png"] * copies and all(map(Path.is_file, kept))
