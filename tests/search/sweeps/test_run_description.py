"""The description of a sweep's run: what it says before there is a result, and after."""

import pytest

from results.analysis.summary import RoleResult, SweepResult
from search.config.schema import SweepConfig
from search.sweeps.artifacts import describe_run
from search.sweeps.plan import SweepPlan
from spaces import Genome, ImageSpec, Phase, Schedule


@pytest.fixture
def plan(sweep_file):
    config = SweepConfig.load(
        sweep_file("""
name: s
data: {name: digits, train: 100}
teacher: {search: {algorithm: pbt}}
student: {model: resnet8, search: {algorithm: pbt}, bits: {weights: 2, activations: 4}, final: {epochs: 9, seeds: 3}}
""")
    )
    return SweepPlan.resolve(config)


def test_before_there_is_a_result(plan):
    text = describe_run(plan)
    assert text.startswith("Search pbt, seed 0, on digits.\n\nNo result yet: the sweep is running, or was stopped.")
    assert "| **data** | digits: 100 training images, the rest for validation |" in text
    assert (
        "| **student** | resnet8; search: 4 members × 24 epochs; final training: 9 epochs × 3 seeds; 2-bit weights"
        in text
    )
    assert "`roletune search sweep.yaml`" in text and "registry" not in text


def test_the_result_comes_first_and_says_where_everything_is(plan):
    role = RoleResult("student", 0.9, {"policy": (0.91,)}, 2, "runs/s-001/policy.student.json")
    schedule = Schedule((Phase(1, Genome()),), "student", ImageSpec(8, 1, (78,)))
    replay = plan.replaying({"student": schedule})
    result = SweepResult("s", "runs/s-001", "runs/s-001/report", "sqlite://", "s", 1.0, {}, (role,))
    text = describe_run(replay, result, {"student": "s-student"})
    assert text.index(result.markdown()) < text.index("| **data** |") and "no result yet" not in text
    assert "`policy.student.json`" in text and "- student: model `s-student` in the registry" in text
    assert "`roletune train sweep.yaml --policy policy.….json`" in text
