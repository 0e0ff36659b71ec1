"""HARD's augmentors: gradients reach all that learns, bounds hold whatever was learned, closed forms."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces import RequestError
from spaces.augmentors import Affine, Chain, Color, Latent, Mix, Vae
from spaces.augmentors.affine import warp_affine
from spaces.augmentors.bounded import MIN_SPREAD, BoundedNormal
from spaces.augmentors.pairing import random_partners
from spaces.core.seeding import seeded_generator

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

FILL = {1: torch.tensor([0.25]), 3: torch.tensor([0.1, 0.5, 0.9])}
MOST = 0.6
MAKE = {
    "affine": lambda channels: Affine(channels, linear=0.5, shift=0.5, conditional=False),
    "affine of the image": lambda channels: Affine(channels, linear=1.0, shift=1.0, conditional=True),
    "mix": lambda channels: Mix(channels, regions=3, most=MOST, conditional=False),
    "mix of the images": lambda channels: Mix(channels, regions=2, most=MOST, conditional=True),
    "color": lambda channels: Color(channels, reach=0.5, conditional=False),
    "color of the image": lambda channels: Color(channels, reach=1.0, conditional=True),
    "vae": lambda channels: Latent(channels, latent=3, width=4, reach=1.0),
    "chain": lambda channels: Chain([MAKE[name](channels) for name in PARTS], PARTS),
    "chain that ends in a vae": lambda channels: Chain([MAKE["affine"](channels), MAKE["vae"](channels)], ["a", "v"]),
}
LAST = ["network.8", "residual.2"]
PARTS = ["color", "affine of the image", "mix of the images"]
every_augmentor = pytest.mark.parametrize("name", MAKE)
both_channels = pytest.mark.parametrize("channels", [1, 3])


def made(name, channels=1, moved=0.0, seed=0):
    """An augmentor, its learnable parameters moved by `moved` times normal noise; a VAE in it has large weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = MAKE[name](channels)
        for part in module.modules():
            if isinstance(part, Vae):
                for value in part.parameters():
                    value.data *= 2
        for value in learnable(module).values():
            value.data += moved * torch.randn_like(value)
    return module


def learnable(module):
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def pixels(batch=4, channels=1, height=8, width=8, seed=0):
    """Images (B, C, H, W) in [0, 1], no pixel at the bounds."""
    return 0.1 + 0.8 * torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def known_stream():
    """Networks that a test makes by itself start alike whichever tests ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(20)
        yield


def fixed(module, values):
    """`module`, a `Bounded`, draws these values and hardly anything else."""
    with torch.no_grad():
        module.location.copy_(torch.as_tensor(values, dtype=torch.float64).atanh().clamp(-1e4, 1e4))
        module.scale.fill_(-1e4)
    return module


# ---- the contract ----------------------------------------------------------------------------------


@every_augmentor
@both_channels
def test_a_gradient_of_the_images_reaches_everything_that_learns(name, channels):
    """The networks' last layers start at 0 and pass nothing on: so from a place a little way off."""
    module, images = made(name, channels, moved=0.1), pixels(6, channels)
    drawn = module(images, FILL[channels], seeded_generator(1))
    weights = torch.randn(drawn.images.shape, generator=torch.Generator().manual_seed(3))
    parameters = learnable(module)
    gradients = torch.autograd.grad((drawn.images * weights).sum(), list(parameters.values()), allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), parameter
    assert module.learnable().keys() == parameters.keys(), "all that learns, and nothing that came ready-made"


@every_augmentor
def test_at_the_start_the_gradient_is_there_already(name):
    """Of the images to the last layers and to whatever has none; else the game would stand still."""
    module = made(name)
    drawn = module(pixels(), FILL[1], seeded_generator(1))
    found = torch.autograd.grad(drawn.images.pow(2).sum(), list(learnable(module).values()), allow_unused=True)
    reached = {parameter for parameter, gradient in zip(learnable(module), found, strict=True) if gradient.any()}
    ends = (
        "drawn.location",
        "drawn.scale",
        "network.8.weight",
        "network.8.bias",
        "residual.2.weight",
        "residual.2.bias",
    )
    assert reached == {parameter for parameter in learnable(module) if parameter.endswith(ends)} != set()


