"""The VAE of `hard_vae`: it reconstructs its images, is deterministic, and is trained once for each set of images."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import trainables.hard.vae_pretraining
from spaces import Genome, RequestError, WorkError
from spaces.augmentations import HardVae, augmentation
from spaces.augmentors import Vae
from spaces.core.seeding import seeded_generator
from spaces.core.weights import Learned
from trainables import Distill
from trainables.data import TensorImages, load
from trainables.hard.vae_pretraining import KL_WEIGHT, NOISE, train_vae, vae_file, vae_files, weights_of, with_vae

SMALL = HardVae(latent=2, width=4, vae_steps=6)
CHAIN = {"kind": "hard_chain", "parts": ["hard_color", {"kind": "hard_vae", "latent": 2, "width": 4, "vae_steps": 6}]}


@pytest.fixture(scope="module")
def digits():
    return load("digits", train=400, validation=200)


@pytest.fixture
def images(make_data):
    return make_data().train


@pytest.fixture
def trained(monkeypatch):
    """How often a VAE was trained."""
    calls, original = [], trainables.hard.vae_pretraining.train_vae

    def count(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(trainables.hard.vae_pretraining, "train_vae", count)
    return calls


def of_size(height, width, channels=1, count=8):
    generator = torch.Generator().manual_seed(height * width)
    pixels = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
    return TensorImages(pixels, torch.zeros(count, dtype=torch.int64))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- training --------------------------------------------------------------------------------------


def test_it_learns_its_images(digits, monkeypatch):
    """In few and large steps on small batches, which take seconds: half of the error that the mean digit leaves.

    On digits that it was not trained on.
    """
    monkeypatch.setattr(trainables.hard.vae_pretraining, "BATCH", 32)
    monkeypatch.setattr(trainables.hard.vae_pretraining, "RATE", 0.01)
    vae = train_vae(digits.train, HardVae(latent=8, width=8, vae_steps=300), channels=1)
    known, new = (part.images.float() / 255 for part in (digits.train, digits.validation))
    with torch.no_grad():
        mean, log_deviation = vae.encode(new)
        noise = torch.randn(mean.shape, generator=seeded_generator(0))
        drawn = vae.decode(mean + log_deviation.exp() * noise, 8, 8)
        plain = vae.decode(mean, 8, 8)
    base = (known.mean(dim=0) - new).square().mean()
    assert (drawn - new).square().mean() < base / 2
    assert (plain - new).square().mean() < (drawn - new).square().mean()
    assert 0.05 < log_deviation.exp().mean() < 0.9, "it is stochastic, and less so than the prior"
    assert not any(value.requires_grad for value in vae.parameters()) and not vae.training


def test_its_loss_is_its_formula(images):
    """‖x - x̂‖² / (2·0.1²) + 0.1·KL, by torch's own distributions."""
    with torch.random.fork_rng(devices=[]):
        vae = Vae(1, latent=3, width=4)
    shown = images.images[:5].float() / 255
    found = trainables.hard.vae_pretraining._loss(vae, shown, seeded_generator(1))
    mean, log_deviation = vae.encode(shown)
    posterior = Normal(mean, log_deviation.exp())
    made = vae.decode(mean + posterior.scale * torch.randn(mean.shape, generator=seeded_generator(1)), 8, 8)
    error = ((made - shown) ** 2).sum() / (2 * 0.1**2)
    divergence = kl_divergence(posterior, Normal(torch.tensor(0.0), torch.tensor(1.0))).sum()
    torch.testing.assert_close(found, (error + 0.1 * divergence) / 5)
    assert (KL_WEIGHT, NOISE) == (0.1, 0.1)


def test_the_seed_decides(images):
    one, two, three = (train_vae(images, SMALL, channels=1, seed=seed).state_dict() for seed in (1, 1, 2))
    assert same(one, two) and not same(one, three)


