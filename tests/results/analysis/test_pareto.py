"""The Pareto front by hand and by its definition, its table, its lines and its plot."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from results.analysis.pareto import Candidate, describe_front, pareto_front, pareto_markdown
from results.plots.pareto import plot_pareto

points = st.tuples(st.integers(0, 6), st.integers(1, 6))
"""Few of each, so that many are equal in one or in both."""


def candidates(*places, **choices):
    """From (accuracy, size) pairs; named a, b, c, …"""
    return [Candidate(chr(97 + i), accuracy, size, choices) for i, (accuracy, size) in enumerate(places)]


def names(found):
    return "".join(candidate.name for candidate in found)


def dominates(one, other):
    at_least = one.accuracy >= other.accuracy and one.size_in_bits <= other.size_in_bits
    return at_least and (one.accuracy, one.size_in_bits) != (other.accuracy, other.size_in_bits)


# ---- the front -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], ""),
        ([(0.5, 10)], "a"),
        ([(0.9, 30), (0.8, 20), (0.7, 10)], "cba"),
        ([(0.7, 30), (0.8, 20), (0.9, 10)], "c"),
        ([(0.9, 20), (0.8, 20), (0.9, 30)], "a"),  # as accurate but larger, and as large but less accurate
        ([(0.5, 10), (0.8, 20), (0.5, 10), (0.8, 20), (0.7, 20)], "acbd"),  # equal points both stay, in their order
        ([(0.8, 20), (0.5, 30), (0.9, 30), (0.85, 40)], "ac"),
    ],
)
def test_fronts_by_hand(places, expected):
    assert names(pareto_front(candidates(*places))) == expected


@given(st.lists(points, max_size=26))
@settings(deadline=None, max_examples=300)
def test_a_front_is_what_no_other_dominates_the_smallest_first(places):
    all_ = candidates(*places)
    best = pareto_front(all_)
    assert set(names(best)) == {each.name for each in all_ if not any(dominates(other, each) for other in all_)}
    assert len(best) == len(set(names(best)))
    assert [each.size_in_bits for each in best] == sorted(each.size_in_bits for each in best)
    assert [each.accuracy for each in best] == sorted(each.accuracy for each in best)
    for each in set(all_names := names(all_)) - set(names(best)):
        beaten = all_[all_names.index(each)]
        assert any(dominates(one, beaten) for one in best), "what is left out is beaten by the front itself"


@given(st.lists(points, min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_the_order_of_the_members_does_not_matter(places, order):
    all_ = candidates(*places)
    shuffled = order.sample(all_, len(all_))
    assert set(pareto_front(shuffled)) == set(pareto_front(all_))


# ---- what is shown ---------------------------------------------------------------------------------


def searched():
    rows = [
        ("student-tpe-00", 0.90, 80_000, 2, 4),
        ("student-tpe-01", 0.95, 800_000, 32, 4),
        ("student-tpe-02", 0.85, 80_000, 2, 4),
        ("student-tpe-03", 0.93, 160_000, 4, 4),
        ("student-tpe-04", 0.90, 80_000, 2, 32),
    ]
    return [
        Candidate(
            name, accuracy, size, {"augment": "identity", "bits.weights": weights, "bits.activations": activations}
        )
        for name, accuracy, size, weights, activations in rows
    ]


def test_the_table_holds_the_front_and_what_differs_among_all():
    text = pareto_markdown(searched()).splitlines()
    assert text[:6] == [
        "| size, kB | validation, % | bits.weights | bits.activations | member |",
        "| ---: | ---: | --- | --- | --- |",
        "| 10.0 | 90.00 | 2 | 4 | student-tpe-00 |",
        "| 10.0 | 90.00 | 2 | 32 | student-tpe-04 |",
        "| 20.0 | 93.00 | 4 | 4 | student-tpe-03 |",
        "| 100.0 | 95.00 | 32 | 4 | student-tpe-01 |",
    ]
    assert text[7].startswith("The members of 5 that no other beats in both size and accuracy.")


def test_each_point_of_the_front_has_one_line():
    assert describe_front(pareto_front(searched())) == [
        "10.0 kB, validation accuracy 90.00 %: weights 2, activations 4/32 (student-tpe-00 and 1 equal)",
        "20.0 kB, validation accuracy 93.00 %: weights 4, activations 4 (student-tpe-03)",
        "100.0 kB, validation accuracy 95.00 %: weights 32, activations 4 (student-tpe-01)",
    ]
    assert (
        describe_front(candidates((0.5, 8000))) == ["1.0 kB, validation accuracy 50.00 %: a (a)"]
        and describe_front([]) == []
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_same_members_give_the_same_plot(tmp_path, count):
    first, again = (plot_pareto(searched()[:count], tmp_path / f"{name}.png").read_bytes() for name in "ab")
    assert first == again
    with Image.open(tmp_path / "a.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}
    assert (0, 114, 178) in colors, "the front"
    assert ((175, 184, 193) in colors) == (count == 5), "the dominated members, where there are any"
