"""One contract for all search algorithms: each one's example, at small size, from its file to its policies."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from results.runlog.export import export_policy
from results.runlog.history import History
from search import SweepConfig, run
from search.config.registry import ALGORITHMS, capabilities, is_custom, label
from spaces import Schedule

EXAMPLES = Path(__file__).parents[3] / "examples" / "searches"
EPOCHS = 4

SMALL = [
    "data={name: digits, train: 40, validation: 40}",
    "baselines=[]",
    "teacher={model: mlp, pretrained: false}",  # nothing to search or to train
    f"student.search.epochs={EPOCHS}",
    "student.search.interval=2",
    "student.final={seeds: 1, epochs: 1}",
]
SIZES = {"population": 4, "trials": 4, "reduction": 2, "replicates": 1}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
CUSTOM = EXAMPLES.with_name("custom_algorithm") / "sweep.yaml"


def example(name):
    return CUSTOM if name == "custom" else EXAMPLES / f"{name}.yaml"


def small(name):
    """The overrides that make an example small."""
    search = SweepConfig.load(example(name)).student.search
    own = is_custom(search.algorithm)
    taken = {"trials"} if own else capabilities(search.algorithm).variant(search).settings
    sizes = SIZES | ({"trials": 6} if search.algorithm == "race" else {})  # four candidates, then two of them again
    return SMALL + [f"student.search.{key}={value}" for key, value in sizes.items() if key in taken]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all of them, since a new one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('kinds') / 'mlflow.db'}"


def test_each_algorithm_has_an_example_of_its_own():
    algorithms = {SweepConfig.load(example(name)).student.search.algorithm for name in NAMES}
    assert algorithms == set(ALGORITHMS) - {"pba", "blind"}, "pbt with the settings of its paper, and its control"
    assert all(SweepConfig.load(example(name)).student.search.algorithm == name for name in algorithms)
    assert all(SweepConfig.load(example(name)).name == name for name in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "custom"])
def test_its_example_finds_a_policy(name, store, tmp_path, scored_here, _ray, monkeypatch):
    monkeypatch.syspath_prepend(str(CUSTOM.parent))
    config = SweepConfig.load(example(name), [*small(name), f"tracking.uri={store}", f"storage={tmp_path}"])
    result = run(config)
    folder = Path(result.folder)
    assert result.failed == {} and [role.role for role in result.roles] == ["student"]
    policy = Schedule.load(folder / "policy.student.json", config.space.custom_names)
    member = f"student-{label(config.student.search.algorithm)}-"
    assert policy.epochs == EPOCHS and policy.provenance["run"].startswith(member)
    assert policy.provenance["metric"] == "validation_loss" and policy.provenance["value"] > 0
    assert 0 < result.roles[0].best_validation <= 1
    assert {phase.genome.augment.label for phase in policy.phases} <= {a.label for a in config.space.augmentations}
    assert all(set(phase.genome.distill) == set(config.space.distill) for phase in policy.phases)
    assert export_policy(str(folder), "student") == policy

    stages = History.read(folder).stages.values()
    trials = [trial for stage in stages for trial in stage.members.values()]
    reported = [(trial.name, report.epoch) for trial in trials for report in trial.reports]
    if config.student.search.synchronous:  # else a member may fall back to a donor that lags
        assert len(reported) == len(set(reported))
    search = config.student.search
    assert any(trial.stopped for trial in trials) == capabilities(search.algorithm).variant(search).stops_early

    estimates = search.algorithm == "factorial"
    assert (folder / "effects.json").is_file() == (folder / "report" / "effects.png").is_file() == estimates
    assert ('id="effects"' in (folder / "report" / "index.html").read_text()) == estimates

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(config.name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {each.info.status for each in runs} == {"FINISHED"}
    names = {each.info.run_name for each in runs}
    assert {trial.name for trial in trials if trial.ended is not None} < names
    fronts = [role.pareto for role in result.roles if role.pareto]
    assert bool(fronts) == (len(config.student.search.objective) > 1)