def test_the_global_random_state_is_neither_read_nor_touched(images, no_gpu_seeding):
    found = []
    for stream in (1, 2):
        torch.default_generator.manual_seed(stream)
        before = torch.get_rng_state()
        found.append(train_vae(images, SMALL, channels=1).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert same(*found)


def test_the_images_are_left_as_they_are(images):
    before = images.images.clone()
    train_vae(images, SMALL, channels=1)
    assert torch.equal(images.images, before)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 8), (13, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size(size, channels):
    """A set smaller than a batch as well."""
    choice = with_vae(SMALL, of_size(*size, channels), channels=channels)
    with torch.random.fork_rng(devices=[]):
        module = choice.augmentor(channels)
    drawn = module(of_size(*size, channels).images.float() / 255, torch.zeros(channels), seeded_generator(0))
    assert drawn.images.shape == (8, channels, *size)


def test_a_loss_that_is_not_finite(images, monkeypatch):
    monkeypatch.setattr(
        trainables.hard.vae_pretraining, "_loss", lambda vae, *rest: sum(v.sum() for v in vae.parameters()) * math.nan
    )
    with pytest.raises(WorkError, match=r"^the VAE's loss is not finite after 6 steps, got nan$"):
        train_vae(images, SMALL, channels=1)


# ---- kept ------------------------------------------------------------------------------------------


def test_a_choice_is_given_its_vae(images):
    choice = with_vae(SMALL, images, channels=1)
    assert replace(choice, vae=None) == SMALL and choice.learns
    assert same(choice.vae.tensors, train_vae(images, SMALL, channels=1).state_dict())
    with torch.random.fork_rng(devices=[]):
        assert same(choice.augmentor(1).vae.state_dict(), choice.vae.tensors)


@pytest.mark.parametrize("kind", ["identity", "cutmix", "hard_affine", "hard_chain"])
def test_what_needs_none_is_left_as_it_is(images, trained, kind):
    assert with_vae(augmentation(kind), images, channels=1) == augmentation(kind)
    given = with_vae(SMALL, images, channels=1)
    assert with_vae(given, images, channels=1) is given
    assert len(trained) == 1
    assert vae_files(augmentation(kind), images) == vae_files(given, images) == ()


def test_a_chain_is_given_the_vae_of_its_part(images, trained):
    chain = with_vae(augmentation(CHAIN), images, channels=1)
    assert chain.parts[0] == augmentation(CHAIN).parts[0]
    assert chain.parts[1] == with_vae(SMALL, images, channels=1)
    assert vae_files(augmentation(CHAIN), images) == (vae_file(SMALL, images),) and vae_files(chain, images) == ()


def test_a_vae_is_trained_once(images, trained, tmp_path):
    first = with_vae(SMALL, images, channels=1, cache=tmp_path / "vaes")
    assert [path.name for path in (tmp_path / "vaes").iterdir()] == [vae_file(SMALL, images)]
    again = with_vae(SMALL, images, channels=1, cache=tmp_path / "vaes")
    assert again == first and same(again.vae.tensors, first.vae.tensors)
    rules = replace(SMALL, lr=0.001, reach=2.0, lambda_s=3, memory=0)
    assert with_vae(rules, images, channels=1, cache=tmp_path / "vaes").vae == first.vae
    assert with_vae(augmentation(CHAIN), images, channels=1, cache=tmp_path / "vaes").parts[1].vae == first.vae
    assert len(trained) == 1
    with_vae(SMALL, images, channels=1)
    assert len(trained) == 2, "without a cache it is trained anew"


def test_other_images_or_settings_have_another_file(images):
    changed = images.images.clone()
    changed[7, 0, 3, 4] ^= 1
    turned = TensorImages(images.images.view(-1, 1, 4, 16), images.labels)
    fewer = images.subset(torch.arange(40))
    files = [vae_file(SMALL, other) for other in (images, TensorImages(changed, images.labels), turned, fewer)]
    files += [vae_file(replace(SMALL, **{name: 7}), images) for name in ("latent", "width", "vae_steps")]
    assert len(set(files)) == 7
    assert vae_file(replace(SMALL, lr=0.1, reach=0.5, vae=None), images) == files[0]
    assert vae_file(SMALL, TensorImages(images.images.clone(), (images.labels + 1) % 3)) == files[0], (
        "labels do not count"
    )


def test_a_cached_file_that_is_damaged_is_refused(images, tmp_path):
    (tmp_path / vae_file(SMALL, images)).write_bytes(b"nonsense")
    with pytest.raises(RequestError, match="must contain plain weights"):
        with_vae(SMALL, images, channels=1, cache=tmp_path)


def test_the_vaes_that_choices_hold(images):
    given = with_vae(SMALL, images, channels=1)
    chain = with_vae(augmentation(CHAIN), images, channels=1)
    other = with_vae(replace(SMALL, latent=3), images, channels=1)
    found = weights_of((given, augmentation("cutmix"), chain, other, SMALL))
    assert found.keys() == {given.vae.sha256, other.vae.sha256}
    assert all(Learned.of(tensors).sha256 == key for key, tensors in found.items())


def test_the_mend_names_what_there_is():
    with pytest.raises(RequestError) as error:
        SMALL.augmentor(1)
    name = str(error.value).partition("trainables.hard.vae_pretraining.")[2].partition("(")[0]
    assert hasattr(trainables.hard.vae_pretraining, name)


# ---- at play ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [SMALL, augmentation(CHAIN)], ids=["alone", "in a chain"])
def test_a_second_view_is_made_with_it(make_task, images, choice):
    given = with_vae(replace(choice, warmup=2, augmentor_steps=2), images, channels=1)
    weights = weights_of((given,))
    learner = make_task("student", distill=Distill(alpha=0.7), weights=weights).learner(Genome(augment=given), seed=0)
    metrics = learner.step()
    expected = 0.3 * metrics["task_loss"] + 0.7 * (metrics["kd_loss"] + metrics["view_loss"])
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["hard/augmentor_steps"] == 2
    bare = Genome.from_json(Genome(augment=given).to_json())
    other = make_task("student", distill=Distill(alpha=0.7), weights=weights).learner(bare, seed=0)
    assert other.step()["view_loss"] == metrics["view_loss"], "a genome that names it is as good"
    assert all("vae." not in name for name in learner.game.snapshots[0])
