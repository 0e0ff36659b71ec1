"""Claims about policies and baselines, from made-up scores."""

import json
import math
from io import BytesIO

import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from results.analysis.evaluation import Arm, Evaluation
from results.analysis.statistics import holm, paired_p
from results.plots.evaluation import evaluation_png
from spaces import RequestError

OURS = (0.90, 0.91, 0.92, 0.905, 0.915)
"""A policy's accuracy in five seeds."""


def arm(name, *gains, kind="baseline"):
    """An arm that the policy beats by these gains, seed by seed."""
    pairs = zip(OURS, gains, strict=True)
    return Arm(name, kind, tuple(None if gain is None else our - gain for our, gain in pairs), (1.0,) * 5)


BEATEN = arm("none", 0.03, 0.031, 0.029, 0.03, 0.03)
EQUAL = arm("trivialaugment", 0.002, -0.003, 0.001, -0.002, 0.001)
AHEAD = arm("randaugment", -0.02, -0.021, -0.019, -0.02, -0.02)
SHUFFLED = arm("mine/shuffled", 0.010, 0.011, 0.009, 0.010, 0.010, kind="control")


MINE = Arm("mine", "policy", OURS, (2.0, 2.0, 2.0, 2.0, 3.0))


def evaluation(*others, policies=(MINE,), **more):
    return Evaluation("digits", "student", 40, (*policies, *others), **more)


# ---- statistics ------------------------------------------------------------------------------------


def test_the_paired_p_is_the_t_test_of_the_differences():
    ours, theirs = [0.9, 0.8, 0.95], [0.85, 0.82, 0.9]
    assert paired_p(ours, theirs) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert math.isnan(paired_p([0.9], [0.8]))
    assert paired_p([0.3, 0.2], [0.2, 0.1]) == 0.0  # equal but for rounding: no spread at all
    assert paired_p([0.3, 0.2], [0.3, 0.2]) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([0.02]) == [0.02]
    found = holm([0.02, math.nan, 0.03])
    assert found[0] == pytest.approx(0.04) and found[2] == pytest.approx(0.04) and math.isnan(found[1])


# ---- claims ----------------------------------------------------------------------------------------


def test_every_policy_is_compared_with_every_baseline_and_with_its_own_controls_alone():
    other = Arm("other", "policy", OURS, (1.0,) * 5)
    both = evaluation(BEATEN, SHUFFLED, policies=(evaluation().arms[0], other))
    assert [(c.policy, c.other) for c in both.comparisons()] == [
        ("mine", "none"),
        ("mine", "mine/shuffled"),
        ("other", "none"),
    ]
    assert [c.holm for c in both.comparisons()] == holm([c.p for c in both.comparisons()])


def test_better_than_every_baseline():
    (claim,) = evaluation(BEATEN, arm("trivialaugment", 0.02, 0.021, 0.019, 0.02, 0.02)).claims()
    assert claim.startswith("mine is significantly better than every baseline; over the best, trivialaugment: +2.00 ±")
    assert claim.endswith("points (p < 0.001).")
    assert "Holm's correction over 2 comparisons" in evaluation(BEATEN, EQUAL).notes()[1]


def test_no_difference_to_the_best_baseline():
    (claim,) = evaluation(BEATEN, EQUAL).claims()
    assert claim.startswith(
        "mine is significantly better than none, but no significant difference from the best baseline, triv"
    )
    (claim,) = evaluation(EQUAL).claims()
    assert claim.startswith("mine: no significant difference from the best baseline, trivialaugment: -0.02 ±")


def test_worse_than_the_best_baseline():
    (claim,) = evaluation(BEATEN, AHEAD).claims()
    assert claim.startswith("mine is significantly worse than randaugment; against the best, randaugment: -2.00 ±")


def test_the_best_is_beaten_and_a_noisy_one_is_not():
    noisy = arm("cutout", 0.3, -0.1, 0.2, -0.05, 0.1)
    (claim,) = evaluation(BEATEN, noisy).claims()
    assert "better than none, but not than cutout" in claim


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ((), "no result to compare it with"),
        ((Arm("none", "baseline", (None,) * 5, (None,) * 5),), "no result to compare it with"),
    ],
    ids=["none asked for", "all failed"],
)
def test_nothing_to_compare_with(others, said):
    assert said in evaluation(*others).claims()[0]


def test_one_seed_claims_nothing():
    one = Evaluation("digits", "student", 4, (Arm("a", "policy", (0.9,), (1.0,)), Arm("b", "baseline", (0.5,), (1.0,))))
    assert "one seed, so no confidence interval and no claim" in one.claims()[0]
    assert math.isnan(one.comparisons()[0].holm) and one.comparisons()[0].verdict == 0


def test_a_control_is_no_baseline_and_says_whether_the_order_matters():
    found = evaluation(BEATEN, SHUFFLED)
    assert found.best_baseline.name == "none" and "shuffled" not in found.claims()[0]
    assert "mine: the order of its phases helps significantly: +1.00 ± " in " ".join(found.notes())


def test_pairs_of_which_one_failed_are_left_out():
    holed = arm("none", 0.03, None, 0.029, 0.03, 0.03)
    (comparison,) = evaluation(holed).comparisons()
    assert comparison.gain == pytest.approx((0.03 + 0.029 + 0.03 + 0.03) / 4)
    assert "none-1 failed: why" in evaluation(holed, failed={"none-1": "why"}).notes()


# ---- as data and for people ------------------------------------------------------------------------


def test_it_is_the_same_after_a_file(tmp_path):
    found = evaluation(BEATEN, EQUAL, SHUFFLED, seconds=3.5, failed={"x": "y"}, settings={"seed": 0})
    path = tmp_path / "evaluation.student.json"
    path.write_text(json.dumps(found.to_json(), allow_nan=False))
    assert Evaluation.load(path) == found
    data = found.to_json()
    assert data["best_baseline"] == "trivialaugment" and data["arms"][0]["mean"] == pytest.approx(0.91)
    assert [c["other"] for c in data["comparisons"]] == ["none", "trivialaugment", "mine/shuffled"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "roletune.evaluation", "version": 2}',
                                  '{"format": "roletune.evaluation", "version": 1}'])  # fmt: skip
def test_a_file_of_something_else_is_refused(text, tmp_path):
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(RequestError, match="evaluation"):
        Evaluation.load(tmp_path / "e.json")


def test_the_table_has_the_best_first():
    found = evaluation(BEATEN, AHEAD, SHUFFLED)
    console = Console(width=100, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as shown:
        console.print(found.table())
    lines = shown.get().splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["randaugment", "mine", "mine/shuffled", "none"]
    assert "-2.00 ± 0.09, < 0.001" in lines[0] and "91.00 ± 0.98" in lines[1] and lines[1].endswith("2.2")
    assert found.markdown().count("\n| ") == 5


def test_the_same_evaluation_gives_the_same_plot():
    found = evaluation(BEATEN, EQUAL, SHUFFLED, Arm("gone", "baseline", (None,) * 5, (None,) * 5))
    picture = evaluation_png(found)
    assert picture == evaluation_png(found)
    assert Image.open(BytesIO(picture)).width == 900
