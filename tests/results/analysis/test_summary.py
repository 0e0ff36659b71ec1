"""Results with their intervals, and the claims made of them."""

import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from results.analysis.pareto import Candidate
from results.analysis.statistics import interval, paired_difference
from results.analysis.summary import RoleResult, SweepResult
from spaces import RequestError

T2 = math.sqrt(2 * 0.95**2 / (1 - 0.95**2))
"""4.3027: the 97.5 % quantile of Student's t with 2 degrees of freedom, from t / √(2 + t²) = 0.95."""


def role(test, *, name="student", best=0.9):
    return RoleResult(name, best, test, exploits=2, policy_file=f"policy.{name}.json")


def sweep(*roles, failed=None):
    return SweepResult("digits", "runs/digits-001", "runs/digits-001/report", "sqlite:///x", "digits", 12.5,
                       failed or {}, roles)  # fmt: skip


SEVERAL = {"policy": (0.80, 0.90, 1.00), "none": (0.70, 0.75, 0.80), "random": (0.82, 0.91, 0.97)}


def test_a_result_survives_being_written_down():
    front = (Candidate("student-tpe-00", 0.9, 8000, {"bits.weights": 2}),)
    whole = sweep(
        replace(role(SEVERAL), pareto=front, size_in_bits=8000), role({"policy": (0.5, None)}, name="teacher")
    )
    whole = replace(whole, failed={"x": "why"})
    data = json.loads(json.dumps(whole.to_json()))
    assert SweepResult.from_json(data) == whole
    nothing = sweep(role({"policy": (0.5,)}, best=math.nan))
    assert math.isnan(SweepResult.from_json(nothing.to_json()).roles[0].best_validation)


def test_results_of_earlier_versions_are_read_and_other_data_refused():
    data = sweep(role(SEVERAL)).to_json()
    del data["roles"]["student"]["size_in_bits"], data["roles"]["student"]["pareto"]
    assert SweepResult.from_json(data) == sweep(role(SEVERAL))
    for other in ([], {}, {**data, "roles": {"student": 3}}):
        with pytest.raises(RequestError, match="the result of a sweep must hold its name, folder and roles"):
            SweepResult.from_json(other)


# Statistics -----------------------------------------------------------------------------------------------------------


def test_the_interval_is_students():
    """Mean 0.9, standard deviation 0.1, three values: half width = t · 0.1 / √3."""
    mean, half = interval([0.8, 0.9, 1.0])
    assert mean == pytest.approx(0.9, abs=1e-12)
    assert half == pytest.approx(T2 * 0.1 / math.sqrt(3), rel=1e-9)


def test_two_values_have_a_wide_interval():
    """One degree of freedom: t = tan(0.475 π) = 12.7062; standard deviation √0.5 · 0.2."""
    mean, half = interval([0.4, 0.6])
    assert mean == pytest.approx(0.5) and half == pytest.approx(math.tan(0.475 * math.pi) * 0.1, rel=1e-9)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert interval([0.25]) == (0.25, None)
    with pytest.raises(ValueError, match=r"at least one value, got \[\]"):
        interval([])


def test_a_paired_difference_ignores_what_both_share():
    """Differences −1, 0, 1 around 0.5: mean 0.5, standard deviation 1, whatever the pairs' own spread."""
    theirs = [10.0, -30.0, 7.0]
    mean, half = paired_difference([9.5, -29.5, 8.5], theirs)
    assert mean == pytest.approx(0.5) and half == pytest.approx(T2 / math.sqrt(3), rel=1e-9)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        paired_difference([1.0, 2.0], [1.0])


# One role -------------------------------------------------------------------------------------------------------------


def test_a_failed_training_is_left_out_of_its_arm():
    result = role({"policy": (0.8, None, 0.6), "none": (None, None, None)})
    assert result.accuracy("policy") == interval([0.8, 0.6])
    assert result.accuracy("none") is None and result.accuracy("absent") is None


def test_a_gain_takes_only_the_seeds_that_both_arms_have():
    result = role({"policy": (0.8, None, 0.6, 0.9), "none": (0.7, 0.1, 0.65, None), "random": (None, 0.5, None, None)})
    assert result.gain("none") == paired_difference([0.8, 0.6], [0.7, 0.65])
    assert result.gain("random") is None and result.gain("absent") is None


# A sweep --------------------------------------------------------------------------------------------------------------


def test_json_holds_the_figures_and_nothing_that_is_no_json():
    result = sweep(role({"policy": (0.5, None), "none": (None, None)}, best=math.nan), failed={"trial": "why"})
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["roles"] == {
        "student": {
            "best_validation": None,
            "test": {
                "policy": {"mean": 0.5, "half_width_95": None, "by_seed": [0.5, None]},
                "none": {"mean": None, "half_width_95": None, "by_seed": [None, None]},
            },
            "exploits": 2,
            "policy_file": "policy.student.json",
            "size_in_bits": 0,
            "pareto": [],
            "confirmation": "",
            "in_domain": {},
        }
    }
    assert (data["name"], data["seconds"], data["failed"]) == ("digits", 12.5, {"trial": "why"})


def test_json_gives_the_interval():
    found = sweep(role(SEVERAL, best=0.9)).to_json()["roles"]["student"]
    assert found["best_validation"] == 0.9
    assert found["test"]["policy"]["half_width_95"] == pytest.approx(T2 * 0.1 / math.sqrt(3), rel=1e-9)


