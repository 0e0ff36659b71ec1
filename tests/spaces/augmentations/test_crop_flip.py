"""Crop and flip against the same by plain indexing, one image at a time."""

import itertools
from collections import Counter

import pytest
import torch
from scipy import stats

from spaces import BaseAugmentation, RequestError
from spaces.core.seeding import seeded_generator
from spaces.engine import cpu, dense

FILLS = {1: (119,), 3: (125, 122, 113)}


def picture(channels, height, width):
    """No two pixels alike, so every crop is told from every other."""
    return torch.arange(channels * height * width).remainder(256).to(torch.uint8).view(channels, height, width)


def crop_and_flip(image, fill, pad, top, left, mirrored):
    channels, height, width = image.shape
    result = torch.empty_like(image)
    for channel, row, column in itertools.product(range(channels), range(height), range(width)):
        source = width - 1 - column if mirrored else column
        y, x = top + row - pad, left + source - pad
        inside = 0 <= y < height and 0 <= x < width
        result[channel, row, column] = image[channel, y, x] if inside else fill[channel]
    return result


def variants(image, fill, crop, flip):
    """Everything that may become of `image`, by (top, left, mirrored)."""
    offsets = range(2 * crop + 1)
    choices = itertools.product(offsets, offsets, [False, True] if flip else [False])
    return {choice: crop_and_flip(image, fill, crop, *choice) for choice in choices}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [0, 1, 2, 3])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 5, 7), (3, 6, 4), (3, 5, 5)])
def test_every_image_is_one_of_its_crops_each_as_often(channels, height, width, crop, flip):
    image, fill = picture(channels, height, width), FILLS[channels]
    expected = {tuple(v.flatten().tolist()): choice for choice, v in variants(image, fill, crop, flip).items()}
    assert len(expected) == (2 * crop + 1) ** 2 * (1 + flip), "the reference tells them apart"
    batch = 60 * len(expected)
    results = BaseAugmentation(crop, flip)(image.expand(batch, -1, -1, -1), fill, seeded_generator(crop, flip, width))
    assert (results.dtype, results.shape) == (torch.uint8, (batch, channels, height, width))
    seen = Counter(expected[tuple(result.flatten().tolist())] for result in results)
    assert set(seen) == set(expected.values())
    if len(expected) > 1:
        assert stats.chisquare([seen[choice] for choice in expected.values()]).pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_padding_wider_than_the_image(channels):
    image, fill = picture(channels, 2, 3), FILLS[channels]
    allowed = {tuple(v.flatten().tolist()) for v in variants(image, fill, 4, flip=True).values()}
    results = BaseAugmentation(4, True)(image.expand(500, -1, -1, -1), fill, seeded_generator(0))
    assert {tuple(result.flatten().tolist()) for result in results} <= allowed


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True)])
def test_each_image_stays_in_its_place(crop, flip):
    """Images of one color each: whatever is cropped, only that color and the fill are seen."""
    images = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 6, 6)
    results = BaseAugmentation(crop, flip)(images, (200,), seeded_generator(1))
    for color, result in enumerate(results):
        assert set(result.unique().tolist()) <= {color, 200}
        assert result[0, 2:4, 2:4].eq(color).all(), "what the crop cannot reach"


def test_off_is_the_same_tensor_and_draws_nothing():
    images, generator = picture(3, 4, 4)[None], seeded_generator(2)
    before = generator.get_state()
    assert BaseAugmentation(0, False)(images, FILLS[3], generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True)])
def test_the_input_is_untouched_and_the_output_is_new(crop, flip):
    images = picture(3, 8, 8).expand(64, -1, -1, -1).clone()
    before = images.clone()
    result = BaseAugmentation(crop, flip)(images, FILLS[3], seeded_generator(3))
    result_before = result.clone()
    assert torch.equal(images, before)
    images.zero_()
    assert torch.equal(result, result_before)


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True)])
def test_the_generator_decides(crop, flip):
    images, base = picture(3, 8, 8).expand(64, -1, -1, -1), BaseAugmentation(crop, flip)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    generator = seeded_generator(4)
    first = base(images, FILLS[3], generator)
    torch.manual_seed(0)
    assert torch.equal(base(images, FILLS[3], seeded_generator(4)), first)
    assert torch.equal(torch.get_rng_state(), state), "the global state is not touched"
    assert not torch.equal(base(images, FILLS[3], generator), first), "a generator that was used goes on"
    assert not torch.equal(base(images, FILLS[3], seeded_generator(5)), first)


@pytest.mark.parametrize("layout", ["channels last", "every other pixel"])
def test_the_memory_layout_does_not_matter(layout):
    images = torch.randint(0, 256, (32, 3, 6, 9), dtype=torch.uint8, generator=seeded_generator(6))
    given = {
        "channels last": images.to(memory_format=torch.channels_last),
        "every other pixel": images.repeat_interleave(2, dim=3)[..., ::2],
    }[layout]
    assert not given.is_contiguous()
    for crop, flip in ((2, True), (0, True)):
        base = BaseAugmentation(crop, flip)
        assert torch.equal(base(given, FILLS[3], seeded_generator(7)), base(images, FILLS[3], seeded_generator(7)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 16)])
def test_both_paths_of_the_engine_agree(channels, size):
    """Every offset up to wholly outside, mirrored or not."""
    offsets = torch.arange(-size[1] - 1, size[1] + 2)
    top, left, mirrored = torch.cartesian_prod(offsets, offsets, torch.arange(2)).unbind(1)
    images = torch.randint(0, 256, (len(top), channels, *size), dtype=torch.uint8, generator=seeded_generator(9))
    given = (images, top, left, mirrored.bool(), torch.tensor(FILLS[channels], dtype=torch.uint8))
    assert torch.equal(cpu.crop(*given), dense.crop(*given))


def test_a_negative_padding_is_refused():
    with pytest.raises(RequestError, match=r"^BaseAugmentation.crop must be >= 0, got -1$"):
        BaseAugmentation(-1, True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_bytes_on_a_gpu():
    images, base = picture(3, 8, 8).expand(64, -1, -1, -1), BaseAugmentation(2, True)
    on_device = base(images.cuda(), FILLS[3], seeded_generator(8))
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), base(images, FILLS[3], seeded_generator(8)))
