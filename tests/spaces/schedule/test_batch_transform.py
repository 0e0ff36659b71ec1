"""A policy as a module on batches, and as a callable on single images."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from support import FILLS, WRONG_IMAGES, pictures, random_genome
from torch import nn
from torchvision import tv_tensors

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, Space, Transform, apply
from spaces.augmentations import augmentation
from spaces.core.seeding import seeded_generator
from spaces.policy.sampling import ParameterStream

every_channels = pytest.mark.parametrize("channels", [1, 3])


# ---- the module ------------------------------------------------------------------------------------


@every_channels
def test_the_module_draws_and_applies(channels):
    images, genome = pictures(96, channels), random_genome(7)
    transform = Transform(genome.policy, fill=FILLS[channels], seed=(3, 1))
    draws = ParameterStream(genome.policy, seeded_generator(3, 1))
    for _ in range(3):
        assert torch.equal(transform(images), apply(images, draws.take(96), FILLS[channels]))


def test_the_seed_decides():
    images, genome = pictures(64, 3), random_genome(8)
    one, same, other = (Transform(genome.policy, fill=FILLS[3], seed=seed) for seed in ((1, 2), (1, 2), (2, 1)))
    first = one(images)
    assert torch.equal(same(images), first)
    assert not torch.equal(other(images), first)
    assert not torch.equal(one(images), first), "the next batch is drawn anew"


def test_global_randomness_is_neither_used_nor_touched():
    images, genome = pictures(64, 3), random_genome(8)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        results.append(Transform(genome.policy, fill=FILLS[3], seed=(4,))(images))
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    assert torch.equal(*results)


@every_channels
def test_the_module_in_a_sequence(channels):
    class ToFloat(nn.Module):
        def forward(self, images):
            return images.float() / 255

    images = pictures(32, channels)
    transform = Transform(random_genome(9).policy, fill=FILLS[channels], seed=(5,))
    model = nn.Sequential(copy.deepcopy(transform), ToFloat(), nn.Conv2d(channels, 2, 3)).eval()
    with torch.no_grad():
        assert torch.equal(model(images), model[2](transform(images).float() / 255))
    assert [name for name, _ in model.named_parameters()] == ["2.weight", "2.bias"], "nothing to train, nothing to save"
    assert set(model.state_dict()) == {"2.weight", "2.bias"}


@every_channels
def test_the_zero_genome_copies_the_images_and_still_checks_them(channels):
    transform = Transform(Space().zero().policy, fill=FILLS[channels])
    images = pictures(4, channels)
    assert torch.equal(transform(images), images)
    assert transform(images) is not images, "what is done to the result is not done to a user's own data"
    with pytest.raises(RequestError, match="floating-point images must lie in"):
        transform(images.float() - 1)
    with pytest.raises(RequestError, match=f"images must have {channels} channels"):
        transform(pictures(4, 4 - channels))


def test_a_subclass_stays_one():
    images = tv_tensors.Image(pictures(4, 3))
    for policy in (Policy(), random_genome(0).policy):
        assert type(Transform(policy, fill=FILLS[3])(images)) is tv_tensors.Image


@pytest.mark.slow
def test_a_compiled_model_may_hold_it():
    images, policy = pictures(8, 3), random_genome(0).policy
    expected = Transform(policy, fill=FILLS[3])(images)
    assert torch.equal(torch.compile(Transform(policy, fill=FILLS[3]))(images), expected)


def test_seeds_are_whole_numbers():
    with pytest.raises(RequestError, match="seeds must be integers"):
        Transform(Policy(), fill=(0,), seed=(0.5,))


@pytest.mark.parametrize("genome", [Space().zero(), random_genome(0), Genome()], ids=["zero", "random", "empty"])
@pytest.mark.parametrize(("images", "rule"), WRONG_IMAGES)
def test_images_that_the_module_refuses(genome, images, rule):
    transform = Transform(genome.policy, fill=FILLS[3])
    before = transform.draws.generator.get_state()
    with pytest.raises(RequestError, match=rule):
        transform(images)
    assert torch.equal(transform.draws.generator.get_state(), before), "what is refused draws nothing"


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_goes_on_where_the_module_is(twin):
    images = pictures(64, 3)
    transform = Transform(random_genome(1).policy, fill=FILLS[3], seed=(6,))
    transform(images)
    other = twin(transform)
    assert torch.equal(other(images), transform(images))


def test_print_shows_what_is_in_force():
    genome = Genome(Policy((Entry("Rotate", 5, 4), Entry("Invert", 0, 9), Entry("Color", 10, 9))))
    assert repr(Transform(genome.policy, fill=(0,))) == "Transform(Rotate 2.0, Color 9.0)"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_channels
def test_the_same_bytes_on_a_gpu(channels):
    images, genome = pictures(256, channels), random_genome(2)
    ours, theirs = (Transform(genome.policy, fill=FILLS[channels], seed=(7,)) for _ in range(2))
    on_device = ours(images.cuda())
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), theirs(images))


# ---- the second view -------------------------------------------------------------------------------


def test_a_schedules_second_view():
    genome = Genome(augment=augmentation({"kind": "cutmixpick", "passes": 3}))
    schedule = Schedule((Phase(1, Genome()), Phase(1, genome)), "student", ImageSpec(13, 3, FILLS[3]))
    assert schedule.second_view(0) is None
    images, teacher_inputs = pictures(8, 3), []

    def answers(shown):
        teacher_inputs.append(len(shown))
        return shown.float().mean(dim=(2, 3))

    one, same, other = (schedule.second_view(1, seed=seed) for seed in (4, 4, 5))
    view = one(images, answers)
    assert (view.images.shape, view.images.dtype, view.logits.shape) == (images.shape, torch.uint8, (8, 3))
    assert teacher_inputs == [24]
    assert torch.equal(view.images, same(images, answers).images)
    assert not torch.equal(view.images, other(images, answers).images)
    assert repr(one) == "SecondView(cutmixpick(passes=3))"
    with pytest.raises(RequestError, match="cutmixpick must be called with `predict`, for the logits of the teacher"):
        one(images)
    with pytest.raises(RequestError, match="must be uint8"):
        one(images / 255, answers)
