"""Stratified splits by labels and seed.

scikit-learn's `StratifiedShuffleSplit` would not do: its parts follow the class frequencies and are not balanced; a
larger part does not contain a smaller one of the same seed; NumPy may change the stream that it draws from; and its
import takes two seconds in every worker. It would also choose other images, so no earlier result could be repeated.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.core.errors import RequestError

Counts = NDArray[np.int64]

HELD_OUT = 0.1
"""Share of the training set that is held out by default."""


def stratified_split(
    labels: Tensor, *, classes: int, train: int | None = None, validation: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Split N images into disjoint training and validation parts, each balanced over the classes.

    Each part has the same number of images of every class, up to one, if the classes are large enough: if both parts
    fit and, where one part is all the rest, if no class keeps less than half of its proportional share of the rest.
    Otherwise the parts are proportional to the class sizes, with at least one training image per class.

    The images of a class are ordered by the seed; training takes them from the front, validation from the back. So
    while both parts are balanced, neither depends on the size of the other, and a smaller part is contained in a larger
    one of the same seed.

    Args:
        labels: Class labels, (N,) int64 in 0 … classes − 1.
        classes: Number K of classes, >= 2.
        train: Number of training images, >= K; None for all that are not held out.
        validation: Number of validation images, >= K; None for the rest if `train` is given, else a tenth.
        seed: Seed >= 0 of NumPy's PCG64, whose raw stream is the same in every version of NumPy.

    Returns:
        Ascending indices (train,) and (validation,) int64.

    Raises:
        RequestError: A number is below K, more images are requested than there are, a class has no images, or the seed
            is negative.

    Example:
        >>> labels = torch.arange(100) % 2
        >>> train, validation = stratified_split(labels, classes=2, train=20, validation=10)
        >>> labels[train].bincount().tolist(), labels[validation].bincount().tolist()
        ([10, 10], [5, 5])
    """
    counts = _counts(labels, classes)
    sizes = _sizes(int(counts.sum()), classes, train, validation)
    images, order = _orders(len(labels), classes, seed)
    shares = _shares(counts, sizes, order, held_out_first=train is None)
    return _take(labels, images, shares[0]), _take(labels, images[::-1], shares[1])


def stratified_subset(labels: Tensor, *, classes: int, size: int | None, seed: int, part: str) -> Tensor:
    """Choose `size` of N images by the rules of `stratified_split`, with nothing held out.

    Args:
        labels: Class labels, (N,) int64 in 0 … classes − 1.
        classes: Number K of classes, >= 2.
        size: Number of images, from K to N; None for all.
        seed: Seed >= 0.
        part: Name of the part, for the error message.

    Returns:
        Ascending indices (size,) int64.

    Raises:
        RequestError: See `stratified_split`.
    """
    counts = _counts(labels, classes)
    _check_size(part, size, classes)
    images, order = _orders(len(labels), classes, seed)
    if size is None:
        return torch.arange(len(labels))
    if size > len(labels):
        raise RequestError(f"data.{part} must be at most {len(labels)}, the number of images", value=size)
    shares = _equal(size, order)
    return _take(labels, images, shares if (shares <= counts).all() else _proportional(size, counts))


def _orders(images: int, classes: int, seed: int) -> tuple[Counts, Counts]:
    """Return the order of the images and the order of the classes for `seed`."""
    if seed < 0:
        raise RequestError("the seed of a split must be >= 0", value=seed)
    keys = np.random.PCG64(seed).random_raw(images + classes)
    return np.argsort(keys[:images], kind="stable"), np.argsort(keys[images:], kind="stable")


def _counts(labels: Tensor, classes: int) -> Counts:
    """Return the number of images of each class, (K,)."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        value = f"{int(labels.min())} … {int(labels.max())}"
        raise RequestError(f"labels of {classes} classes must be in 0 … {classes - 1}", value=value)
    counts = np.bincount(labels.numpy(), minlength=classes)
    if (counts == 0).any():
        raise RequestError(f"each of the {classes} classes must have training images; class {counts.argmin()} has none")
    return counts.astype(np.int64)


def _sizes(count: int, classes: int, train: int | None, validation: int | None) -> tuple[int, int]:
    """Return the number of images of both parts, with defaults filled in."""
    _check_size("train", train, classes)
    _check_size("validation", validation, classes)
    if train is None:
        held_out = max(classes, round(HELD_OUT * count)) if validation is None else validation
        kept = count - held_out
    else:
        kept, held_out = train, count - train if validation is None else validation
    if kept + held_out > count or min(kept, held_out) < classes:
        rule = f"training and validation must together have at most {count} images, each at least {classes}"
        value = f"data.train = {train}, data.validation = {validation}"
        raise RequestError(rule, value=value, hint="request fewer images")
    return kept, held_out


def _check_size(part: str, size: int | None, classes: int) -> None:
    if size is None:
        return
    if not isinstance(size, int) or size < 1:
        raise RequestError(f"data.{part} must be an integer >= 1", value=size)
    if size < classes:
        rule = f"data.{part} must be at least {classes}, the number of classes"
        raise RequestError(rule, value=size, hint="request more images")


def _shares(counts: Counts, sizes: tuple[int, int], order: Counts, *, held_out_first: bool) -> tuple[Counts, Counts]:
    """Return the number of images of each class in training and in validation, (K,) each."""
    total, requested = int(counts.sum()), sum(sizes)
    train, validation = _equal(sizes[0], order), _equal(sizes[1], order[::-1])
    if requested < total:
        enough = (train + validation <= counts).all()
    elif held_out_first:
        train = counts - validation
        enough = (2 * train * total >= counts * sizes[0]).all()
    else:
        validation = counts - train
        enough = (2 * validation * total >= counts * sizes[1]).all()
    if enough:
        return train, validation
    used = _proportional(requested, counts)
    train = _proportional(sizes[0], used)
    return train, used - train


def _equal(size: int, order: Counts) -> Counts:
    """Divide `size` equally; the remainder goes to the first classes in `order`."""
    shares = np.full(len(order), size // len(order), dtype=np.int64)
    shares[order[: size % len(order)]] += 1
    return shares


def _proportional(size: int, counts: Counts) -> Counts:
    """Divide `size` in proportion to `counts` by largest remainders, after one for each; never above `counts`."""
    spare, left = counts - 1, size - len(counts)
    whole, remainder = np.divmod(left * spare, max(1, int(spare.sum())))
    shares = 1 + whole
    shares[np.argsort(-remainder, kind="stable")[: left - int(whole.sum())]] += 1
    return shares.astype(np.int64)


def _take(labels: Tensor, images: Counts, shares: Counts) -> Tensor:
    """Return the first `shares` (K,) images of each class in the order of `images` (N,), as ascending indices."""
    classes = labels.numpy()[images]
    by_class = np.argsort(classes, kind="stable")
    images, classes = images[by_class], classes[by_class]
    rank = np.arange(len(classes)) - np.searchsorted(classes, classes)  # 0, 1, … within each class
    return torch.from_numpy(np.sort(images[rank < shares[classes]]))
