"""The forest plot of effects: its rows, what is filled, and where the roles differ."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from results.analysis.effects import Effect, EffectsReport, RoleDifference, RoleEffects
from results.plots.effects import effects_figure, plot_effects
from results.plots.style import DARK, PAPER, png_bytes

MEANS = {"Rotate": 0.5, "Invert": -2.0, "Cutout": 0.1}


def effects(role, shift=0.0, score="accuracy"):
    found = []
    for op, mean in MEANS.items():
        value = mean + shift
        found.append(Effect(op, "operation", ("off", "on"), value, value - 0.3, value + 0.3, 0.9, 1.3))
        found.append(Effect(f"{op} strength", "level", ("low", "high"), 0.1, -0.1, 0.3, 0.8, 0.8))
    found.append(Effect("distill.loss", "choice", ("kd", "dkd"), 0.2, -0.1, 0.5, 0.9, 1.3))
    policy = {"Rotate": "on", "Rotate strength": "high", "Invert": "off", "Cutout": "on", "Cutout strength": "middle"}
    return RoleEffects(role, score, 24, 0.5, tuple(found), policy | {"distill.loss": "dkd"})


@pytest.fixture
def report():
    differences = (RoleDifference("Cutout", "operation", ("off", "on"), 1.0, 0.5, 1.5, 0.001, 0.003),)
    return EffectsReport({"teacher": effects("teacher"), "student": effects("student", 0.2)}, differences)


def labels(axis):
    return [tick.get_text() for tick in axis.get_yticklabels()]


def test_operations_are_sorted_by_their_mean_effect_and_choices_follow(report):
    teacher, student = effects_figure(report).axes
    assert labels(teacher) == ["Rotate", "Cutout", "Invert", "loss: dkd vs kd"]
    assert [axis.get_title("left") for axis in (teacher, student)] == ["Teacher", "Student"]
    assert teacher.get_ylim()[0] > teacher.get_ylim()[1], "the largest effect on top"
    assert teacher.get_xlim() == student.get_xlim()


def test_what_is_in_the_policy_is_filled_and_has_its_strength(report):
    axis = effects_figure(report).axes[0]
    marks = [line for line in axis.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in marks] == [PAPER.lead, PAPER.lead, PAPER.page, PAPER.lead]
    assert [text.get_text() for text in axis.texts] == ["strong", "medium", "dkd"]


def test_rows_in_which_the_roles_differ_are_marked(report):
    figure = effects_figure(report)
    colors = {tick.get_text(): tick.get_color() for tick in figure.axes[0].get_yticklabels()}
    assert {name for name, color in colors.items() if color == PAPER.control} == {"Cutout"}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[-1] == "roles differ (Holm, p < 0.05)"
    alone = effects_figure(EffectsReport(report.roles))
    assert len(alone.legends[0].get_texts()) == 2


def test_scales_that_differ_have_axes_of_their_own():
    other = effects("student", 5.0, "cross_entropy")
    teacher, student = effects_figure(EffectsReport({"teacher": effects("teacher"), "student": other})).axes
    assert teacher.get_xlim() != student.get_xlim()
    assert "points" in teacher.get_xlabel() and "cross-entropy" in student.get_xlabel()


def test_the_picture_of_both_roles_is_as_wide_as_a_readme_and_always_the_same(report, tmp_path):
    path = plot_effects(report, tmp_path / "new" / "effects.png")
    with Image.open(path) as picture:
        assert 880 <= picture.width <= 940
        assert np.asarray(picture.convert("L")).mean() > 200, "on a light background"
    assert path.read_bytes() == png_bytes(effects_figure(report))
    assert png_bytes(effects_figure(report, DARK)) != path.read_bytes()


def test_one_role_is_drawn_alone():
    alone = EffectsReport({"teacher": effects("teacher")})
    assert len(effects_figure(alone).axes) == 1