@every_augmentor
def test_the_entropy_has_a_gradient_of_its_own(name):
    module = made(name, moved=0.1)
    entropy = module(pixels(), FILL[1], seeded_generator(1)).entropy
    assert entropy.shape == () and entropy.isfinite()
    found = torch.autograd.grad(entropy, list(learnable(module).values()), allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in found)


@every_augmentor
def test_what_was_learned_is_a_copy_that_another_can_take_over(name):
    module, other = made(name, moved=0.5, seed=1), made(name, seed=2)
    weights = module.learnable()
    before = copy.deepcopy(weights)
    images = pixels()
    expected = module(images, FILL[1], seeded_generator(4)).images
    for value in learnable(module).values():
        value.data.zero_()
    assert all(torch.equal(weights[key], before[key]) and not weights[key].requires_grad for key in weights)
    for one, two in zip(module.modules(), other.modules(), strict=True):
        if isinstance(one, Vae):
            two.load_state_dict(one.state_dict())
    assert other.load_state_dict(weights, strict=False).unexpected_keys == []
    assert torch.equal(other(images, FILL[1], seeded_generator(4)).images, expected)


@given(
    st.sampled_from(list(MAKE)),
    st.sampled_from([1, 3]),
    st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    st.tuples(st.integers(2, 5), st.integers(1, 11), st.integers(1, 11)),
    st.integers(0, 1000),
)
@quick
def test_the_bounds_hold_whatever_was_learned(name, channels, moved, shape, seed):
    batch, height, width = shape
    images = (pixels(batch, channels, height, width, seed) * 1.25 - 0.125).clamp(0, 1)  # pixels at the bounds as well
    images[0] = (images[0] > 0.5).float()
    before = images.clone()
    module = made(name, channels, moved, seed)
    drawn = module(images, FILL[channels], seeded_generator(seed))
    assert torch.equal(images, before), "the images are left as they are"
    assert drawn.images.shape == images.shape and drawn.images.dtype == torch.float32
    assert ((drawn.images >= 0) & (drawn.images <= 1)).all()
    assert drawn.parameters.shape == (batch, len(module.names))
    assert ((drawn.parameters >= -1) & (drawn.parameters <= 1)).all() and not drawn.parameters.requires_grad
    assert drawn.entropy.isfinite()
    for gradient in torch.autograd.grad(drawn.images.sum() + drawn.entropy, list(learnable(module).values())):
        assert gradient.isfinite().all()
    if drawn.partner is None:
        assert drawn.weight is None
        return
    assert drawn.partner.tolist() != list(range(batch)) and sorted(drawn.partner.tolist()) == list(range(batch))
    assert ((drawn.weight >= 1 - MOST - 1e-6) & (drawn.weight <= 1)).all() and not drawn.weight.requires_grad


@every_augmentor
def test_the_generator_alone_decides(name):
    module, images = made(name, moved=0.3), pixels()
    one, other, state = seeded_generator(5), seeded_generator(5), torch.get_rng_state()
    for _ in range(2):  # and so does where it has come to
        torch.default_generator.manual_seed(7)
        assert torch.equal(module(images, FILL[1], one).images, module(images, FILL[1], other).images)
        assert torch.equal(one.get_state(), other.get_state())
    torch.set_rng_state(state)
    module(images, FILL[1], one)
    assert torch.equal(torch.get_rng_state(), state), "the global state is neither read nor touched"
    assert not torch.equal(
        module(images, FILL[1], seeded_generator(6)).images, module(images, FILL[1], seeded_generator(5)).images
    )


