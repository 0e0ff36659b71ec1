"""Strengths of scaled policies in tables and differences."""

from dataclasses import replace

import pytest

from results.analysis.schedule_diff import compare_schedules
from results.analysis.schedule_table import ScheduleTable
from results.analysis.strength import Strengths
from spaces import Genome, ImageSpec, Phase, ScaledEntry, ScaledPolicy, Schedule


def test_a_scaled_policy_shows_amount_times_weight_and_its_mean_level():
    policy = ScaledPolicy(0.8, 2, (ScaledEntry("Rotate", 1, 0.5), ScaledEntry("Invert", 0.5, 0.3)))
    schedule = Schedule((Phase(4, Genome(policy)),), "student", ImageSpec(8, 1, (0,)))
    strengths = Strengths.of(schedule)
    shown = dict(
        zip(strengths.operations, zip(strengths.probability[:, 0], strengths.strength[:, 0], strict=True), strict=True)
    )
    assert shown["Rotate"] == pytest.approx((0.8, 0.8 * 4.5 * 0.5))
    assert shown["Invert"] == pytest.approx((0.4, 0.4 * 9 * 0.3))
    table = ScheduleTable(schedule)
    assert "in 4 epochs: 80 % of the images changed, by up to 2 operations" in table.notes()
    other = replace(schedule, phases=(Phase(4, Genome(ScaledPolicy(0.5, 2, policy.entries))),))
    assert compare_schedules(schedule, other).others["amount"] == (
        "80 % of the images changed, by up to 2 operations",
        "50 % of the images changed, by up to 2 operations",
    )
