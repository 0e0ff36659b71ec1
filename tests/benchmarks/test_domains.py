"""Target domains of the studies: what they do to pixels, and which parts they leave alone."""

import math

import numpy as np
import pytest
import torch

from benchmarks.common.domains import DOMAINS, LARGEST_ANGLE, dark, in_domain, rotation, target_domain, translation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    return in_domain("mnist5k", "data", train=40, validation=60, test=100, seed=3)


def test_in_domain_takes_some_of_the_test_images(data):
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 60, 100) and data.in_domain is None
    again, other = (in_domain("mnist5k", "data", train=40, validation=60, test=100, seed=seed) for seed in (3, 4))
    assert torch.equal(again.test.images, data.test.images) and not torch.equal(other.test.images, data.test.images)


@pytest.mark.parametrize("domain", DOMAINS)
def test_validation_and_test_images_are_moved_and_training_images_are_not(data, domain):
    moved, again, other = (target_domain(data, domain, seed) for seed in (0, 0, 1))
    assert moved.train is data.train and moved.in_domain is data.test
    for part in ("validation", "test"):
        ours, theirs = getattr(moved, part), getattr(data, part)
        assert torch.equal(ours.labels, theirs.labels) and ours.images.dtype == torch.uint8
        assert ours.images.shape == theirs.images.shape and not torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.images, getattr(again, part).images)
        assert torch.equal(ours.images, getattr(other, part).images) == (domain == "dark")  # the others are random


def test_images_are_translated_by_up_to_a_seventh_of_the_side():
    images = torch.zeros(500, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 14, 14] = 200
    places = translation(images, seeded())[:, 0].flatten(1).argmax(1)
    assert set((places // 28 - 14).tolist()) == set((places % 28 - 14).tolist()) == set(range(-4, 5))


def test_images_are_rotated_by_up_to_thirty_degrees_either_way():
    """The angle of a bar through the center, from its second moments."""
    images = torch.zeros(200, 1, 41, 41, dtype=torch.uint8)
    images[:, :, 19:22, 8:33] = 255
    turned = rotation(images, seeded()).double()[:, 0]
    y, x = np.mgrid[-20:21, -20:21]
    moments = [(turned * torch.from_numpy(product)).sum((1, 2)) for product in (2 * x * y, x * x - y * y)]
    angles = -torch.atan2(*moments) / 2 * 180 / math.pi
    expected = (2 * torch.rand(200, generator=seeded()) - 1) * LARGEST_ANGLE
    assert (angles - expected).abs().max() < 1
    assert angles.min() < -27 and angles.max() > 27


def test_dark_images_have_two_fifths_of_the_contrast():
    images = torch.tensor([0, 1, 100, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    assert dark(images, seeded()).flatten().tolist() == [20, 20, 60, 122]