@pytest.mark.parametrize("name", [name for name in MAKE if "mix" not in name and name != "chain"])
def test_but_for_a_mix_images_do_not_depend_on_the_rest_of_the_batch(name):
    """Each has numbers, and a network's answer, of its own."""
    module, images = made(name, moved=0.3), pixels(5)
    other = images.clone()
    other[1:] = 1 - other[1:]
    one, two = (module(shown, FILL[1], seeded_generator(2)).images for shown in (images, other))
    torch.testing.assert_close(one[0], two[0], rtol=0, atol=1e-6)
    assert (one[1] - two[1]).abs().max() > 1e-3


# ---- Bounded ---------------------------------------------------------------------------------------


def entropy_by_integration(location, spread):
    """Of y = tanh(z), z = location + spread·ε, in nats, less the uniform distribution's over [-1, 1]: -E log p(y)."""
    z = np.linspace(location - 10 * spread, location + 10 * spread, 20_001)
    normal = np.exp(-(((z - location) / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi))
    log_density = np.log(normal) + 2 * np.log(np.cosh(z))  # of y: dy = dz / cosh² z
    return -np.trapezoid(normal * log_density, z) - np.log(2)


def entropy_by_counting(values):
    """The same from drawn values alone, in 200 bins."""
    shares = np.histogram(values, 200, (-1, 1))[0] / len(values)
    shares = shares[shares > 0]
    return -(shares * np.log(shares * 200)).sum()


PLACES = [(0.0, 0.1), (0.5, 0.3), (-1.0, 0.5), (0.0, 0.87), (2.0, 1.0), (0.3, 1.5)]


@pytest.mark.parametrize(("location", "spread"), PLACES)
def test_the_entropy_is_what_integration_and_counting_give(location, spread):
    module = BoundedNormal(1, spread=spread - MIN_SPREAD)
    module.location.data.fill_(location)
    values, entropy = module(torch.zeros(200_000, 1, 1, 1), seeded_generator(3))
    assert float(entropy.detach()) == pytest.approx(entropy_by_integration(location, spread), abs=0.02)
    assert float(entropy.detach()) == pytest.approx(entropy_by_counting(values.detach().flatten().numpy()), abs=0.02)


def test_the_entropies_of_several_numbers_add_up():
    module = BoundedNormal(len(PLACES))
    with torch.no_grad():
        module.location.copy_(torch.tensor([location for location, _ in PLACES]))
        module.scale.copy_(torch.tensor([math.log(math.expm1(spread - MIN_SPREAD)) for _, spread in PLACES]))
    _, entropy = module(torch.zeros(200_000, 1, 1, 1), seeded_generator(3))
    assert float(entropy.detach()) == pytest.approx(sum(entropy_by_integration(*place) for place in PLACES), abs=0.05)


def test_no_entropy_is_above_that_of_the_uniform_distribution_and_the_best_is_close_to_it():
    spreads = torch.logspace(-2, 1, 60)
    grid = torch.tensor(list(itertools.product([0.0, 0.2, 1.0], spreads.tolist())))
    module = BoundedNormal(len(grid))
    with torch.no_grad():
        module.location.copy_(grid[:, 0])
        module.scale.copy_((grid[:, 1] - MIN_SPREAD).expm1().log())
        noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    found = [entropy_by_integration(location, spread) for location, spread in grid.tolist()]
    assert max(found) < 0
    assert max(found) == pytest.approx(0, abs=0.05)
    best = grid[int(np.argmax(found))]
    drawn = (best[0] + best[1] * noise).tanh()
    shares = drawn.histc(10, -1, 1) / len(drawn)
    assert shares.max() < 1.6 * shares.min(), "it is close to uniform"


def test_the_lower_the_entropy_the_narrower():
    found = [entropy_by_integration(0.0, spread) for spread in (0.01, 0.1, 0.5, 0.87)]
    assert found == sorted(found)
    modules = [BoundedNormal(1, spread=spread) for spread in (0.01, 0.1, 0.5, 0.87)]
    drawn = [module(torch.zeros(5000, 1, 1, 1), seeded_generator(0)) for module in modules]
    assert [float(entropy.detach()) for _, entropy in drawn] == sorted(float(entropy.detach()) for _, entropy in drawn)


@pytest.mark.parametrize(("start", "spread"), [(0.0, 0.1), (-0.9, 0.1), (0.5, 0.7)])
def test_a_start_is_where_it_says(start, spread):
    values, _ = BoundedNormal(2, start=start, spread=spread)(torch.zeros(50_000, 1, 1, 1), seeded_generator(1))
    normal = values.double().atanh()
    assert float(normal.detach().mean()) == pytest.approx(math.atanh(start), abs=4 * spread / math.sqrt(len(values)))
    assert float(normal.detach().std()) == pytest.approx(spread + MIN_SPREAD, rel=0.02)


@both_channels
def test_a_network_starts_at_nothing_and_then_tells_images_apart(channels):
    images = torch.cat((torch.zeros(1, channels, 8, 8), torch.ones(1, channels, 8, 8)))
    with torch.random.fork_rng(devices=[]):
        plain, depends = BoundedNormal(3), BoundedNormal(3, channels=channels)
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain(images, seeded_generator(2)), depends(images, seeded_generator(2)), strict=True)
    )
    depends.network[-1].weight.data.normal_(generator=torch.Generator().manual_seed(0))
    moved = depends(images, seeded_generator(2))[0] - plain(images, seeded_generator(2))[0]
    assert (moved[0] - moved[1]).abs().max() > 0.05


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_however_far_the_location_or_the_scale_the_numbers_stay(value):
    for name in ("location", "scale"):
        module = BoundedNormal(3)
        getattr(module, name).data.fill_(value)
        values, entropy = module(torch.zeros(100, 1, 1, 1), seeded_generator(0))
        assert values.abs().max() <= 1 and entropy.isfinite()
        if name == "location":
            assert (values == math.copysign(1, value)).all()
        gradients = torch.autograd.grad(values.sum() + entropy, [module.location, module.scale])
        assert all(gradient.isfinite().all() for gradient in gradients)


