"""The description of a sweep's run: what it says before there is a result, and after."""

import pytest

from results.analysis.summary import RoleResult, SweepResult
from search.config.schema import SweepConfig
from search.sweeps.run_description import about


@pytest.fixture
def config(sweep_file):
    return SweepConfig.load(
        sweep_file("""
name: s
data: {name: digits, train: 100}
student: {model: mlp, bits: {weights: 2, activations: 4}, full: {epochs: 9, seeds: 3}}
""")
    )


def test_before_there_is_a_result(config):
    text = about(config, "Search pbt")
    assert text.startswith(
        "Search pbt, seed 0, on digits.\n\nIt is running, or was stopped before its end: no result yet."
    )
    assert "| **data** | digits: 100 to search on, the rest to score on |" in text
    assert "| **student** | mlp; search: 4 members × 24 epochs; full: 9 epochs × 3 seeds; 2-bit weights" in text
    assert "`roletune search sweep.yaml`" in text and "registry" not in text


def test_the_result_comes_first_and_says_where_everything_is(config):
    role = RoleResult("student", 0.9, {"policy": (0.91,)}, 2, "runs/s-001/policy.student.json")
    result = SweepResult("s", "runs/s-001", "runs/s-001/report", "sqlite://", "s", 1.0, {}, (role,))
    text = about(config, "Replay", result, {"student": "s-student"})
    assert text.index(result.markdown()) < text.index("| **data** |") and "no result yet" not in text
    assert "`policy.student.json`" in text and "- student: model `s-student` in the registry" in text
    assert "`roletune train sweep.yaml --policy policy.….json`" in text