def test_markdown_of_several_seeds():
    """policy − none = 10, 15, 20 points: 15 ± t · 5 / √3 = 15 ± 12.42; policy − random = −2, −1, 3: 0 ± 6.57."""
    worse = {"policy": (0.5, 0.5, 0.5), "none": (0.7, 0.7, 0.7), "random": (0.5, 0.5, 0.5)}
    teacher = role(worse, name="teacher", best=0.75)
    lines = sweep(teacher, role(SEVERAL)).markdown().splitlines()
    assert lines[:9] == [
        "| role | trained | test accuracy, % | policy − it, points |",
        "| --- | --- | ---: | ---: |",
        "| teacher | with policy | 50.00 ± 0.00 | – |",
        "| teacher | no augmentation | 70.00 ± 0.00 | -20.00 ± 0.00 |",
        "| teacher | random control | 50.00 ± 0.00 | +0.00 ± 0.00 |",
        "| student | with policy | 90.00 ± 24.84 | – |",
        "| student | no augmentation | 75.00 ± 12.42 | +15.00 ± 12.42 |",
        "| student | random control | 90.00 ± 18.75 | +0.00 ± 6.57 |",
        "",
    ]
    assert lines[9:] == [
        "- teacher: policy − no augmentation = -20.00 ± 0.00 points: significantly worse (95 % confidence interval).",
        "- teacher: policy − random control = +0.00 ± 0.00 points: "
        "no significant difference (the 95 % confidence interval contains 0).",
        "- student: policy − no augmentation = +15.00 ± 12.42 points: significantly better (95 % confidence interval).",
        "- student: policy − random control = +0.00 ± 6.57 points: "
        "no significant difference (the 95 % confidence interval contains 0).",
        "- teacher: best validation 75.00 %.",
        "- student: best validation 90.00 %.",
    ]


def test_a_confirmation_comes_first():
    result = sweep(replace(role({"policy": (0.9,)}), confirmation="not confirmed, uniform is exported: …"))
    assert result.notes()[0] == "student: not confirmed, uniform is exported: …."
    again = SweepResult.from_json(json.loads(json.dumps(result.to_json())))
    assert again == result


def test_a_target_domain_has_two_columns():
    found = replace(role({"policy": (0.9,), "none": (0.5,)}), in_domain={"policy": (0.95,), "none": (None,)})
    lines = sweep(found).markdown().splitlines()
    assert lines[0] == "| role | trained | target accuracy, % | in domain, % | policy − it, points |"
    assert lines[2:4] == [
        "| student | with policy | 90.00 | 95.00 | – |",
        "| student | no augmentation | 50.00 | – | +40.00 |",
    ]
    assert SweepResult.from_json(json.loads(json.dumps(sweep(found).to_json()))).roles[0].in_domain == found.in_domain


def test_the_size_is_named_where_it_is_known():
    small = replace(role({"policy": (0.9,)}), size_in_bits=16_000)
    notes = sweep(role({"policy": (0.8,)}, name="teacher"), small).notes()
    assert notes == [
        "teacher: best validation 90.00 %.",
        "student: best validation 90.00 %, exported network 2.0 kB.",
    ]


def test_the_front_is_in_the_notes_and_in_the_data():
    small = Candidate("student-tpe-03", 0.9, 80_000, {"augment": "identity", "bits.weights": 2})
    large = Candidate("student-tpe-11", 0.95, 800_000, {"augment": "identity", "bits.weights": 32})
    result = sweep(role({"policy": (0.9,)}, name="teacher"), replace(role({"policy": (0.9,)}), pareto=(small, large)))
    assert result.notes()[2:] == [
        "student, Pareto front: 10.0 kB, validation accuracy 90.00 %: weights 2 (student-tpe-03).",
        "student, Pareto front: 100.0 kB, validation accuracy 95.00 %: weights 32 (student-tpe-11).",
    ]
    assert f"- {result.notes()[3]}" in result.markdown().splitlines()
    roles = json.loads(json.dumps(result.to_json(), allow_nan=False))["roles"]
    assert roles["teacher"]["pareto"] == []
    assert roles["student"]["pareto"][0] == {
        "name": "student-tpe-03",
        "accuracy": 0.9,
        "size_in_bits": 80_000,
        "chosen": {"augment": "identity", "bits.weights": 2},
    }


def test_one_seed_shows_nothing_and_says_so():
    result = sweep(role({"policy": (0.9,), "none": (0.8,)}))
    assert result.markdown().splitlines()[3] == "| student | no augmentation | 80.00 | +10.00 |"
    assert result.notes()[:1] == [
        "student: policy − no augmentation = +10.00 points: one seed, so no confidence interval; use 3 or more seeds."
    ]


def test_failures_are_named():
    result = sweep(role({"policy": (0.9,), "none": (None,)}), failed={"student-full-none-0": "ValueError: x"})
    assert result.markdown().splitlines()[3] == "| student | no augmentation | failed | – |"
    assert result.notes()[1:] == ["student-full-none-0 failed: ValueError: x"]


def test_a_replay_has_no_search_to_report():
    assert sweep(role({"policy": (0.9,)}, best=math.nan)).notes() == []


def test_an_arm_without_a_heading_of_its_own_goes_by_its_name():
    result = sweep(role({"policy": (0.9,), "trivialaugment": (0.8,)}))
    assert (
        "| student | trivialaugment | 80.00 |" in result.markdown()
        and "policy − trivialaugment = " in result.notes()[0]
    )


def test_the_table_says_the_same():
    console = Console(width=120, color_system=None)
    with console.capture() as said:
        console.print(sweep(role(SEVERAL)).table())
    heading, *rows = (line for line in said.get().splitlines() if "━╇━" not in line)
    assert heading.split()[:2] == ["role", "┃"]
    assert [[cell.strip() for cell in row.split("│")] for row in rows] == [
        ["student", "with policy", "90.00 ± 24.84", "–"],
        ["student", "no augmentation", "75.00 ± 12.42", "+15.00 ± 12.42"],
        ["student", "random control", "90.00 ± 18.75", "+0.00 ± 6.57"],
    ]
