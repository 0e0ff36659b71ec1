"""A schedule on single images: in `Compose`, in a `DataLoader`, and with the batch's distribution."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from support import FILLS, pictures, random_genome
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from spaces import Entry, Genome, ImageSpec, ImageTransform, Phase, Policy, RequestError, Schedule, apply, sample
from spaces.core.seeding import seeded_generator
from spaces.policy.sampling import ParameterStream

INVERT = Genome(Policy((Entry("Invert", 10, 0),) * 2))


def schedule_of(*genomes, channels=3, epochs=2):
    spec = ImageSpec(13, channels, FILLS[channels])
    return Schedule(tuple(Phase(epochs, genome) for genome in genomes), "student", spec)


def as_pil(image):
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if image.shape[0] == 1 else pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_pil_and_tensor_in_the_same_out(channels):
    images = pictures(40, channels)
    on_tensors, on_pil, on_floats = (ImageTransform(schedule_of(random_genome(1), channels=channels)) for _ in range(3))
    for image in images:
        result = on_tensors(image)
        assert (result.dtype, result.shape) == (torch.uint8, image.shape)
        pil = on_pil(as_pil(image))
        assert pil.mode == ("L" if channels == 1 else "RGB")
        assert np.array_equal(np.array(pil), np.array(as_pil(result)))
        assert torch.equal((on_floats(image / 255) * 255).round().byte(), result)


def test_the_input_stays_as_it_is():
    image = pictures(1, 3)[0]
    before, pil = image.clone(), as_pil(image)
    transform = ImageTransform(schedule_of(random_genome(0, probability=10)))
    for _ in range(20):
        transform(image)
        transform(pil)
    assert torch.equal(image, before)
    assert np.array_equal(np.array(pil), np.array(as_pil(before)))


def test_same_distribution_as_the_batch():
    """Every outcome of a picture that tells nine of them apart, counted over both faces."""
    entries = (Entry("Invert", 4, 0), Entry("Posterize", 6, 9), Entry("TranslateX", 9, 9), Entry("Solarize", 5, 7))
    schedule = schedule_of(Genome(Policy(entries)), channels=1)
    image = pictures(1, 1)
    draws = 12_000
    batch = schedule.transform(0, seed=1)(image.expand(draws, -1, -1, -1))
    transform = ImageTransform(schedule, 0, seed=2)
    together = Counter(one.numpy().tobytes() for one in batch)
    alone = Counter(transform(image[0]).numpy().tobytes() for _ in range(draws))
    common = [key for key in together if together[key] + alone[key] >= 16]
    assert len(common) > 12
    table = [[together[key], alone[key]] for key in common]
    table.append([draws - sum(row[0] for row in table) + 1, draws - sum(row[1] for row in table) + 1])
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_parameters_are_those_of_blocks():
    """What is drawn does not depend on how it is drawn: blocks from the generator of seed and epoch."""
    genome = random_genome(3)
    image = pictures(1, 3)
    transform = ImageTransform(schedule_of(genome), 1, seed=5)
    generator, block = seeded_generator(5, 1), ParameterStream.BLOCK
    for _ in range(2):
        expected = apply(image.expand(block, -1, -1, -1), sample(genome.policy, block, generator), FILLS[3])
        assert torch.equal(torch.stack([transform(image[0]) for _ in range(block)]), expected)


def test_set_epoch_moves_on():
    transform = ImageTransform(schedule_of(Genome(), INVERT))
    image = pictures(1, 3)[0]
    assert all(torch.equal(transform(image), image) for _ in range(9))
    transform.set_epoch(2)
    assert any(torch.equal(transform(image), 255 - image) for _ in range(99))
    with pytest.raises(RequestError, match=r"from 0 to 3 for this schedule, got 4; use schedule.stretch"):
        transform.set_epoch(4)
    assert repr(transform) == "ImageTransform(epoch 2 of 4, student)"


def test_seed_and_epoch_decide():
    schedule, image = schedule_of(random_genome(0, probability=10), epochs=3), pictures(1, 3)[0]

    def draws(epoch, seed):
        transform = ImageTransform(schedule, epoch, seed=seed)
        return torch.stack([transform(image) for _ in range(30)])

    first = draws(0, 0)
    assert torch.equal(draws(0, 0), first)
    assert not torch.equal(draws(1, 0), first)
    assert not torch.equal(draws(0, 1), first)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_goes_on_where_the_original_is(twin):
    transform, image = ImageTransform(schedule_of(random_genome(0))), pictures(1, 3)[0]
    for _ in range(7):
        transform(image)
    other = twin(transform)
    assert all(torch.equal(other(image), transform(image)) for _ in range(40))


class Pictures(Dataset):
    """The same picture again and again, as a user's own data set."""

    def __init__(self, transform, length=24):
        self.image, self.transform, self.length = as_pil(pictures(1, 3)[0]), transform, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.transform(self.image)


def test_in_compose():
    transform = ImageTransform(schedule_of(random_genome(0, probability=10)))
    old = transforms.Compose([transforms.Resize(13), transform, transforms.ToTensor()])
    new = v2.Compose([v2.ToImage(), transform, v2.ToDtype(torch.float32, scale=True)])
    image = as_pil(pictures(1, 3, 20, 20)[0])
    assert old(image).shape == (3, 13, 13)
    assert isinstance(new(image), tv_tensors.Image)


@pytest.mark.slow
def test_workers_draw_differently_and_follow_the_epoch():
    transform = ImageTransform(schedule_of(random_genome(0, probability=10), Genome()))
    compose = transforms.Compose([transform, transforms.PILToTensor()])
    original = pictures(1, 3)[0]

    def epoch(loader):
        return torch.cat(list(loader))

    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        Pictures(compose), batch_size=4, num_workers=2, persistent_workers=True, generator=generator, prefetch_factor=1
    )
    first = epoch(loader)
    by_worker = first.view(-1, 2, 4, *original.shape)  # batches are dealt to the workers in turn
    assert not torch.equal(by_worker[:, 0], by_worker[:, 1]), "two workers that share a generator would agree"
    transform.set_epoch(3)
    assert torch.equal(epoch(loader), original.expand(24, -1, -1, -1)), "the schedule's end is the identity"
    del loader
    transform.set_epoch(0)
    generator.manual_seed(0)
    again = DataLoader(Pictures(compose), batch_size=4, num_workers=2, generator=generator)
    assert torch.equal(epoch(again), first), "a seeded DataLoader repeats itself"
    assert not torch.equal(epoch(again), first), "and its next epoch is another"


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            r"shape \(C, H, W\), got \(2, 3, 8, 8\); use schedule.transform",
        ),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), "must have 3 channels for this schedule, got 1"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), "images must be uint8, or floating point"),
        (torch.zeros(3, 0, 8), "at least one image of at least one pixel"),
        (np.zeros((8, 8, 3), np.uint8), "a PIL image or a tensor .* 'ndarray'"),
        (None, "a PIL image or a tensor .* 'NoneType'"),
        (Image.new("RGBA", (8, 8)), r"mode L \(gray\) or RGB, got 'RGBA'; convert it first"),
        (Image.new("L", (8, 8)), "must have 3 channels for this schedule, got 1"),
        (Image.new("RGB", (0, 8)), "at least one pixel"),
    ],
)
def test_what_is_refused(image, rule):
    transform = ImageTransform(schedule_of(INVERT))
    with pytest.raises(RequestError, match=rule):
        transform(image)
