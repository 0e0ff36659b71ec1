"""A ranking as a table, as Markdown, as data and as a plot."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from results.analysis.screening import ScreeningResult
from results.plots.screening import INFORMATIVE, UNINFORMATIVE, plot_screening
from spaces import RequestError
from spaces.augmentations import CATALOG, Mixup, Pick

NAN = math.nan


def row(label, ratio=0.9, *, informative=True, half=0.02, **changes):
    figures = {
        "label": label,
        "augment": {"kind": label.partition("(")[0]},
        "t_stddev": 0.04 * ratio,
        "low": 0.04 * (ratio - half),
        "high": 0.04 * (ratio + half),
        "ratio": ratio,
        "ratio_low": ratio - half,
        "ratio_high": ratio + half,
        "agreement": 0.75,
        "entropy": 1.5,
        "informative": informative,
        "seconds": 12.34,
    }
    return {**figures, **changes}


def unknown(label):
    """As it is where the teacher answers everything alike."""
    nothing = dict.fromkeys(("ratio", "ratio_low", "ratio_high"), NAN)
    return row(label, t_stddev=0.0, low=0.0, high=0.0, **nothing)


def result(*rows, dropped=(), stopped_early=False):
    return ScreeningResult("runs/x-001", "sqlite:///x", 12.5, 320, 40, stopped_early, rows, dropped)


THREE = (row("cutmix", 0.81), row("identity", 1.0, half=0.0), row("cutout(side=0.9)", 0.6, informative=False))


def printed(shown, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as said:
        console.print(shown.table())
    return said.get().splitlines()


def catalog():
    """All names of the default catalog; `pick` goes over mixup there."""
    return [(Pick(base=Mixup()) if kind == Pick.kind else cls()).label for kind, cls in CATALOG.items()]


# ---- as data ---------------------------------------------------------------------------------------


def test_json_holds_every_figure_and_nothing_that_is_no_json():
    shown = result(unknown("identity"), row("flip", ratio_high=math.inf), dropped=("flip",))
    data = json.loads(json.dumps(shown.to_json(), allow_nan=False))
    identity, flip = data["rows"]
    assert identity == {**unknown("identity"), "ratio": None, "ratio_low": None, "ratio_high": None}
    assert flip == {**row("flip"), "ratio_high": None}
    del data["rows"]
    assert data == {
        "folder": "runs/x-001",
        "tracking_uri": "sqlite:///x",
        "seconds": 12.5,
        "images": 320,
        "means": 40,
        "stopped_early": False,
        "dropped": ["flip"],
    }


def test_a_result_survives_being_written_down():
    shown = result(*THREE, dropped=("identity",))
    assert ScreeningResult.from_json(json.loads(json.dumps(shown.to_json()))) == shown
    (identity,) = ScreeningResult.from_json(result(unknown("identity")).to_json()).rows
    assert math.isnan(identity["ratio"]) and identity["t_stddev"] == 0
    for other in ([], {}, {"rows": [], "dropped": []}):
        with pytest.raises(RequestError, match="the result of a screening must hold its rows"):
            ScreeningResult.from_json(other)


# ---- as text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("informative", [True, False])
def test_the_default_catalog_fits_80_columns(informative):
    rows = [row(label, 1.234, informative=informative, seconds=123.4) for label in catalog()]
    lines = printed(result(*rows))
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    assert len(lines) == 3 + len(rows), "each on one line"
    for label, line in zip(catalog(), lines[3:], strict=True):
        assert line.startswith(f"{label} " if informative else f"{label} (?) ")
        assert [cell.strip() for cell in line.split("│")][1:] == [
            "49.36 ± 0.80",
            "1.234 ± 0.020",
            "0.75",
            "1.50",
            "123.4",
        ]


def test_a_long_name_takes_nothing_from_the_figures():
    name = "pick(draw=batch, base=mypackage.augmentations:factory, passes=3)"
    lines = printed(result(row(name), dropped=(name,)))
    assert max(map(len, lines)) <= 80 and "36.00 ± 0.80" in lines[3] and "0.900 ± 0.020" in lines[3]
    words = "".join(line.partition("│")[0].strip() for line in lines[3:])
    assert words.replace(" ", "") == f"{name}(dropped)".replace(" ", "")


def test_names_are_no_markup():
    name = "mine:blur(mode=[bold]x[/red])"
    assert name in "\n".join(printed(result(row(name)), width=120))


def test_what_is_not_known_is_printed_as_such():
    lines = printed(result(unknown("identity")))
    assert lines[3].split()[2:] == ["0.00", "±", "0.00", "│", "nan", "±", "nan", "│", "0.75", "│", "1.50", "│", "12.3"]


def test_notes_say_how_far_to_trust_it():
    first, second, *others = result(*THREE).notes()
    assert first.startswith("Lower is better;")
    assert second == ("40 means of 640 outputs (320 images, drawn with replacement): the requested number.")
    assert others == ["Not ranked, because the teacher no longer recognizes the images: cutout(side=0.9)."]
    notes = result(*THREE[:2], stopped_early=True, dropped=("identity",)).notes()
    assert notes[1].endswith(": every interval was narrow enough.")
    assert notes[2:] == ["Dropped before the search of the student: identity."]


def test_where_nothing_is_informative_the_teacher_is_to_blame():
    others = result(*(row(name, informative=False) for name in ("cutmix", "identity"))).notes()[2:]
    assert others == ["No augmentation is ranked: the teacher is hardly better than chance on these images."]


def test_markdown():
    shown = result(*THREE, dropped=("identity", "cutout(side=0.9)"))
    lines = shown.markdown().splitlines()
    assert lines[:6] == [
        "| augmentation | T. stddev ×1e-3 | ratio to identity | agreement |",
        "| --- | ---: | ---: | ---: |",
        "| cutmix | 32.40 | 0.810 (0.790 … 0.830) | 0.75 |",
        "| identity (dropped) | 40.00 | 1.000 (1.000 … 1.000) | 0.75 |",
        "| cutout(side=0.9) (?, dropped) | 24.00 | 0.600 (0.580 … 0.620) | 0.75 |",
        "",
    ]
    assert lines[6:] == [f"- {note}" for note in shown.notes()]


# ---- as a picture ----------------------------------------------------------------------------------


def pixels(path):
    """(height, width, 3), 0 … 255."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def where(picture, color):
    """The rows and the columns of the pixels that have just this color."""
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return (picture == wanted).all(axis=2).nonzero()


