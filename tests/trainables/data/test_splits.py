"""Stratified splits: disjoint, balanced, determined by the seed."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.core.errors import RequestError
from trainables.data import stratified_split
from trainables.data.splits import stratified_subset

counts_of_classes = st.lists(st.integers(2, 60), min_size=2, max_size=8)


def labels_of(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return torch.from_numpy(np.random.default_rng(0).permutation(labels))


def sizes(data, counts):
    """A request that can be met: both counts, or one of them, or none."""
    classes, total = len(counts), sum(counts)
    train = data.draw(st.none() | st.integers(classes, total - classes))
    most = total - (train or classes)
    validation = data.draw(st.none() | st.integers(classes, most))
    return train, validation


@settings(max_examples=200, deadline=None)
@given(counts_of_classes, st.data(), st.integers(0, 2**40))
def test_split(counts, data, seed):
    labels, classes, total = labels_of(counts), len(counts), sum(counts)
    train, validation = sizes(data, counts)
    kept, held = stratified_split(labels, classes=classes, train=train, validation=validation, seed=seed)
    assert not set(kept.tolist()) & set(held.tolist())
    assert kept.tolist() == sorted(set(kept.tolist())) and held.tolist() == sorted(set(held.tolist()))
    default = total - train if train else max(classes, round(0.1 * total))
    expected = validation or default
    assert (len(kept), len(held)) == (train or total - expected, expected)
    own = [labels[rows].bincount(minlength=classes) for rows in (kept, held)]
    assert own[0].min() >= 1
    if train and validation and min(counts) >= -(-train // classes) + -(-validation // classes) < total:
        assert train + validation == total or all(part.max() - part.min() <= 1 for part in own)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(6, 40), st.data())
def test_equal_classes_give_equal_shares(classes, count, data):
    labels = labels_of([count] * classes)
    train, validation = sizes(data, [count] * classes)
    for rows in stratified_split(labels, classes=classes, train=train, validation=validation, seed=5):
        part = labels[rows].bincount(minlength=classes)
        assert part.max() - part.min() <= 1


def test_default_holds_out_a_tenth():
    kept, held = stratified_split(labels_of([50] * 4), classes=4)
    assert (len(kept), len(held)) == (180, 20)


def test_unequal_classes_are_balanced_while_there_is_enough():
    labels = labels_of([100, 60, 40])
    kept, held = stratified_split(labels, classes=3, train=60)
    assert labels[kept].bincount().tolist() == [20, 20, 20] and len(held) == 140
    kept, held = stratified_split(labels, classes=3, validation=30)
    assert labels[held].bincount().tolist() == [10, 10, 10]
    kept, held = stratified_split(labels, classes=3, train=60, validation=30)
    assert [labels[rows].bincount().tolist() for rows in (kept, held)] == [[20] * 3, [10] * 3]


def test_otherwise_they_are_shared_in_proportion():
    labels = labels_of([1000, 1000, 12])
    kept, held = stratified_split(labels, classes=3, validation=201)
    assert labels[held].bincount().tolist() == [100, 100, 1]
    kept, held = stratified_split(labels, classes=3, train=1006)
    assert labels[kept].bincount(minlength=3).tolist() == [500, 500, 6]
    labels = labels_of([1000, 1000, 1])
    kept, held = stratified_split(labels, classes=3, train=100, validation=100)
    assert labels[kept].bincount().tolist() == [50, 49, 1] and labels[held].bincount(minlength=3)[2] == 0


def test_smaller_lies_in_larger_and_neither_part_moves_the_other():
    labels = labels_of([100] * 5)
    few, held = stratified_split(labels, classes=5, train=103, validation=52, seed=3)
    more, same = stratified_split(labels, classes=5, train=207, validation=52, seed=3)
    most, _ = stratified_split(labels, classes=5, validation=52, seed=3)
    assert set(few.tolist()) < set(more.tolist()) < set(most.tolist())
    assert torch.equal(held, same)


def test_seeds():
    labels = labels_of([50] * 4)
    np.random.seed(1)
    torch.manual_seed(1)
    one, _ = stratified_split(labels, classes=4, train=40, seed=1)
    before = np.random.get_state()[2], torch.get_rng_state()
    again, _ = stratified_split(labels, classes=4, train=40, seed=1)
    other, _ = stratified_split(labels, classes=4, train=40, seed=2)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert np.random.get_state()[2] == before[0] and torch.equal(torch.get_rng_state(), before[1])


def test_the_choice_is_the_same_in_every_version():
    labels = torch.arange(1000) % 10
    rows = torch.cat(stratified_split(labels, classes=10, train=400, validation=100, seed=11))
    digest = hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()[:16]
    assert digest == "8119b3feceeccbd0"


def test_chosen():
    labels = labels_of([30, 20, 5])
    assert stratified_subset(labels, classes=3, size=None, seed=0, part="train").tolist() == list(range(55))
    assert labels[stratified_subset(labels, classes=3, size=13, seed=0, part="train")].bincount().max() == 5
    rows = stratified_subset(labels, classes=3, size=33, seed=0, part="train")
    assert labels[rows].bincount().tolist() == [18, 12, 3]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([5, 5], {"train": 6, "validation": 5}, "have at most 10 images, each at least 2"),
        ([5, 5], {"train": 10}, "at most 10 images"),
        ([1, 1], {}, "at most 2 images"),
        ([5, 0, 5], {}, "each of the 3 classes must have training images; class 1 has none"),
        ([5, 5, 5], {"train": 2}, "data.train must be at least 3"),
        ([5, 5], {"seed": -1}, "seed"),
    ],
)
def test_refused(counts, options, message):
    with pytest.raises(RequestError, match=message):
        stratified_split(labels_of(counts), classes=len(counts), **options)


def test_labels_out_of_range():
    with pytest.raises(RequestError, match=r"labels of 2 classes must be in 0 … 1, got '0 … 2'"):
        stratified_split(torch.tensor([0, 1, 2]), classes=2)