# ---- partners --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 3, 8, 65])
def test_partners_are_a_ring(batch):
    partner = random_partners(batch, seeded_generator(batch))
    place, seen = 0, []
    for _ in range(batch):
        seen.append(place)
        place = int(partner[place])
    assert place == 0 and sorted(seen) == list(range(batch))


def test_nobody_to_mix_with():
    with pytest.raises(RequestError, match=r"^a batch must hold at least two images to be mixed, got 1; use larger"):
        made("mix")(pixels(1), FILL[1], seeded_generator(0))


# ---- Affine ----------------------------------------------------------------------------------------


@both_channels
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 1), (32, 32)])
def test_no_change_is_the_identity(channels, size):
    images = pixels(3, channels, *size)
    torch.testing.assert_close(warp_affine(images, torch.zeros(3, 6), FILL[channels]), images, rtol=0, atol=1e-5)
    module = Affine(channels, linear=0.0, shift=0.0, conditional=False)
    torch.testing.assert_close(module(images, FILL[channels], seeded_generator(0)).images, images, rtol=0, atol=1e-5)


def test_an_affine_starts_near_the_identity():
    images = F.interpolate(pixels(64, 1, 4, 4), (16, 16), mode="bilinear")
    changed = made("affine")(images, FILL[1], seeded_generator(0))
    assert changed.parameters.abs().mean() < 0.1
    assert 0 < (changed.images - images).abs().mean() < 0.05


SHIFTS = [(across, down) for across in (-0.5, 0.0, 0.5) for down in (-0.25, 0.0, 0.75)]