def area(picture, color):
    """How many pixels have just this color."""
    return len(where(picture, color)[0])


@pytest.mark.parametrize("count", [1, 3, 12])
def test_the_picture_grows_with_the_rows(tmp_path, count):
    """7.5 inches wide at 120 dots an inch; 1.3 inches for the rest, and 0.34 for each row."""
    path = tmp_path / "new" / "screening.png"
    assert plot_screening(result(*(row(f"name {number}") for number in range(count))), path) == path
    height, width, _ = pixels(path).shape
    assert width == 900 and abs(height - 120 * (1.3 + 0.34 * count)) <= 1


def test_what_is_not_informative_is_gray(tmp_path):
    sizes = {}
    for informative in (True, False):
        picture = pixels(plot_screening(result(row("x", informative=informative)), tmp_path / "x.png"))
        sizes[informative] = area(picture, INFORMATIVE), area(picture, UNINFORMATIVE)
    (blue, none), (nothing, gray) = sizes[True], sizes[False]
    assert blue > 5000 and gray > 5000 and none < 100 and nothing < 100


def test_the_best_is_at_the_top_and_a_longer_bar_is_a_higher_ratio(tmp_path):
    picture = pixels(plot_screening(result(row("low", 0.5), row("high", 1.5, informative=False)), tmp_path / "x.png"))
    low, high = where(picture, INFORMATIVE)[0], where(picture, UNINFORMATIVE)[0]  # of text a little is gray too
    assert low.max() < high.mean() and len(high) > 5 * len(low) > 5000


def test_it_is_drawn_where_nothing_is_known(tmp_path):
    rows = [unknown("identity"), unknown("cutmix")]
    nothing = pixels(plot_screening(result(*rows), tmp_path / "nothing.png"))
    assert area(nothing, INFORMATIVE) == 0
    some = pixels(plot_screening(result(row("known", ratio_high=math.inf), *rows), tmp_path / "some.png"))
    assert area(some, INFORMATIVE) > 1000


def test_the_same_ranking_gives_the_same_file(tmp_path):
    one, other = (plot_screening(result(*THREE), tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert one == other
