"""The lineage of a population in words and as a plot."""

import math
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from results.plots.lineage import lineage_png, plot_lineage
from results.plots.style import PAPER
from results.runlog.lineage import Exploit, Lineage, Slice
from spaces import Genome, RequestError

ORANGE = np.array([int(PAPER.control[place : place + 2], 16) for place in (1, 3, 5)])


def copy(epoch, target, donor):
    return Exploit(epoch, f"s-pbt-0{target}", f"s-pbt-0{donor}", 0.1, 0.9, Genome(), Genome())


def population(*copies, members=3, generations=3, winner=0, score=lambda member, generation: 0.5):
    """Members that are perturbed every two epochs."""
    names = [f"s-pbt-{index:02d}" for index in range(members)]
    slices = [
        Slice(name, 2 * generation, 2 * generation + 2, score(index, generation))
        for generation in range(generations)
        for index, name in enumerate(names)
    ]
    return Lineage.of("s-pbt", names, slices, copies, "" if winner is None else names[winner])


def drawn(each):
    """The picture, (height, width, 3)."""
    with Image.open(BytesIO(lineage_png(each))) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def orange(picture):
    """Where the winner's line is: rows and columns."""
    return np.nonzero(np.abs(picture - ORANGE).sum(axis=2) < 30)


# In words -------------------------------------------------------------------------------------------------------------


def test_the_winners_line_in_words():
    """What happened to a donor after it was copied is no part of it."""
    each = population(copy(2, 1, 0), copy(4, 2, 1), copy(4, 0, 1), winner=2)
    assert [(step.member, step.start, step.end) for step in each.path] == [
        ("s-pbt-00", 0, 2),
        ("s-pbt-01", 2, 4),
        ("s-pbt-02", 4, 6),
    ]
    assert each.winner == "s-pbt-02" and each.generations == 3
    assert str(each) == (
        "s-pbt: 3 members, 3 generations, 3 copies; the best, s-pbt-02, descends from "
        "-00 (epochs 0 to 1), -01 (epochs 2 to 3), and goes on from 4"
    )


def test_who_copied_nobody_and_who_did_not_win():
    assert (
        str(population(copy(2, 1, 0))) == "s-pbt: 3 members, 3 generations, 1 copy; the best, s-pbt-00, copied nobody"
    )
    assert str(population(winner=None, members=1)) == "s-pbt: 1 member, 3 generations, 0 copies"
    assert str(Lineage("s-pbt", (), (), ())) == "s-pbt: 0 members, 0 generations, 0 copies"


def test_a_long_line_is_told_in_short():
    copies = [copy(2 * epoch, epoch % 2, 1 - epoch % 2) for epoch in range(1, 20)]
    text = str(population(*copies, generations=20, winner=1))
    assert text.count("(epochs") == 6 and ", 13 more, " in text and text.endswith("and goes on from 38")


# As a picture ---------------------------------------------------------------------------------------------------------


def test_the_same_family_gives_the_same_bytes_and_another_one_does_not(tmp_path):
    first = plot_lineage(population(copy(2, 1, 0)), tmp_path / "new" / "1.png")
    assert first.read_bytes() == lineage_png(population(copy(2, 1, 0))) == lineage_png(population(copy(2, 1, 0)))
    others = [
        population(),
        population(copy(2, 0, 1)),
        population(copy(4, 1, 0)),
        population(copy(2, 1, 0), winner=1),
        population(copy(2, 1, 0), winner=None),
        population(copy(2, 1, 0), members=4),
        population(copy(2, 1, 0), score=lambda member, generation: member / 10),
    ]
    assert len({first.read_bytes(), *(lineage_png(each) for each in others)}) == 1 + len(others)


def test_the_winners_line_goes_through_its_ancestors():
    """From the upper row on the left to the lower one on the right."""
    rows, columns = orange(drawn(population(copy(4, 2, 0), winner=2)))
    left, right = rows[columns < np.quantile(columns, 0.1)], rows[columns > np.quantile(columns, 0.9)]
    stays, _ = orange(drawn(population(copy(4, 2, 0), winner=0)))
    assert left.mean() < right.mean() - 40 and np.ptp(stays) < 20
    assert len(orange(drawn(population(copy(4, 2, 0), winner=None)))[0]) == 0


def test_better_is_darker_and_what_was_not_scored_is_hatched():
    """Three members of one slice: the best above, the worst in the middle, below one without a score."""
    picture = drawn(population(generations=1, winner=None, score=lambda member, _: (0.9, 0.1, math.nan)[member]))
    column = picture[:, 500:600].mean(axis=2)  # between the titles
    ink = np.nonzero(column.min(axis=1) < 250)[0]
    ink = ink[ink < 0.6 * len(picture)]  # above the axis
    starts = [ink[0], *(row for before, row in pairwise(ink) if row > before + 3)]
    best, worst, none = (column[start + 5 : start + 20] for start in starts[:3])
    assert best.max() < 100 and worst.min() > 200
    assert np.ptp(best) == np.ptp(worst) == 0 and np.ptp(none) > 60


@pytest.mark.parametrize("members", [1, 4, 32, 200])
def test_it_grows_with_the_members_up_to_a_limit(members):
    copies = [copy(2 * epoch, 1, 0) for epoch in range(1, 60)] if members > 1 else []
    height, width, _ = drawn(population(*copies, members=members, generations=60)).shape
    rows = {1: 2 * 0.3, 4: 4 * 0.3, 32: 32 * 0.19, 200: 60 * 0.19}
    assert width == 960 and abs(height - 120 * (1.7 + rows[members])) <= 1


def test_a_family_without_anybody_has_a_picture():
    assert drawn(Lineage("s-pbt", (), (), ())).shape[1] == 960


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot write .*choose another path"):
        plot_lineage(population(), tmp_path / "file" / "x.png")
