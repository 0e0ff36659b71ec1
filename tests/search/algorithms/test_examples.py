"""One contract for all kinds of search: each kind's example, at small size, from its file to its policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from mlflow.tracking import MlflowClient

from results.runlog.export import export
from search import SweepConfig, run
from search.config.schema import SearchConfig
from search.execution.journal import FILE
from spaces import Schedule

EXAMPLES = Path(__file__).parents[3] / "examples" / "searches"
KINDS = get_args(SearchConfig.model_fields["kind"].annotation)
EPOCHS = 4

SMALL = [
    "data={name: digits, train: 40, validation: 40}",
    "baselines=[]",
    "search.repeats=1",
    "search.reduction=2",
    "teacher={model: mlp, pretrained: false}",  # nothing to search or to train
    f"student.stage={{epochs: {EPOCHS}, population: 4, interval: 2}}",
    "student.full={seeds: 1, epochs: 1}",
]


def example(kind):
    return EXAMPLES / f"{kind.replace('+', '_')}.yaml"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all of them, since a new one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('kinds') / 'mlflow.db'}"


def test_each_kind_has_an_example_of_its_own():
    assert {SweepConfig.load(path).search.kind for path in EXAMPLES.glob("*.yaml")} == set(KINDS)
    assert all(SweepConfig.load(example(kind)).search.kind == kind for kind in KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_example_finds_a_policy(kind, store, tmp_path, scored_here, _ray):
    config = SweepConfig.load(example(kind), [*SMALL, f"tracking.uri={store}", f"storage={tmp_path}"])
    result = run(config)
    folder = Path(result.folder)
    assert result.failed == {} and [role.role for role in result.roles] == ["student"]
    policy = Schedule.load(folder / "policy.student.json", config.space.custom_names)
    assert policy.epochs == EPOCHS and policy.provenance["run"].startswith(f"student-{kind}-")
    assert 0 < policy.provenance["value"] <= 1 and policy.provenance["value"] == result.roles[0].best_validation
    assert {phase.genome.augment.label for phase in policy.phases} <= {a.label for a in config.space.augmentations}
    assert all(set(phase.genome.distill) == set(config.space.distill) for phase in policy.phases)
    assert export(str(folder), "student") == policy

    events = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    reported = [(event["member"], event["epoch"]) for event in events if event["event"] == "reported"]
    if config.search.synch:  # else a member may fall back to a donor that lags
        assert len(reported) == len(set(reported))
    stopped = [event for event in events if event["event"] == "ended" and event["stopped"]]
    assert bool(stopped) == kind.endswith("asha")

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(config.name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {each.info.status for each in runs} == {"FINISHED"}
    names = {each.info.run_name for each in runs}
    assert {event["member"] for event in events if event["event"] == "ended"} < names
    fronts = [role.pareto for role in result.roles if role.pareto]
    assert bool(fronts) == (len(config.search.objective) > 1)
