"""Differences between two schedules: by hand, and for any two against their epochs one by one."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from support import taught

from results.analysis.schedule_diff import compare_schedules
from results.plots.schedule import difference_png, plot_difference
from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule
from spaces.augmentations import augmentation

IMAGE = ImageSpec(8, 1, (0,))


def genome(*entries, **more):
    return Genome(Policy(tuple(Entry(*entry) for entry in entries)), **more)


def schedule(*phases, **provenance):
    return Schedule(tuple(Phase(epochs, genome(*entries)) for epochs, *entries in phases), "student", IMAGE, provenance)


STRONG, WEAK, OFF = ("Rotate", 10, 6), ("Rotate", 5, 4), ("Rotate", 0, 6)
A = schedule((2, STRONG, ("Invert", 5, 0)), (2, OFF, ("Invert", 5, 0)))
B = schedule((3, WEAK, ("Invert", 5, 0)), (1, OFF, ("Invert", 5, 0)))


def strip(found, op):
    """The strip of an operation at 80 columns."""
    return next(line.split()[1] for line in str(found).splitlines() if line.startswith(f"{op} "))


def test_the_numbers_by_hand():
    """Rotate: 6, 6, 0, 0 and 2, 2, 2, 0; chosen in two epochs of four, and in half of three."""
    found = compare_schedules(A, B)
    (row,) = found.rows
    assert (row.op, row.strength, row.probability, row.level) == ("Rotate", (3.0, 1.5), (0.5, 0.375), (6.0, 4.0))
    assert (row.most, row.epochs) == (4.0, (0, 1)) and found.equal == ("Invert",) and found.mean == 0.75
    assert found.sentence == "A is stronger by 0.75 on average; 1 of 2 operations differs: Rotate."
    letters = strip(found, "Rotate")
    assert len(letters) % 4 == 0 and letters == "".join(letter * (len(letters) // 4) for letter in "AAB·")
    assert "no difference: Invert" in str(found) and not found.same


def test_the_other_way_round_it_is_the_other_way_round():
    there, back = compare_schedules(A, B), compare_schedules(B, A)
    assert back.mean == -there.mean and back.rows[0].most == -there.rows[0].most
    assert back.rows[0].strength == there.rows[0].strength[::-1]
    assert strip(back, "Rotate") == strip(there, "Rotate").translate(str.maketrans("AB", "BA"))


def test_equal_policies_do_the_same_whatever_stands_beside_them():
    """Neither the entries' order nor those of probability 0, the level of what takes none, phases or origins count."""
    one = schedule((4, WEAK, ("Invert", 5, 0)), seed=1)
    two = schedule((1, ("Invert", 5, 7), WEAK), (3, ("Invert", 5, 0), WEAK, ("Color", 0, 9)), seed=2)
    found = compare_schedules(one, two)
    assert found.same and found.sentence == "A and B apply the same augmentation to every image." and found.rows == ()
    assert found.others == {"seed": ("1", "2")} and "seed: A 1; B 2" in str(found)


def test_as_strong_by_other_entries_is_told():
    found = compare_schedules(schedule((1, ("Rotate", 10, 2))), schedule((1, ("Rotate", 4, 5))))
    (row,) = found.rows
    assert row.most == 0 and set(strip(found, "Rotate")) == {"~"} and "0 at 0" in str(found)
    assert "A and B are equally strong on average; 1 operation differs: Rotate." in str(found)


def test_an_entry_that_is_never_in_force_is_no_difference():
    """Though it halves the mean over entries in the first epoch; in the second, Rotate differs."""
    found = compare_schedules(schedule((1, WEAK), (1, WEAK)), schedule((1, WEAK, OFF), (1, STRONG)))
    assert found.rows[0].epochs == (1, 1) and found.rows[0].most == 2 - 6
    assert strip(found, "Rotate").startswith("·") and strip(found, "Rotate").endswith("B")


def test_a_shorter_one_is_stretched_and_that_is_told():
    """Three phases in three epochs, one for every two of the other's six."""
    short = schedule((1, STRONG), (1, WEAK), (1, STRONG))
    found = compare_schedules(short, schedule((6, STRONG)))
    assert found.epochs == 6 and found.rows[0].epochs == (2, 3) and found.rows[0].most == -4
    assert "A is stretched from 3 epochs to the 6 of B" in str(found)
    assert compare_schedules(short, short.stretch(6)).same


def test_what_else_differs_is_told():
    distilled = {"loss": {"kd": 1, "hint": {"weight": 3.0}}}
    one = Schedule((Phase(4, genome(WEAK, augment=augmentation("cutmix"), bits={"weights": 2})),), "student", IMAGE)
    two = Schedule(
        (Phase(1, genome(WEAK, augment=augmentation("cutmix"))), Phase(3, genome(WEAK, distill=distilled))),
        "teacher",
        replace(IMAGE, size=16),
        {"seed": 3, "sweep": "\x1b[2J"},
    )
    found = compare_schedules(one, two)
    assert not found.same and "have the same operations" in found.sentence
    assert found.others == {
        "role": ("student", "teacher"),
        "image": ("8 px, gray, mean color 0", "16 px, gray, mean color 0"),
        "sweep": ("none", "?[2J"),
        "seed": ("none", "3"),
        "augment": ("cutmix", "cutmix in 1 epoch, identity in 3 epochs"),
        "bits.weights": ("2", "none"),
        "loss": ("none", "none in 1 epoch, kd + hint in 3 epochs"),
        "kd.weight": ("none", "none in 1 epoch, 1 in 3 epochs"),
        "hint.weight": ("none", "none in 1 epoch, 3 in 3 epochs"),
    }
    assert "\x1b" not in str(found)


