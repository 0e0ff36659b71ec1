"""A policy as a table, as JSON and as files: the numbers by hand, the text within its 80 columns."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from results.analysis.schedule_table import BLOCKS, IDLE, PLAIN_BLOCKS, PLAIN_IDLE, ScheduleTable
from results.analysis.strength import Strengths
from results.plots.schedule import schedule_png
from results.reporting.policy_view import describe_policy, parse_epochs
from spaces import OPERATIONS, Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, Space

IMAGE = ImageSpec(8, 1, (0,))


def genome(*entries):
    return Genome(Policy(tuple(Entry(*entry) for entry in entries)))


def schedule(*phases, role="student", image=IMAGE, **provenance):
    return Schedule(tuple(Phase(epochs, genome(*entries)) for epochs, *entries in phases), role, image, provenance)


SMALL = schedule(
    (1, ("Rotate", 0, 9), ("Rotate", 0, 9), ("Invert", 0, 0), ("Color", 0, 3)),
    (3, ("Rotate", 10, 2), ("Rotate", 5, 8), ("Invert", 10, 0), ("Color", 0, 3)),
)


@pytest.fixture
def full():
    """All 15 operations, twice each, over 1,000 phases of 1,000 epochs."""
    generator, space = np.random.default_rng(0), Space()
    phases = [Phase(1000, space.random(generator)) for _ in range(1000)]
    provenance = {"sweep": "digits", "run": "student-pbt-3", "metric": "validation_accuracy", "value": 0.98765}
    return Schedule(tuple(phases), "student", ImageSpec(224, 3, (1, 2, 3)), provenance)


def test_the_numbers_by_hand():
    """Entries of one operation are averaged, then epochs; a level counts as often as its operation is chosen."""
    invert, rotate = ScheduleTable(SMALL).rows
    assert (invert.op, invert.level, invert.first_epoch) == ("Invert", None, 1)
    assert invert.probability == pytest.approx(3 / 4) and invert.strength == pytest.approx(3 / 4 * 9)
    assert (rotate.op, rotate.first_epoch) == ("Rotate", 1)
    assert rotate.probability == pytest.approx(3 / 4 * 0.75)
    assert rotate.strength == pytest.approx(3 / 4 * (2 + 4) / 2)
    assert rotate.level == pytest.approx((1.0 * 2 + 0.5 * 8) / 1.5)
    assert ScheduleTable(SMALL).never == ("Color",)


def test_json_says_the_same(tmp_path):
    seen = ScheduleTable(replace(SMALL, provenance={"sweep": "s", "data": {"name": "d"}})).to_json()
    assert json.loads(json.dumps(seen)) == seen
    assert {key: seen[key] for key in ("role", "epochs", "phases", "never", "views")} == {
        "role": "student",
        "epochs": 4,
        "phases": 2,
        "never": ["Color"],
        "views": {},
    }
    assert seen["mean_strength"] == SMALL.mean_strength()
    assert seen["image"] == IMAGE.to_json() and seen["provenance"] == {"sweep": "s", "data": {"name": "d"}}
    assert [row["op"] for row in seen["operations"]] == ["Invert", "Rotate"]
    assert seen["operations"][1]["strength_over_epochs"] == [None, 3.0, 3.0, 3.0]


def strip(text, op):
    return next(line.split()[1] for line in text.splitlines() if line.startswith(op))


def test_the_strip_shows_each_epoch():
    """Eight blocks for strengths from 0 to 9; 28 columns hold 4 epochs 7 times each."""
    text = str(ScheduleTable(SMALL))
    assert strip(text, "Invert") == IDLE * 7 + BLOCKS[7] * 21
    assert strip(text, "Rotate") == IDLE * 7 + BLOCKS[2] * 21  # 3 of 9 is in the third eighth
    weak = schedule((28, ("Brightness", 1, 0)))
    assert strip(str(ScheduleTable(weak)), "Brightness") == BLOCKS[0] * 28  # in force, though probability × level is 0


def test_a_strip_of_more_epochs_than_columns_holds_means():
    """56 epochs in 28 columns: the one that holds the change is halfway."""
    text = str(ScheduleTable(schedule((1, ("Rotate", 0, 9)), (55, ("Rotate", 10, 9)))))
    assert strip(text, "Rotate") == BLOCKS[4] + BLOCKS[7] * 27


@pytest.mark.parametrize("columns", [1, 3, 7, 600])
def test_parts_of_the_epochs_are_means_over_these_epochs(columns):
    phases = [(epochs, ("Rotate", epochs % 11, epochs % 10)) for epochs in (3, 1, 250, 40, 6)]
    strengths = Strengths.of(schedule(*phases))
    each = np.repeat(strengths.strength, [phase[0] for phase in phases], axis=1)  # 300 epochs
    fine = np.repeat(each, columns, axis=1).reshape(len(each), columns, 300).mean(axis=2)
    np.testing.assert_allclose(strengths.binned(strengths.strength, columns), fine, atol=1e-12)


def test_every_line_fits_in_80_columns_whatever_the_schedule(full):
    for each in (full, SMALL, schedule((1,)), replace(full, provenance={"sweep": "x" * 500, "run": "y " * 500})):
        lines = str(ScheduleTable(each)).splitlines()
        assert max(map(len, lines)) <= 80, lines
    lines = str(ScheduleTable(full)).splitlines()
    assert [line.split()[0] for line in lines[2:17]] == [row.op for row in ScheduleTable(full).rows]
    assert sorted(row.op for row in ScheduleTable(full).rows) == sorted(OPERATIONS)
    assert "1,000,000 epochs in 1,000 phases" in lines[-2] and "224 px RGB" in lines[-2]
    assert "sweep digits, run student-pbt-3, validation_accuracy 0.9877" in lines[-1]


def test_a_wider_terminal_has_a_longer_strip(full):
    console = Console(width=200, record=True, color_system=None, file=None, quiet=False, stderr=False)
    with console.capture() as captured:
        console.print(ScheduleTable(full))
    assert len(strip(captured.get(), "Rotate")) == 72


class Ascii:
    """A stream that takes ASCII alone."""

    encoding = "ascii"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text.encode("ascii").decode()

    def flush(self):
        pass


def test_a_stream_without_unicode_gets_a_strip_all_the_same():
    stream = Ascii()
    Console(file=stream, width=80, color_system=None).print(ScheduleTable(SMALL))
    assert strip(stream.text, "Invert") == PLAIN_IDLE * 7 + PLAIN_BLOCKS[7] * 21


def test_a_schedule_that_does_nothing_says_so():
    text = str(ScheduleTable(schedule((5, ("Rotate", 0, 0), ("Color", 0, 9)))))
    assert "no image is changed" in text and "never active: Rotate, Color" in text
    assert "provenance: not stated" in text


def test_a_file_cannot_move_the_terminals_cursor():
    assert "\x1b" not in str(ScheduleTable(schedule((1,), sweep="\x1b[2J", run="[bold]", value=10**30)))
    assert "run [bold]" in str(ScheduleTable(schedule((1,), run="[bold]")))


def test_a_second_view_is_told():
    from spaces.augmentations import CutMix

    mixed = Genome(SMALL.phases[1].genome.policy, CutMix())
    seen = ScheduleTable(replace(SMALL, phases=(*SMALL.phases, Phase(2, mixed), Phase(1, SMALL.phases[1].genome))))
    assert seen.views == {"cutmix": 2} and "second view: cutmix in 2 epochs" in str(seen)


def test_what_was_chosen_of_the_distillation_is_told():
    loss = {"kd": 1, "hint": {"weight": 20.0, "projection": "inverted"}}
    phases = (Phase(2, Genome(distill={"loss": loss, "temperature": 3.25})), Phase(1, Genome()))
    seen = ScheduleTable(Schedule(phases, "student", ImageSpec(8, 1, (3,))))
    chosen = "loss kd + hint, kd.weight 1, hint.weight 20, hint.projection inverted, temperature 3.25"
    assert seen.distilled == seen.to_json()["distilled"] == {chosen: 2}
    assert f"distillation in 2 epochs: {chosen}" in " ".join(str(seen).split())
    assert seen.bits == {} and "bits" not in str(seen)


def test_what_was_chosen_of_the_bits_is_told():
    genome = Genome(distill={"temperature": 2.0}, bits={"weights": 2, "activations": 4})
    seen = ScheduleTable(Schedule((Phase(3, genome),), "student", ImageSpec(8, 1, (3,))))
    assert seen.bits == seen.to_json()["bits"] == {"weights 2, activations 4": 3}
    assert seen.distilled == {"temperature 2": 3} and "bits in 3 epochs: weights 2, activations 4" in str(seen)


def test_a_notebook_shows_the_table():
    shown = ScheduleTable(SMALL)._repr_mimebundle_(include=(), exclude=())
    assert "Rotate" in shown["text/plain"] and "Rotate" in shown["text/html"]


def height(schedule):
    with Image.open(BytesIO(schedule_png(schedule))) as image:
        return image.height


def test_what_is_never_in_force_has_no_row_in_the_plot_and_is_named_below():
    """A line of names is 0.17 inches at 120 dots an inch, a row 0.27."""
    on = [(op, 10, 9) for op in list(OPERATIONS)[:3]]
    off = [(op, 0, 9) for op in list(OPERATIONS)[3:5]]
    assert abs(height(schedule((4, *on))) - 120 * (2.2 + 3 * 0.27)) <= 1
    assert abs(height(schedule((4, *on, *off))) - 120 * (2.2 + 3 * 0.27 + 0.17)) <= 1


def test_a_plot_of_a_million_epochs_is_drawn_as_one_of_few():
    """Dark for three quarters of the epochs, then white."""
    few = schedule((3, ("Rotate", 10, 9)), (1, ("Rotate", 0, 9)))
    many = schedule((750_000, ("Rotate", 10, 9)), (250_000, ("Rotate", 0, 9)))
    for each in (few, many):
        with Image.open(BytesIO(schedule_png(each))) as image:
            picture = np.asarray(image.convert("L"))
        heat = picture[int(0.15 * len(picture)) : int(0.40 * len(picture))]
        assert heat[:, 150:600].max() < 60 and heat[:, 750:830].min() == 255


def test_describe_policy_writes_what_is_asked_for(tmp_path):
    Image.new("L", (8, 8), 100).save(tmp_path / "a.png")
    seen = describe_policy(
        SMALL, plot=tmp_path / "plot.png", grid=tmp_path / "grid.png", images=tmp_path / "a.png", epochs=[3]
    )
    assert str(seen) == str(ScheduleTable(SMALL))
    assert (tmp_path / "plot.png").read_bytes() == schedule_png(SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "grid.png", "plot.png"]


REFUSED = {
    "no PNG": ({"plot": "x.pdf"}, r"PNG file, got '.*x\.pdf'; choose a name that ends in \.png"),
    "one file for both": (
        {"plot": "x.png", "grid": "x.png", "images": ["a.png"]},
        "plot and grid must be different files",
    ),
    "images for nothing": ({"images": ["a.png"]}, "--grid FILE.png"),
    "epochs for nothing": ({"epochs": [0]}, "--grid FILE.png"),
    "a grid of nothing": ({"grid": "x.png"}, "--images PATH"),
    "an epoch too late": (
        {"plot": "y.png", "grid": "x.png", "images": ["a.png"], "epochs": [4]},
        "must be 0 to 3 for this schedule, got 4",
    ),
    "a place that is none": ({"plot": "a.png/x.png"}, "cannot write .*choose another path"),
    "over its own images": ({"plot": "a.png", "grid": "x.png", "images": ["."]}, "a.png must not be one of the images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_writes_nothing(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8), 100).save("a.png")
    before = (tmp_path / "a.png").read_bytes()
    request, message = REFUSED[case]
    with pytest.raises(RequestError, match=message):
        describe_policy(SMALL, **request)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == before


def test_epochs_in_words():
    assert parse_epochs("0,10, 50") == [0, 10, 50]
    for text in ("", "1,,2", "1;2", "last", "1.5"):
        with pytest.raises(RequestError, match="for example 0,10,50"):
            parse_epochs(text)
