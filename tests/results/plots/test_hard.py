"""The plots of HARD's game."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from results.plots.contact_sheet import FRAME
from results.plots.hard import COLORS, MOST_PANELS, parameters_figure, phases_figure, plot_game, views_sheet
from spaces import RequestError

NAMES = ("hard.grid.png", "hard.parameters.png", "hard.phases.png")


def said(*labels, probability=0.72):
    return {"label": list(labels), "probability": [probability] * len(labels)}


def grid(epoch=0, teacher=(3, 1, 4), student=(3, 1, 4), channels=1, side=8):
    images = torch.arange(len(teacher) * channels * side * side).reshape(-1, channels, side, side) % 256
    return {
        "epoch": epoch,
        "images": images.to(torch.uint8),
        "views": 255 - images.to(torch.uint8),
        "teacher_before": said(*teacher, probability=0.984),
        "teacher": said(*teacher),
        "student": said(*student, probability=0.4),
        "disagreement": [0.01234] * len(teacher),
    }


def epoch(number, middles, augmentor_steps=20):
    return {
        "epoch": number,
        "student_steps": 100,
        "augmentor_steps": augmentor_steps,
        "phases": 1,
        "disagreement": 0.5,
        "quantiles": [[middle - 0.2, middle - 0.1, middle, middle + 0.1, middle + 0.2] for middle in middles],
    }


def phase(who, student_steps, augmentor_steps, disagreement):
    return {
        "phase": who,
        "student_steps": student_steps,
        "augmentor_steps": augmentor_steps,
        "disagreement": disagreement,
    }


PHASES = (
    phase("student", 50, 0, 2.0),
    phase("augmentor", 50, 7, 5.5),
    phase("student", 90, 7, 1.5),
    phase("augmentor", 90, 40, 6.0),
    phase("student", 150, 40, 1.75),
)


def game(**changes):
    content = {
        "augment": {"kind": "hard_affine", "low": 1.0, "high": 2.5},
        "names": ["stretch x", "shift x"],
        "phases": list(PHASES),
        "epochs": [epoch(0, (0.0, 0.1)), epoch(1, (0.0, 0.3))],
        "grids": [grid(), grid(1, student=(3, 2, 4))],
        "scale": 2.0,
    }
    return content | changes


NOTHING = game(phases=[], epochs=[], grids=[], scale=math.nan)


def size(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def words(sheet):
    """Every text of a sheet."""
    return [text.text for text in sheet.texts()]


def lines(axes):
    """What is drawn, by its label."""
    return {line.get_label(): np.array(line.get_xydata()) for line in axes.lines}


# ---- files -----------------------------------------------------------------------------------------


def test_a_game_has_three_pictures(tmp_path):
    paths = plot_game(game(), tmp_path / "new")
    assert paths == tuple(tmp_path / "new" / name for name in NAMES)
    assert all(400 <= width <= 2000 and 200 <= height <= 2600 for width, height in map(size, paths))


def test_the_same_game_gives_the_same_bytes_and_another_one_does_not(tmp_path):
    first, again = (plot_game(game(), tmp_path / name) for name in ("1", "2"))
    other = game(grids=[grid(2)], phases=list(PHASES[:3]), epochs=[epoch(0, (0.5, 0.5))])
    for one, same, different in zip(first, again, plot_game(other, tmp_path / "3"), strict=True):
        assert one.read_bytes() == same.read_bytes() != different.read_bytes()


def test_without_images_there_is_no_grid(tmp_path):
    assert [path.name for path in plot_game(game(grids=[]), tmp_path)] == list(NAMES[1:])
    assert not (tmp_path / NAMES[0]).exists()


@pytest.mark.parametrize(
    "early",
    [
        NOTHING,
        game(phases=[], epochs=[epoch(0, (0.0, 0.0), 0)], grids=[grid()], scale=math.nan),
        game(phases=list(PHASES[:1]), epochs=[epoch(0, (0.0, 0.0), 0)]),
        game(phases=[phase("student", 50, 0, 0.0)], scale=0.01),
    ],
    ids=["nothing", "an epoch", "a phase", "no disagreement"],
)
def test_a_game_that_has_hardly_begun_has_its_pictures(tmp_path, early):
    assert all(min(size(path)) > 200 for path in plot_game(early, tmp_path))


def test_nothing_is_said_to_be_nothing():
    assert "none has ended yet" in parameters_figure(NOTHING).get_supxlabel()
    line, turns = phases_figure(NOTHING).axes
    assert line.get_title("left") == "no phase has ended yet"
    assert not line.texts and not turns.texts


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot write .*choose another path"):
        plot_game(game(grids=[]), tmp_path / "file")


# ---- images ----------------------------------------------------------------------------------------


def cells(sheet):
    """Of the images, row by row."""
    return [[cell for cell in row] for band in sheet._bands for row in band.rows]


def test_images_are_above_their_views_with_the_predictions():
    sheet = views_sheet(game(grids=[grid(7, student=(3, 2, 4))]))
    assert [cell.caption for row in cells(sheet) for cell in row] == [
        *(("teacher 3, 98 %",), ("teacher 1, 98 %",), ("teacher 4, 98 %",)),
        ("teacher 3, 72 %", "student 3, 40 %", "disagreement 0.012"),
        ("teacher 1, 72 %", "student 2, 40 % ≠", "disagreement 0.012"),
        ("teacher 4, 72 %", "student 4, 40 %", "disagreement 0.012"),
    ]
    expected = ["Views of hard_affine", "epoch 7", "student and teacher differ on 1 of 3 views"]
    assert words(sheet)[:3] == expected


def test_a_view_is_marked_exactly_where_the_labels_differ():
    sheet = views_sheet(game(grids=[grid(), grid(1, student=(0, 1, 0))]))
    assert [[cell.marked for cell in row] for row in cells(sheet)] == [
        *([False] * 3, [False] * 3),
        *([False] * 3, [True, False, True]),
    ]
    picture = np.asarray(sheet.draw())
    vermilion = np.array([213, 94, 0])
    for row, marks in enumerate(([False] * 3, [True, False, True])):
        for column, marked in enumerate(marks):
            left, top = sheet.corner(1, row, column)
            frame = picture[top - FRAME : top, left : left + 100].reshape(-1, 3)
            assert (frame == vermilion).all() == (frame == vermilion).any() == marked
            assert ("≠" in " ".join(cells(sheet)[2 + row][column].caption)) == marked
    bold = {text.text: "Bold" in text.font.getname()[1] for text in sheet.texts()}
    assert bold["student 0, 40 % ≠"] and not bold["student 1, 40 %"]


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_keep_their_pixels(channels):
    kept = grid(channels=channels)
    sheet = views_sheet(game(grids=[kept]))
    picture = np.asarray(sheet.draw())
    for row, images in enumerate((kept["images"], kept["views"])):
        for column, image in enumerate(images):
            left, top = sheet.corner(0, row, column)
            shown = picture[top : top + sheet.side, left : left + sheet.side]
            pixels = np.broadcast_to(image.permute(1, 2, 0).numpy(), (8, 8, 3))
            np.testing.assert_array_equal(shown, pixels.repeat(16, 0).repeat(16, 1))


def test_large_images_are_smoothed():
    """Stripes of one pixel become gray."""
    kept = grid(side=1024)
    kept["images"][:] = 255 * (torch.arange(1024) % 2)
    picture = np.asarray(cells(views_sheet(game(grids=[kept])))[0][0].picture)
    assert picture.shape == (256, 256) and 100 < picture[:, 10:-10].min() <= picture[:, 10:-10].max() < 155


def test_of_many_epochs_five_are_shown_with_the_first_and_the_last():
    sheet = views_sheet(game(grids=[grid(epoch) for epoch in range(0, 90, 10)]))
    assert sum(map(len, cells(sheet))) == 5 * 2 * 3
    assert [number for number in range(0, 90, 10) if f"epoch {number}" in words(sheet)] == [0, 20, 40, 60, 80]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_no_words_overlap_or_leave_the_sheet(count):
    sheet = views_sheet(game(grids=[grid(epoch, [971] * count, [112] * count) for epoch in (0, 100)]))
    boxes = [
        (text.left, text.top, *(text.left + text.font.getlength(text.text), text.top + text.font.size))
        for text in sheet.texts()
    ]
    for band in range(2):
        for row in range(2):
            corners = [sheet.corner(band, row, column) for column in range(count)]
            boxes += [(left, top, left + sheet.side, top + sheet.side) for left, top in corners]
    assert all(
        left >= 0 and top >= 0 and right <= sheet.width and low <= sheet.height for left, top, right, low in boxes
    )
    pairs = [(one, other) for place, one in enumerate(boxes) for other in boxes[:place]]
    assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in pairs)


# ---- parameters ------------------------------------------------------------------------------------


def test_every_parameter_has_a_panel_with_its_median():
    first, second = parameters_figure(game()).axes
    assert [axes.get_title("left") for axes in (first, second)] == ["stretch x", "shift x"]
    median = second.lines[0].get_ydata()
    assert sorted(set(median)) == [0.1, 0.3]
    assert all(axes.get_ylim()[0] <= -1 and axes.get_ylim()[1] >= 1 for axes in (first, second))


def test_the_bands_are_what_they_are_said_to_be():
    (axes, *_) = parameters_figure(game(epochs=[epoch(4, (0.5, 0))])).axes
    outer, inner = (band.get_datalim(axes.transData) for band in axes.collections)
    assert (outer.x0, outer.x1) == (inner.x0, inner.x1) == (4, 5)  # one epoch alone is seen
    assert (outer.y0, outer.y1) == pytest.approx((0.3, 0.7))
    assert (inner.y0, inner.y1) == pytest.approx((0.4, 0.6))


def test_epochs_without_a_game_are_left_out():
    figure = parameters_figure(game(epochs=[epoch(0, (0, 0)), epoch(1, (0, 0)), epoch(5, (0, 0))]))
    x, y = figure.axes[0].lines[0].get_data()
    assert x[np.isnan(y)].tolist() == [2]


@pytest.mark.parametrize("count", [1, 5, 6, 16])
def test_up_to_sixteen_parameters_are_all_shown(count):
    names = [f"number {place}" for place in range(count)]
    figure = parameters_figure(game(names=names, epochs=[epoch(0, [0] * count)]))
    assert [axes.get_title("left") for axes in figure.axes if axes.axison] == names
    assert figure.get_suptitle() == "Parameters of hard_affine"


def test_of_more_those_are_shown_that_moved_most():
    names = [f"number {place}" for place in range(20)]
    moved = [0.9 if place % 5 else 0.1 for place in range(20)]
    figure = parameters_figure(game(names=names, epochs=[epoch(0, [0] * 20), epoch(1, moved), epoch(2, [0] * 20)]))
    shown = [axes.get_title("left") for axes in figure.axes]
    assert shown == [name for place, name in enumerate(names) if place % 5] and len(shown) == MOST_PANELS
    assert "16 of 20, those whose medians changed most" in figure.get_suptitle()


# ---- phases ----------------------------------------------------------------------------------------


def test_the_disagreement_is_drawn_at_the_ends_of_the_phases():
    line, _ = phases_figure(game()).axes
    drawn = lines(line)
    ends = [[phase["student_steps"], phase["disagreement"]] for phase in PHASES]
    assert line.lines[0].get_xydata().tolist() == ends
    assert drawn["end of a phase of the student"].tolist() == ends[::2]
    assert drawn["end of a phase of the augmentor"].tolist() == ends[1::2]
    assert {line.lines[1].get_marker(), line.lines[2].get_marker()} == {"o", "^"}
    assert [line.lines[1].get_color(), line.lines[2].get_color()] == [COLORS["student"], COLORS["augmentor"]]


def test_the_thresholds_are_dashed_and_named():
    line, _ = phases_figure(game()).axes
    dashed = [each.get_ydata()[0] for each in line.lines if each.get_linestyle() == "--"]
    assert dashed == [2.0, 5.0]
    assert [text.get_text().strip() for text in line.texts] == ["low · ℓ = 2", "high · ℓ = 5"]
    low, high = line.get_ylim()
    assert low <= 2 and high >= 5


def test_the_augmentors_turns_bear_their_numbers_of_steps():
    _, turns = phases_figure(game()).axes
    assert [(text.xy, text.get_text()) for text in turns.texts] == [((50, 7), "7"), ((90, 33), "33")]
    bars = [path.vertices.tolist() for path in turns.collections[0].get_paths()]
    assert bars == [[[50, 0], [50, 7]], [[90, 0], [90, 33]]]


def test_the_title_has_the_totals():
    figure = phases_figure(game(epochs=[epoch(number, (0, 0), 150) for number in range(20)]))
    assert figure.get_suptitle() == "hard_affine: 2,000 student steps, 3,000 augmentor steps"
    assert figure.axes[0].get_title("left") == "5 phases ended"
    assert figure.axes[0].get_xlim()[1] >= 2000  # the phase that has not ended is under way


@pytest.mark.parametrize(("last", "scale"), [(1.9, "linear"), (0.02, "log"), (0.0, "linear")])
def test_what_is_far_apart_is_drawn_on_a_logarithmic_scale(last, scale):
    line, _ = phases_figure(game(phases=[*PHASES, phase("student", 200, 40, last)])).axes
    assert line.get_yscale() == scale


def test_thousands_of_phases_have_no_numbers(tmp_path):
    many = [
        phase(("student", "augmentor")[n % 2], 50 * (n // 2 + 1), 9 * ((n + 1) // 2), 1 + n % 2) for n in range(2000)
    ]
    _, turns = phases_figure(game(phases=many)).axes
    assert not turns.texts and len(turns.collections[0].get_paths()) == 1000
