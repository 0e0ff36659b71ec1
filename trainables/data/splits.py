"""Which images are searched on and which are held out: a stratified choice by labels and seed alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.core.errors import RequestError

Counts = NDArray[np.int64]

HELD_OUT = 0.1
"""The share of the training set that is held out where nothing is asked for."""


def stratified(
    labels: Tensor, *, classes: int, train: int | None = None, validation: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Choose `train` and `validation` images out of N, disjoint, each balanced over the classes.

    Each part has the same number of images of every class, up to one, where every class has enough of them.
    It has enough when both parts fit; and where one part is all the rest, when no class is left less than
    half of its proportional share of that rest. Otherwise the images are shared out in proportion to the
    sizes of the classes, with at least one training image of each.

    The images of a class stand in an order that the seed fixes; training takes them from the front,
    validation from the back. So while both are balanced, neither choice depends on how large the other is,
    and a smaller set lies within a larger one of the same seed.

    Args:
        labels: (N,) int64 in 0 … classes − 1.
        classes: K, at least 2.
        train: images to train on, at least K; None for all that are not held out.
        validation: images to hold out, at least K; None for all the rest if `train` is given, else a tenth.
        seed: at least 0. The raw stream of NumPy's PCG64 is used, which no version of NumPy changes.

    Returns:
        The indices (train,) and (validation,) int64, each ascending.

    Raises:
        RequestError: a count below K, more images than there are, a class without images, a negative seed.
    """
    counts = _counts(labels, classes)
    sizes = _sizes(int(counts.sum()), classes, train, validation)
    images, order = _orders(len(labels), classes, seed)
    shares = _shares(counts, sizes, order, held_out_first=train is None)
    return _take(labels, images, shares[0]), _take(labels, images[::-1], shares[1])


def chosen(labels: Tensor, *, classes: int, size: int | None, seed: int, part: str) -> Tensor:
    """Choose `size` images out of N by the rules of `stratified`, with nothing to hold out; None takes all.

    Args:
        labels: (N,) int64 in 0 … classes − 1.
        classes: K, at least 2.
        size: at least K, at most N.
        seed: at least 0.
        part: whose images they are, for the message.

    Returns:
        Indices (size,) int64, ascending.

    Raises:
        RequestError: as `stratified`.
    """
    counts = _counts(labels, classes)
    _check_size(part, size, classes)
    images, order = _orders(len(labels), classes, seed)
    if size is None:
        return torch.arange(len(labels))
    if size > len(labels):
        raise RequestError(f"data.{part} is at most {len(labels)}, the images there are", value=size)
    shares = _equal(size, order)
    return _take(labels, images, shares if (shares <= counts).all() else _proportional(size, counts))


def _orders(images: int, classes: int, seed: int) -> tuple[Counts, Counts]:
    """The order of the images and the order of the classes that `seed` fixes."""
    if seed < 0:
        raise RequestError("the seed of a split is at least 0", value=seed)
    keys = np.random.PCG64(seed).random_raw(images + classes)
    return np.argsort(keys[:images], kind="stable"), np.argsort(keys[images:], kind="stable")


def _counts(labels: Tensor, classes: int) -> Counts:
    """How many images each class has, (K,)."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        got = f"{int(labels.min())} … {int(labels.max())}"
        raise RequestError(f"labels of {classes} classes lie in 0 … {classes - 1}", value=got)
    counts = np.bincount(labels.numpy(), minlength=classes)
    if (counts == 0).any():
        raise RequestError(f"each of the {classes} classes has training images; class {counts.argmin()} has none")
    return counts.astype(np.int64)


def _sizes(count: int, classes: int, train: int | None, validation: int | None) -> tuple[int, int]:
    """How many images each part has, the defaults filled in."""
    _check_size("train", train, classes)
    _check_size("validation", validation, classes)
    if train is None:
        held_out = max(classes, round(HELD_OUT * count)) if validation is None else validation
        kept = count - held_out
    else:
        kept, held_out = train, count - train if validation is None else validation
    if kept + held_out > count or min(kept, held_out) < classes:
        rule = f"training and validation images come out of {count}, at least {classes} for each"
        got = f"data.train = {train}, data.validation = {validation}"
        raise RequestError(rule, value=got, hint="ask for fewer images")
    return kept, held_out


def _check_size(part: str, size: int | None, classes: int) -> None:
    if size is None:
        return
    if not isinstance(size, int) or size < 1:
        raise RequestError(f"data.{part} is a whole number of images, at least 1", value=size)
    if size < classes:
        rule = f"data.{part} is at least {classes}, the number of classes"
        raise RequestError(rule, value=size, hint="ask for more images")


def _shares(counts: Counts, sizes: tuple[int, int], order: Counts, *, held_out_first: bool) -> tuple[Counts, Counts]:
    """How many images of each class go to training and to validation, (K,) each."""
    total, wanted = int(counts.sum()), sum(sizes)
    train, validation = _equal(sizes[0], order), _equal(sizes[1], order[::-1])
    if wanted < total:
        enough = (train + validation <= counts).all()
    elif held_out_first:
        train = counts - validation
        enough = (2 * train * total >= counts * sizes[0]).all()
    else:
        validation = counts - train
        enough = (2 * validation * total >= counts * sizes[1]).all()
    if enough:
        return train, validation
    used = _proportional(wanted, counts)
    train = _proportional(sizes[0], used)
    return train, used - train


def _equal(size: int, order: Counts) -> Counts:
    """`size` shared out equally; what is left over goes to the classes that come first in `order`."""
    shares = np.full(len(order), size // len(order), dtype=np.int64)
    shares[order[: size % len(order)]] += 1
    return shares


def _proportional(size: int, counts: Counts) -> Counts:
    """`size` shared out as `counts` are, by largest remainders, after one for each; never above `counts`."""
    spare, left = counts - 1, size - len(counts)
    whole, remainder = np.divmod(left * spare, max(1, int(spare.sum())))
    shares = 1 + whole
    shares[np.argsort(-remainder, kind="stable")[: left - int(whole.sum())]] += 1
    return shares.astype(np.int64)


def _take(labels: Tensor, images: Counts, shares: Counts) -> Tensor:
    """The first `shares` (K,) images of each class in the order of `images` (N,), as ascending indices."""
    own = labels.numpy()[images]
    by_class = np.argsort(own, kind="stable")
    images, own = images[by_class], own[by_class]
    rank = np.arange(len(own)) - np.searchsorted(own, own)  # 0, 1, … within each class
    return torch.from_numpy(np.sort(images[rank < shares[own]]))