def test_augmentations_that_learned_differently_are_not_the_same():
    one, two = (
        Schedule((Phase(1, Genome(augment=taught("hard_affine", seed=seed))),), "student", IMAGE) for seed in (0, 1)
    )
    assert compare_schedules(one, one).same and not compare_schedules(one, two).same
    assert "learned" in compare_schedules(one, two).others["augment"][1]


@st.composite
def schedules(draw):
    """As a search makes them: every policy names the same operations equally often."""
    numbers = st.sampled_from([0, 5, 10]), st.sampled_from([0, 4, 9])
    entries = [st.builds(Entry, st.just(op), *numbers) for op in ("Rotate", "Rotate", "Invert", "Color")]
    policies = st.tuples(*entries).map(lambda entries: Genome(Policy(entries)))
    phases = draw(st.lists(st.builds(Phase, st.integers(1, 5), policies), min_size=1, max_size=5))
    return Schedule(tuple(phases), "student", IMAGE)


@settings(deadline=None, max_examples=150)
@given(schedules(), schedules())
def test_it_is_what_a_walk_over_the_epochs_finds(a, b):
    found = compare_schedules(a, b)
    epochs = max(a.epochs, b.epochs)
    laid = [each if each.epochs == epochs else each.stretch(epochs) for each in (a, b)]
    sides = [[each.at(epoch).policy.strength() for epoch in range(epochs)] for each in laid]
    assert found.mean == pytest.approx(laid[0].mean_strength() - laid[1].mean_strength())
    for op in ("Rotate", "Invert", "Color"):
        one, two = (np.array([strength.get(op, 0.0) for strength in side]) for side in sides)
        row = next((row for row in found.rows if row.op == op), None)
        if row is None:
            np.testing.assert_allclose(one, two)
            continue
        assert row.strength == pytest.approx((one.mean(), two.mean()))
        assert abs(row.most) == pytest.approx(np.abs(one - two).max())
        first, last = row.epochs
        np.testing.assert_allclose((one - two)[first : last + 1], row.most, atol=1e-12)
        np.testing.assert_allclose(found.strengths(op, epochs), [one, two], atol=1e-12)
        np.testing.assert_allclose(found.difference(op, epochs), one - two, atol=1e-12)
    json.dumps(found.to_json(), allow_nan=False)
    assert found.same == (compare_schedules(b, a).rows == ())


def test_programs_get_the_same_numbers():
    data = json.loads(json.dumps(compare_schedules(A, replace(B, provenance={"seed": 1})).to_json(), allow_nan=False))
    (row,) = data["operations"]
    assert row["strength"] == {"a": 3.0, "b": 1.5} and row["level"] == {"a": 6.0, "b": 4.0}
    assert row["largest"] == {"difference": 4.0, "first_epoch": 0, "last_epoch": 1}
    assert row["difference_over_epochs"] == [4.0, 4.0, -2.0, 0.0]
    assert (data["same"], data["epochs"], data["equal"]) == (False, 4, ["Invert"])
    assert data["mean_strength"] == {"a": 3.75, "b": 3.0} and data["others"] == {"seed": {"a": "none", "b": "1"}}


def test_a_table_for_every_width_and_stream():
    long = schedule(*((100_000, ("Rotate", 1 + epoch % 10, 9), ("AutoContrast", 10, 0)) for epoch in range(10)))
    found = compare_schedules(long, schedule((3, ("TranslateX", 10, 9))))
    assert max(map(len, str(found).splitlines())) <= 80
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(found)
    line = next(line for line in captured.get().splitlines() if line.startswith("TranslateX"))
    assert len(line.split()[1]) == 72 and set(line.split()[1]) == {"B"}
    shown = found._repr_mimebundle_(include=(), exclude=())
    assert "TranslateX" in shown["text/plain"] and "TranslateX" in shown["text/html"]


# The picture ----------------------------------------------------------------------------------------------------------


def test_the_picture_shows_by_its_color_who_is_stronger(tmp_path):
    """Rotate alone, A stronger in the first half, B in the second: orange, then purple."""
    found = compare_schedules(schedule((2, STRONG), (2, WEAK)), schedule((2, WEAK), (2, STRONG)))
    path = plot_difference(found, tmp_path / "new" / "d.png", ("a.json", "b.json"))
    with Image.open(path) as image:
        assert image.format == "PNG"
        picture = np.asarray(image.convert("RGB"), dtype=int)
    panel = picture[len(picture) // 2, int(0.68 * picture.shape[1]) : int(0.9 * picture.shape[1])]
    left, right = panel[20], panel[-20]
    assert left[0] > left[2] + 60 and right[2] > right[0] + 20
    assert path.read_bytes() == difference_png(found, ("a.json", "b.json")) != difference_png(found)


def test_nothing_to_compare_has_a_picture_too():
    empty = schedule((1,))
    with Image.open(BytesIO(difference_png(compare_schedules(empty, empty)))) as image:
        assert image.format == "PNG" and image.width > 900


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot write .*choose another path"):
        plot_difference(compare_schedules(A, B), tmp_path / "file" / "x.png")
