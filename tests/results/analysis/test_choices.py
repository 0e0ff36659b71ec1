"""Choices of members: of a genome, those that differ, the tables and the plot."""

import json

import pytest
from PIL import Image

from results.analysis.choices import MemberChoices, choices_markdown, describe_choices, varying_choices
from results.plots.choices import plot_choices
from spaces import Entry, Genome, Policy
from spaces.augmentations import augmentation


def rows():
    choices = [
        ({"augment": "identity", "loss": "kd", "temperature": 1.0}, 0.5),
        ({"augment": "identity", "loss": "kd", "temperature": 4.0}, 0.7),
        ({"augment": "cutmix", "loss": "kd + hint", "hint.weight": 20.0, "temperature": 2.0}, 0.9),
        ({"augment": "cutmix", "loss": "kd + hint", "hint.weight": 5.0, "temperature": 8.0}, 0.6),
    ]
    return [MemberChoices(f"member-{index}", score, choice) for index, (choice, score) in enumerate(choices)]


def test_choices_of_a_genome_are_flat():
    loss = {"kd": 1, "hint": {"weight": 50, "projection": "inverted", "student": ["layer1", "layer2"]}}
    genome = Genome(Policy((Entry("Rotate", 1, 1),)), augmentation("cutmix"), {"loss": loss, "temperature": 4.0})
    assert describe_choices(genome) == {
        "augment": "cutmix",
        "loss": "kd + hint",
        "kd.weight": 1,
        "hint.weight": 50,
        "hint.projection": "inverted",
        "hint.student": "['layer1', 'layer2']",
        "temperature": 4.0,
    }
    assert describe_choices(Genome(distill={"loss": "dkd"})) == {"augment": "identity", "loss": "dkd"}
    bits = describe_choices(Genome(bits={"weights": 2, "activations": 4}))
    assert bits == {"augment": "identity", "bits.weights": 2, "bits.activations": 4}


def test_only_choices_that_differ_are_compared():
    assert varying_choices(rows()) == ["augment", "loss", "temperature", "hint.weight"]
    assert varying_choices(rows()[:2]) == ["temperature"]
    assert varying_choices([]) == [] and varying_choices(rows()[:1]) == []


def test_the_table_has_the_best_first_and_the_mean_of_each_choice():
    text = choices_markdown(rows())
    lines = text.splitlines()
    assert lines[0] == "| validation, % | augment | loss | temperature | hint.weight | member |"
    assert lines[2] == "| 90.00 | cutmix | kd + hint | 2 | 20 | member-2 |"
    assert [line.split("|")[1].strip() for line in lines[2:6]] == ["90.00", "70.00", "60.00", "50.00"]
    assert "| augment | cutmix | 2 | 75.00 | 90.00 |" in lines and "| loss | kd | 2 | 60.00 | 70.00 |" in lines
    assert "| 70.00 | identity | kd | 4 | – | member-1 |" in lines


def test_many_numbers_are_grouped_in_four():
    many = [MemberChoices(str(index), index / 100, {"temperature": float(index)}) for index in range(1, 41)]
    lines = [line for line in choices_markdown(many).splitlines() if line.startswith("| temperature |")]
    assert lines == [
        "| temperature | 1 … 10 | 10 | 5.50 | 10.00 |",
        "| temperature | 11 … 20 | 10 | 15.50 | 20.00 |",
        "| temperature | 21 … 30 | 10 | 25.50 | 30.00 |",
        "| temperature | 31 … 40 | 10 | 35.50 | 40.00 |",
    ]


@pytest.mark.parametrize("count", [2, 4])
def test_the_same_members_give_the_same_plot(tmp_path, count):
    first, again = (plot_choices(rows()[:count], tmp_path / f"{name}.png").read_bytes() for name in "ab")
    assert first == again
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 300 and len(picture.convert("RGB").getcolors(1 << 20)) > 5


def test_members_survive_being_written_down():
    assert [MemberChoices.from_json(json.loads(json.dumps(row.to_json()))) for row in rows()] == rows()
