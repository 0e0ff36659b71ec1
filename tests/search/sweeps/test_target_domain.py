"""A sweep whose validation and test images are of a target domain: what is trained on, reported and tracked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search import SweepConfig, run
from search.sweeps.plan import SweepPlan

TARGET = {"validation_from": "mnist5k-shifted", "test_from": "mnist5k-shifted"}


def sweep(*, own=None, **data):
    teacher = {"model": "mlp", "search": {"epochs": 2}, **({"data": own} if own is not None else {})}
    return SweepConfig.from_mapping(
        {
            "data": {"name": "mnist5k", "train": 60, "validation": 60, **data},
            "teacher": teacher,
            "student": {"model": "mlp", "search": {"epochs": 2}},
        }
    )


def trained_on(config):
    """The number of images of each role's final training."""
    return {role: len(plan.final_task(None).data.train) for role, plan in SweepPlan.resolve(config).roles.items()}


def test_target_images_are_never_trained_on():
    assert trained_on(sweep()) == {"teacher": 120, "student": 120}
    assert trained_on(sweep(**TARGET)) == {"teacher": 60, "student": 60}
    assert trained_on(sweep(test_from="mnist5k-shifted")) == {"teacher": 120, "student": 120}
    own = {"name": "mnist5k", "train": 100, "validation": 100}
    assert trained_on(sweep(**TARGET, own=own)) == {"teacher": 200, "student": 60}


def test_a_teacher_without_target_images_needs_no_other_for_the_search():
    assert SweepPlan.resolve(sweep()).roles["teacher"].trains_search_teacher
    assert not SweepPlan.resolve(sweep(**TARGET)).roles["teacher"].trains_search_teacher


SWEEP = """
name: shifted
data: {name: mnist5k, train: 60, validation: 60, validation_from: mnist5k-shifted, test_from: mnist5k-shifted}
teacher:
  model: mlp
  recipe: {lr: 0.05, batch_size: 20}
  search: {algorithm: random, trials: 2, epochs: 2, interval: 2}
  final: {seeds: 2}
student: null
baselines: [none]
confirm: {seeds: 0}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("scored_here", "marks")
def test_a_sweep_reports_both_domains(sweep_file):
    result = run(SweepConfig.load(sweep_file(SWEEP)))
    (role,) = result.roles
    assert set(role.in_domain) == {"policy", "none"} and all(len(each) == 2 for each in role.in_domain.values())
    written = json.loads(Path(result.folder, "result.json").read_text())["roles"]["teacher"]
    assert written["in_domain"] == {arm: list(values) for arm, values in role.in_domain.items()}
    assert written["in_domain"]["policy"] != written["test"]["policy"]["by_seed"]
    assert "| role | trained | target accuracy, % | in domain, % |" in Path(result.report, "summary.md").read_text()

    client = MlflowClient(result.tracking_uri)
    experiment = client.get_experiment_by_name("shifted").experiment_id
    runs = {each.data.tags["mlflow.runName"]: each for each in client.search_runs([experiment])}
    for arm, values in role.in_domain.items():
        for seed, value in enumerate(values):
            assert runs[f"teacher-full-{arm}-{seed}"].data.metrics["final_test_in_domain_accuracy"] == value
    (parent,) = [each for each in runs.values() if each.data.tags["stage"] == "sweep"]
    for arm in role.in_domain:
        mean, _ = role.in_domain_accuracy(arm)
        assert parent.data.metrics[f"final_teacher_in_domain_accuracy/{arm}"] == pytest.approx(mean)
    note = parent.data.tags["mlflow.note.content"]
    assert "60 for validation; validated on mnist5k-shifted; tested on mnist5k-shifted" in note