@both_channels
@pytest.mark.parametrize(("across", "down"), SHIFTS)
def test_a_shift_moves_pixels_and_fills_what_comes_from_outside(channels, across, down):
    """In half sides: 0.5 of a width of 8 is 2 px. A place of the new image shows the old one further right, or down."""
    images, fill = pixels(2, channels, 16, 8), FILL[channels]
    change = torch.tensor([[0, 0, across, 0, 0, down]] * 2)
    right, below = round(across * 4), round(down * 8)
    expected = fill.view(-1, 1, 1).expand(channels, 16, 8).repeat(2, 1, 1, 1).clone()
    for y, x in itertools.product(range(16), range(8)):
        if 0 <= y + below < 16 and 0 <= x + right < 8:
            expected[:, :, y, x] = images[:, :, y + below, x + right]
    torch.testing.assert_close(warp_affine(images, change, fill), expected, rtol=0, atol=1e-5)


def test_a_learned_shift_is_that_share_of_its_bound():
    images = pixels(3, 1, 8, 8)
    module = Affine(1, linear=0.0, shift=0.5, conditional=False)
    fixed(module.drawn, [1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    drawn = module(images, FILL[1], seeded_generator(0))
    change = torch.tensor([[0, 0, 0.5, 0, 0, -0.5]] * 3)
    torch.testing.assert_close(drawn.images, warp_affine(images, change, FILL[1]), rtol=0, atol=1e-5)
    assert drawn.parameters.tolist() == [[1, 1, 1, -1, -1, -1]] * 3


@pytest.mark.parametrize(
    ("theta", "expected"),
    [
        ([-1, 0, 0, 0, 1, 0], lambda images: images.flip(3)),
        ([1, 0, 0, 0, -1, 0], lambda images: images.flip(2)),
        ([0, 1, 0, 1, 0, 0], lambda images: images.transpose(2, 3)),
        ([0, -1, 0, 1, 0, 0], lambda images: images.flip(3).transpose(2, 3)),
    ],
    ids=["mirrored", "upside down", "transposed", "a quarter turn"],
)
def test_stretches_and_shears(theta, expected):
    images = pixels(2, 3)
    change = torch.tensor([theta] * 2, dtype=torch.float32) - torch.tensor([1, 0, 0, 0, 1, 0.0])
    torch.testing.assert_close(warp_affine(images, change, FILL[3]), expected(images), rtol=0, atol=1e-5)


def test_halfway_between_pixels_is_their_mean():
    images = pixels(1, 1, 4, 4)
    half = warp_affine(images, torch.tensor([[0, 0, 0.25, 0, 0, 0]]), FILL[1])
    torch.testing.assert_close(half[..., :3], (images[..., :3] + images[..., 1:]) / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(half[..., 3], (images[..., 3] + FILL[1]) / 2, rtol=0, atol=1e-5)


def test_each_image_has_a_transform_of_its_own():
    images = pixels(1).expand(6, -1, -1, -1)
    changed = made("affine", moved=0.5)(images, FILL[1], seeded_generator(0)).images
    assert len({image.numpy().tobytes() for image in changed.detach()}) == 6


# ---- Color -----------------------------------------------------------------------------------------


def toned(image, values, reach):
    """(g ⊙ x - m)·c + m + b for one image (C, H, W), by numpy."""
    brightness, contrast, *gains = [reach * float(value) for value in values]
    lit = image.numpy().astype(np.float64).copy()
    for channel, gain in enumerate(gains):
        lit[channel] *= 2.0**gain
    return np.clip((lit - lit.mean()) * 4.0**contrast + lit.mean() + brightness, 0, 1)


@both_channels
@pytest.mark.parametrize("reach", [0.0, 0.3, 1.0])
def test_color_is_its_formula(channels, reach):
    module, images = Color(channels, reach=reach, conditional=False), pixels(8, channels)
    module.drawn.scale.data.fill_(1.0)
    drawn = module(images, FILL[channels], seeded_generator(0))
    expected = np.stack([toned(x, v, reach) for x, v in zip(images, drawn.parameters.tolist(), strict=True)])
    np.testing.assert_allclose(drawn.images.detach().numpy(), expected, rtol=0, atol=1e-6)
    assert torch.allclose(drawn.images, images, atol=1e-6) == (reach == 0)
    assert drawn.parameters.shape == (8, 2 if channels == 1 else 5)


@pytest.mark.parametrize("sign", [1, -1])
def test_color_at_its_bounds(sign):
    images = 0.4 + 0.2 * pixels(2, 1)
    module = Color(1, reach=0.5, conditional=False)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    fixed(module.drawn, [sign, 0.0])
    torch.testing.assert_close(
        module(images, FILL[1], seeded_generator(0)).images, (images + sign / 2).clamp(0, 1), **NEARLY
    )
    fixed(module.drawn, [0.0, sign])
    torch.testing.assert_close(
        module(images, FILL[1], seeded_generator(0)).images, (images - mean) * 2.0**sign + mean, **NEARLY
    )


NEARLY = {"rtol": 0, "atol": 0.01}
"""A number that is fixed still has the least spread, a thousandth."""


def test_a_gain_is_of_one_channel():
    images = 0.5 * pixels(2, 3)
    module = Color(3, reach=1.0, conditional=False)
    fixed(module.drawn, [0.0, 0.0, 1.0, 0.0, -1.0])
    changed = module(images, FILL[3], seeded_generator(0)).images
    factors = torch.tensor([2.0, 1.0, 0.5]).view(1, 3, 1, 1)
    torch.testing.assert_close(changed, (images * factors).clamp(0, 1), **NEARLY)
    assert module.names == ("brightness", "contrast", "red", "green", "blue")


# ---- Mix -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0.0, 0.3, 1.0])
@both_channels
def test_one_region_is_a_plain_mix(most, channels):
    module, images = Mix(channels, regions=1, most=most, conditional=False), pixels(6, channels)
    module.drawn.scale.data.fill_(2.0)
    drawn = module(images, FILL[channels], seeded_generator(0))
    share = (most / 2 * (1 + drawn.parameters)).view(-1, 1, 1, 1)
    expected = (1 - share) * images + share * images[drawn.partner]
    torch.testing.assert_close(drawn.images, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(drawn.weight, 1 - share.flatten(), rtol=0, atol=1e-6)
    assert share.max() <= most and (share.max() > share.min() or most == 0)


def test_a_region_for_each_pixel():
    """Then nothing is between regions, and the share is the pixel's own."""
    module, images = Mix(1, regions=4, most=0.8, conditional=False), pixels(5, 1, 4, 4)
    module.drawn.scale.data.fill_(2.0)
    drawn = module(images, FILL[1], seeded_generator(0))
    share = 0.4 * (1 + drawn.parameters.view(5, 1, 4, 4))
    torch.testing.assert_close(drawn.images, images + share * (images[drawn.partner] - images), rtol=0, atol=1e-6)
    assert module.names[1] == "row 0 column 1", "rows first"


def test_shares_are_smooth_between_regions():
    """Halfway between the centers of two regions the share is the mean of both."""
    module = Mix(1, regions=2, most=1.0, conditional=False)
    fixed(module.drawn, [-1.0, 1.0, -1.0, 1.0])
    images = torch.stack((torch.zeros(1, 8, 8), torch.ones(1, 8, 8)))
    share = module(images, FILL[1], seeded_generator(0)).images[0, 0]
    expected = torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]).expand(8, 8)
    torch.testing.assert_close(share, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("regions", [1, 2, 5, 7, 16])
def test_no_rounding_leaves_the_bounds(regions):
    """At the largest share of all, on black and white."""
    for height, width, seed in itertools.product((1, 6, 31), (5, 8, 23), range(3)):
        module = Mix(1, regions=regions, most=1.0, conditional=False)
        module.drawn.location.data.fill_(1e4)
        drawn = module(pixels(4, 1, height, width, seed).round(), FILL[1], seeded_generator(seed))
        assert ((drawn.images >= 0) & (drawn.images <= 1)).all()
        assert (drawn.weight == 0).all()


@pytest.mark.parametrize("regions", [1, 2, 3, 7])
def test_the_weight_is_the_share_of_the_pixels(regions):
    """Read off images of one color each."""
    module = Mix(1, regions=regions, most=0.7, conditional=False)
    module.drawn.scale.data.fill_(2.0)
    shades = torch.tensor([0.0, 0.2, 0.5, 0.6, 1.0])
    drawn = module(shades.view(-1, 1, 1, 1).expand(-1, 1, 6, 9), FILL[1], seeded_generator(0))
    expected = drawn.weight * shades + (1 - drawn.weight) * shades[drawn.partner]
    torch.testing.assert_close(drawn.images.mean(dim=(1, 2, 3)), expected, rtol=0, atol=1e-6)


def test_a_mix_starts_with_a_twentieth_of_its_largest_share():
    drawn = Mix(1, regions=4, most=0.8, conditional=False)(pixels(500), FILL[1], seeded_generator(0))
    assert float(1 - drawn.weight.mean()) == pytest.approx(0.8 / 20, rel=0.02)


def test_at_its_bounds_a_mix_is_the_image_or_the_largest_share():
    images = pixels(4)
    for value, weight in ((-1.0, 1.0), (1.0, 0.25)):
        module = Mix(1, regions=3, most=0.75, conditional=False)
        fixed(module.drawn, [value] * 9)
        drawn = module(images, FILL[1], seeded_generator(0))
        expected = weight * images + (1 - weight) * images[drawn.partner]
        torch.testing.assert_close(drawn.images, expected, rtol=0, atol=1e-5)


# ---- VAE -------------------------------------------------------------------------------------------


def spread_out(latent):
    """Posteriors of all kinds: means apart, deviations above and below 1."""
    last = latent.vae.encoder[-1]
    last.bias.data.copy_(
        torch.linspace(-2, 2, len(last.bias))[torch.randperm(len(last.bias), generator=seeded_generator(0))]
    )
    return latent


def reconstruction(vae, images, generator):
    """The VAE's own stochastic one."""
    mean, log_deviation = vae.encode(images)
    noise = torch.randn(mean.shape, generator=generator)
    return vae.decode(mean + log_deviation.exp() * noise, *images.shape[-2:])


@both_channels
def test_step_0_is_the_vaes_own_stochastic_reconstruction(channels):
    """With the same noise; ELU(v) + 1 rounds, so not to the last bit."""
    latent, images = spread_out(made("vae", channels)), pixels(6, channels)
    _, log_deviation = latent.vae.encode(images)
    assert (log_deviation < -0.5).any() and (log_deviation > 0.5).any()
    drawn = latent(images, FILL[channels], seeded_generator(3))
    torch.testing.assert_close(drawn.images, reconstruction(latent.vae, images, seeded_generator(3)), rtol=0, atol=1e-6)
    assert float(drawn.entropy.detach()) == pytest.approx(0, abs=1e-4)
    assert not drawn.parameters.any()
    other = latent(images, FILL[channels], seeded_generator(4)).images
    assert (other - drawn.images).abs().max() > 1e-3, "it is stochastic"


@given(st.sampled_from([0.01, 1.0, 100.0, 1e4]), st.integers(0, 1000))
@quick
def test_at_reach_0_it_stays_there_whatever_the_weights(moved, seed):
    latent = spread_out(Latent(1, latent=3, width=4, reach=0.0))
    for value in learnable(latent).values():
        value.data += moved * torch.randn(value.shape, generator=seeded_generator(seed))
    images = pixels(seed=seed)
    drawn = latent(images, FILL[1], seeded_generator(seed))
    torch.testing.assert_close(
        drawn.images, reconstruction(latent.vae, images, seeded_generator(seed)), rtol=0, atol=1e-6
    )
    gradients = torch.autograd.grad(drawn.images.sum() + drawn.entropy, list(learnable(latent).values()))
    assert not any(gradient.any() for gradient in gradients), "nor is there anything to learn"


def test_a_residual_moves_mean_and_deviation_by_its_formula():
    """z = q'_m + (ELU(q'_v) + 1)·ε, both moved by reach times the tanh of the residual."""
    latent, images = spread_out(Latent(1, latent=2, width=4, reach=0.5)), pixels(3)
    last = latent.residual[-1].bias
    last.data.copy_(torch.tensor([0.3, -2.0, 1.0, -0.4]))
    drawn = latent(images, FILL[1], seeded_generator(1))
    mean, log_deviation = (part.double().detach().numpy() for part in latent.vae.encode(images))
    moved = 0.5 * np.tanh(last.detach().double().numpy()).reshape(2, 1, 2, 1, 1)
    deviation = np.exp(log_deviation)
    raw = np.where(deviation < 1, np.log(deviation), deviation - 1) + moved[1]
    widened = np.where(raw < 0, np.exp(raw), raw + 1)
    noise = torch.randn(mean.shape, generator=seeded_generator(1)).double().numpy()
    made_of = torch.from_numpy(mean + moved[0] + widened * noise).float()
    torch.testing.assert_close(drawn.images, latent.vae.decode(made_of, 8, 8), rtol=0, atol=1e-5)
    entropy = np.minimum(np.log(widened / deviation), 0).sum(axis=(1, 2, 3)).mean()  # wider than the VAE does not count
    assert entropy < -0.1 and (widened > deviation).any()
    assert float(drawn.entropy.detach()) == pytest.approx(entropy, rel=1e-3)
    np.testing.assert_allclose(drawn.parameters, [moved.reshape(2, 2).mean(axis=1) / 0.5] * 3, rtol=1e-5)


def test_the_vae_itself_takes_no_gradient_and_is_none_of_what_was_learned():
    latent = made("vae")
    assert not any(value.requires_grad for value in latent.vae.parameters())
    assert all(name.startswith("residual.") for name in latent.learnable())
    latent(pixels(), FILL[1], seeded_generator(0)).images.sum().backward()
    assert all(value.grad is None for value in latent.vae.parameters())


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (7, 13), (8, 8), (9, 10)])
@both_channels
def test_a_vae_takes_images_of_any_size(size, channels):
    with torch.random.fork_rng(devices=[]):
        vae = Vae(channels, latent=3, width=4)
    mean, log_deviation = vae.encode(pixels(2, channels, *size))
    assert mean.shape == log_deviation.shape == (2, 3, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    images = vae.decode(mean, *size)
    assert images.shape == (2, channels, *size) and ((images >= 0) & (images <= 1)).all()


# ---- Chain -----------------------------------------------------------------------------------------


def test_a_chain_is_its_parts_one_after_another():
    chain, images, generator = made("chain", moved=0.2), pixels(5), seeded_generator(6)
    together = chain(images, FILL[1], seeded_generator(6))
    steps, shown = [], images
    for part in chain.parts:
        steps.append(part(shown, FILL[1], generator))
        shown = steps[-1].images
    assert torch.equal(together.images, shown)
    assert torch.equal(together.parameters, torch.cat([step.parameters for step in steps], dim=1))
    assert float(together.entropy.detach()) == pytest.approx(
        sum(float(step.entropy.detach()) for step in steps), rel=1e-6
    )
    assert torch.equal(together.partner, steps[2].partner) and torch.equal(together.weight, steps[2].weight)
    assert chain.names[:3] == ("color brightness", "color contrast", "affine of the image stretch x")
    assert len(chain.names) == 2 + 6 + 4


def test_a_chain_without_a_mix_mixes_nothing():
    drawn = made("chain that ends in a vae")(pixels(), FILL[1], seeded_generator(0))
    assert drawn.partner is None and drawn.weight is None
