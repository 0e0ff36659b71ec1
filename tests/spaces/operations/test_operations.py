"""PBA's 15 operations: Pillow's own bytes, one image at a time, are the reference for every batch."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from support import WRONG_IMAGES

from spaces import Parameters
from spaces.core.errors import RequestError
from spaces.engine import cpu, dense
from spaces.operations import LEVELS, OPERATIONS, Operation
from spaces.operations.geometry import MATRICES, warp
from spaces.operations.images import check_images
from spaces.operations.tone import IMAGE_TABLES, LEVEL_TABLES, apply_tables
from spaces.policy.sampling import NO_OPERATION

PBA_ORDER = [
    "Rotate",
    "TranslateX",
    "TranslateY",
    "Brightness",
    "Color",
    "Invert",
    "Sharpness",
    "Posterize",
    "ShearX",
    "Solarize",
    "ShearY",
    "Equalize",
    "AutoContrast",
    "Cutout",
    "Contrast",
]
GEOMETRIC = ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"]
ENHANCERS = ["Brightness", "Color", "Contrast", "Sharpness"]
WITHOUT_LEVEL = ["AutoContrast", "Equalize", "Invert"]
FILLS = {1: (119,), 3: (125, 122, 113)}

every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
every_channels = pytest.mark.parametrize("channels", [1, 3])


# ---- the reference: PBA's operations in Pillow -----------------------------------------------------


def by_pillow(name, array, level, sign, position, fill):
    """(C, H, W) uint8 in and out."""
    channels = array.shape[0]
    image = Image.fromarray(array[0] if channels == 1 else array.transpose(1, 2, 0))
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    color = fill[0] if channels == 1 else fill
    changed = np.asarray(pillow_operation(name, image, level, sign, position, color))
    return changed[None] if channels == 1 else changed.transpose(2, 0, 1)


def pillow_operation(name, image, level, sign, position, fill):
    if name == "Rotate":
        return image.rotate(sign * int(level * 30 / 10), Image.Resampling.NEAREST, fillcolor=fill)
    if name in GEOMETRIC:
        slope = sign * (float(level) * 0.3 / 10)
        across, down = (sign * int(level * side / 32 + 0.5) for side in image.size)
        matrix = {
            "ShearX": (1, slope, 0, 0, 1, 0),
            "ShearY": (1, 0, 0, slope, 1, 0),
            "TranslateX": (1, 0, across, 0, 1, 0),
            "TranslateY": (1, 0, 0, 0, 1, down),
        }[name]
        return affine_by_pillow(image, matrix, fill)
    if name == "Cutout":
        return cutout_by_pillow(image, level, position, fill)
    if name == "Posterize":
        return ImageOps.posterize(image, 4 - int(level * 4 / 10))
    if name == "Solarize":
        return ImageOps.solarize(image, 256 - int(level * 256 / 10))
    if name in ENHANCERS:
        return getattr(ImageEnhance, name)(image).enhance(float(level) * 1.8 / 10 + 0.1)
    return getattr(ImageOps, name.lower())(image)


def affine_by_pillow(image, matrix, fill):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill)


def cutout_by_pillow(image, level, position, fill):
    side = int(2 * level * min(image.size) / 32 + 0.5)
    left = int(position[1] * image.width) - side // 2
    top = int(position[0] * image.height) - side // 2
    cut = image.copy()
    cut.paste(fill, (left, top, left + side, top + side))
    return cut


# ---- batches ---------------------------------------------------------------------------------------


def pictures(channels, height, width):
    """Images (N, C, H, W) of several kinds: noise, few values, constant, gradients, nearly constant."""
    generator = np.random.default_rng(channels * 10**6 + height * 10**3 + width)
    shape = (channels, height, width)
    rows, columns = np.mgrid[:height, :width]
    gradient = rows * 255 // max(height - 1, 1)
    slope = (rows + 2 * columns) * 255 // max(height + 2 * width - 3, 1)
    dot = np.full(shape, 7)
    dot[:, height // 2, width // 2] = 250
    kinds = [
        generator.integers(0, 256, shape),
        generator.integers(90, 131, shape),
        generator.normal(128, 30, shape).clip(0, 255),
        generator.choice([0, 255], shape),
        np.broadcast_to(np.array([0, 100, 255])[:channels, None, None], shape),
        np.broadcast_to(gradient, shape),
        np.stack([slope, 255 - slope, slope // 2 + 60])[:channels],
        dot,
    ]
    return torch.from_numpy(np.stack(kinds).astype(np.uint8))


def full_batch(images):
    """Every image at every level with both signs, each with its own position, and the fill."""
    grid = list(itertools.product(range(len(images)), range(LEVELS), (-1, 1)))
    which, levels, signs = torch.tensor(grid).unbind(1)
    positions = torch.rand(len(grid), 2, generator=torch.Generator().manual_seed(5))
    fill = torch.tensor(FILLS[images.shape[1]], dtype=torch.uint8)
    return images[which], levels, signs, positions, fill


def small_batch(channels, size=24, height=16, width=20):
    """Noise with levels, signs and positions all mixed."""
    generator = torch.Generator().manual_seed(channels)
    images = torch.randint(0, 256, (size, channels, height, width), dtype=torch.uint8, generator=generator)
    levels = torch.arange(size) % LEVELS
    signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
    positions = torch.rand(size, 2, generator=generator)
    return images, levels, signs, positions, torch.tensor(FILLS[channels], dtype=torch.uint8)


def by_engine(engine, operation, images, levels, signs, positions, fill):
    """The operation alone, in the first of two places."""
    number = list(OPERATIONS).index(operation.name)
    operations = torch.tensor([[number, NO_OPERATION]]).repeat(len(images), 1)
    twice = [part.unsqueeze(1).repeat(1, 2, *[1] * (part.ndim - 1)) for part in (levels, signs, positions)]
    return engine.apply(images, Parameters(operations, *twice), fill)


PATHS = {
    "operation": lambda operation, batch: operation(*batch),
    "cpu": lambda operation, batch: by_engine(cpu, operation, *batch),
    "dense": lambda operation, batch: by_engine(dense, operation, *batch),
}


def assert_pillows_bytes(operation, batch):
    """The definition, and both paths of the engine, against Pillow."""
    *samples, fill = batch
    reference = [
        by_pillow(operation.name, image.numpy(), level.item(), sign.item(), position.tolist(), tuple(fill.tolist()))
        for image, level, sign, position in zip(*samples, strict=True)
    ]
    for path, run in PATHS.items():
        differ = (run(operation, batch).numpy() != np.stack(reference)).any(axis=(1, 2, 3))
        where = [(int(i), f"L={samples[1][i]}", f"sign={samples[2][i]}") for i in np.flatnonzero(differ)[:5]]
        assert not where, f"{path}: {differ.sum()} of {len(differ)} images differ, first {where}"


@every_operation
@every_channels
@pytest.mark.parametrize(
    "size", [(8, 8), (32, 32), (33, 17), (17, 33), (1, 1), (2, 7), (3, 3)], ids=lambda s: f"{s[0]}x{s[1]}"
)
def test_same_bytes_as_pillow(operation, channels, size):
    assert_pillows_bytes(operation, full_batch(pictures(channels, *size)))


@every_operation
def test_same_bytes_as_pillow_on_a_large_image(operation):
    assert_pillows_bytes(operation, full_batch(pictures(3, 96, 128)[2:3]))


@pytest.mark.parametrize("size", [(32, 32), (33, 17)])
def test_warp_takes_any_matrix_that_turns_or_shears(size):
    generator = np.random.default_rng(0)
    matrices = generator.normal([1, 0, 0, 0, 1, 0], [0.3, 0.3, 6, 0.3, 0.3, 6], (200, 6))
    image = pictures(3, *size)[:1]
    ours = warp(image.expand(200, -1, -1, -1), torch.from_numpy(matrices), torch.tensor(FILLS[3], dtype=torch.uint8))
    original = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    for matrix, warped in zip(matrices, ours, strict=True):
        expected = np.asarray(affine_by_pillow(original, tuple(matrix), FILLS[3]))
        np.testing.assert_array_equal(warped.permute(1, 2, 0).numpy(), expected)


def test_an_image_too_wide_for_16_bit_coordinates():
    width = 40_000
    image = torch.arange(width).remainder(251).to(torch.uint8).expand(1, 1, 2, -1)
    batch = (image, torch.tensor([9]), torch.tensor([1]), torch.zeros(1, 2), torch.tensor([119]).byte())
    assert_pillows_bytes(OPERATIONS["TranslateX"], batch)


def test_blends_of_every_pair_of_values():
    """All values against 52 means for Contrast, and against every shade of gray for Color."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256)
    others = torch.arange(0, 256, 5, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 15, 256)
    assert_pillows_bytes(OPERATIONS["Contrast"], full_batch(torch.cat([ramp.expand(52, -1, -1, -1), others], dim=2)))
    red = ramp.expand(1, 1, 256, 256)
    blue = torch.full_like(red, 77)
    assert_pillows_bytes(OPERATIONS["Color"], full_batch(torch.cat([red, red.mT, blue], dim=1)))


# ---- one by one and together -----------------------------------------------------------------------


@every_operation
@every_channels
def test_a_batch_of_one_equals_the_image_among_many(operation, channels):
    *samples, fill = small_batch(channels)
    together = operation(*samples, fill)
    alone = [operation(*one, fill) for one in zip(*(s.split(1) for s in samples), strict=True)]
    assert torch.equal(torch.cat(alone), together)


@every_operation
@every_channels
def test_the_input_is_untouched_and_the_output_is_new(operation, channels):
    batch = small_batch(channels)
    before = [tensor.clone() for tensor in batch]
    result = operation(*batch)
    result_before = result.clone()
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))
    batch[0].fill_(3)
    assert torch.equal(result, result_before)
    assert (result.dtype, result.shape) == (torch.uint8, batch[0].shape)


@every_operation
@pytest.mark.parametrize("layout", ["channels last", "every other pixel", "expanded"])
def test_the_memory_layout_does_not_matter(operation, layout):
    images, *rest = small_batch(3)
    given = {
        "channels last": images.to(memory_format=torch.channels_last),
        "every other pixel": images.repeat_interleave(2, dim=3)[..., ::2],
        "expanded": images[:1].expand_as(images),
    }[layout]
    assert not given.is_contiguous()
    assert torch.equal(operation(given, *rest), operation(given.contiguous(), *rest))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_operation
@every_channels
def test_same_bytes_on_a_gpu(operation, channels):
    batch = full_batch(pictures(channels, 33, 17))
    on_device = operation(*(tensor.cuda() for tensor in batch))
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), operation(*batch))


# ---- what the levels and the flags say -------------------------------------------------------------


def at_level(operation, channels, level):
    images, levels, *rest = small_batch(channels)
    return images, operation(images, torch.full_like(levels, level), *rest)


@pytest.mark.parametrize("name", [*GEOMETRIC, "Solarize", "Cutout"])
@every_channels
def test_level_0_is_the_identity(name, channels):
    images, result = at_level(OPERATIONS[name], channels, 0)
    assert torch.equal(result, images)


@pytest.mark.parametrize("name", [*ENHANCERS, "Posterize"])
def test_level_0_of_posterize_and_the_enhancers_is_not_the_identity(name):
    images, result = at_level(OPERATIONS[name], 3, 0)
    assert not (result == images).flatten(1).all(dim=1).any()


@pytest.mark.parametrize("name", ENHANCERS)
@every_channels
def test_level_5_of_the_enhancers_is_the_identity(name, channels):
    images, result = at_level(OPERATIONS[name], channels, 5)
    assert torch.equal(result, images)


@pytest.mark.parametrize("level", range(LEVELS))
def test_color_leaves_gray_images_alone(level):
    images, result = at_level(OPERATIONS["Color"], 1, level)
    assert torch.equal(result, images)


def test_invert_twice_is_the_identity():
    images, *rest = small_batch(3)
    invert = OPERATIONS["Invert"]
    assert torch.equal(invert(invert(images, *rest), *rest), images)


@every_operation
def test_the_flags_say_what_matters(operation):
    images, levels, signs, positions, fill = small_batch(3, height=32, width=32)
    levels = levels.clamp(min=1)
    result = operation(images, levels, signs, positions, fill)
    other_levels = operation(images, levels % 9 + 1, signs, positions, fill)
    other_signs = operation(images, levels, -signs, positions, fill)
    other_positions = operation(images, levels, signs, (positions + 0.5) % 1, fill)
    assert (not torch.equal(result, other_levels)) == operation.uses_level
    assert (not torch.equal(result, other_signs)) == operation.signed
    assert (not torch.equal(result, other_positions)) == operation.positioned


# ---- cutout's pixels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "level", "position", "rows", "columns"),
    [
        (32, 32, 4, (0.5, 0.5), (12, 20), (12, 20)),  # side 8 about pixel (16, 16)
        (32, 32, 4, (0.0, 0.5), (0, 4), (12, 20)),  # clipped at the top
        (32, 32, 9, (0.99, 0.99), (22, 32), (22, 32)),  # side 18 about (31, 31), clipped below and right
        (32, 32, 0, (0.5, 0.5), (0, 0), (0, 0)),
        (8, 8, 6, (0.5, 0.25), (3, 6), (1, 4)),  # side 3 about (4, 2)
        (64, 16, 5, (0.5, 0.5), (30, 35), (6, 11)),  # side 5, of the smaller side, about (32, 8)
        (48, 80, 1, (0.1, 0.91), (3, 6), (71, 74)),  # side 3 about (4, 72)
    ],
)
@every_channels
def test_cutout_covers_exactly_these_pixels(height, width, level, position, rows, columns, channels):
    images = torch.randint(0, 100, (1, channels, height, width), dtype=torch.uint8)
    fill = torch.tensor(FILLS[channels], dtype=torch.uint8)
    result = OPERATIONS["Cutout"](images, torch.tensor([level]), torch.tensor([1]), torch.tensor([position]), fill)
    expected = images.clone()
    expected[:, :, slice(*rows), slice(*columns)] = fill.view(1, -1, 1, 1)
    assert torch.equal(result, expected)


# ---- the mapping -----------------------------------------------------------------------------------


def test_the_operations_are_pbas_in_pbas_order():
    assert list(OPERATIONS) == PBA_ORDER
    assert [operation.name for operation in OPERATIONS.values()] == PBA_ORDER
    assert LEVELS == 10


def test_the_operations_cannot_be_changed():
    with pytest.raises(TypeError):
        OPERATIONS["Rotate"] = OPERATIONS["Invert"]
    with pytest.raises(AttributeError):
        OPERATIONS["Rotate"].signed = False


def test_the_flags_are_these():
    assert [n for n, o in OPERATIONS.items() if o.signed] == [n for n in PBA_ORDER if n in GEOMETRIC]
    assert sorted(n for n, o in OPERATIONS.items() if not o.uses_level) == WITHOUT_LEVEL
    assert [n for n, o in OPERATIONS.items() if o.positioned] == ["Cutout"]


@every_operation
def test_an_operation_says_what_it_means_in_one_line(operation):
    assert operation.meaning and "\n" not in operation.meaning
    assert ("L" in operation.meaning) == operation.uses_level
    assert ("±" in operation.meaning) == operation.signed


@every_operation
def test_an_operation_can_be_pickled(operation):
    copy = pickle.loads(pickle.dumps(operation))
    batch = small_batch(3)
    assert isinstance(copy, Operation)
    assert torch.equal(copy(*batch), operation(*batch))


@every_operation
def test_the_family_tables_are_what_the_operations_apply(operation):
    """What a fusion builds on: a matrix or a table by name, and one application for each family."""
    images, levels, signs, positions, fill = small_batch(3)
    result = operation(images, levels, signs, positions, fill)
    if operation.name in MATRICES:
        matrices = MATRICES[operation.name](levels, signs, *images.shape[-2:])
        assert (matrices.dtype, matrices.shape) == (torch.float64, (len(images), 6))
        assert torch.equal(warp(images, matrices, fill), result)
    elif operation.name in IMAGE_TABLES:
        tables = IMAGE_TABLES[operation.name](images, levels)
        assert (tables.dtype, tables.shape) == (torch.uint8, (len(images), 3, 256))
        assert torch.equal(apply_tables(images, tables), result)
    elif operation.name in LEVEL_TABLES:
        tables = LEVEL_TABLES[operation.name](levels)
        assert (tables.dtype, tables.shape) == (torch.uint8, (len(images), 256))
        assert torch.equal(apply_tables(images, tables.unsqueeze(1).repeat(1, 3, 1)), result)
    else:
        assert operation.name in {"Color", "Sharpness", "Cutout"}


# ---- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "rule"), WRONG_IMAGES)
def test_images_that_are_refused(images, rule):
    with pytest.raises(RequestError, match=rule):
        check_images(images)
    with pytest.raises(RequestError, match=rule):
        OPERATIONS["Invert"](images, *small_batch(3)[1:])


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 1, 1), torch.zeros(5, 3, 2, 9)])
def test_images_that_are_accepted(images):
    assert check_images(images.byte()) is None
    assert check_images(images) is None


@pytest.mark.parametrize(
    ("position", "name", "wrong"),
    [
        (1, "levels", torch.zeros(24)),
        (1, "levels", torch.zeros(1, dtype=torch.int64)),
        (2, "signs", torch.ones(24, 1, dtype=torch.int64)),
        (3, "positions", torch.zeros(24)),
        (3, "positions", torch.zeros(24, 2, dtype=torch.float64)),
        (4, "fill", torch.zeros(1, dtype=torch.uint8)),
        (4, "fill", torch.zeros(3)),
    ],
)
def test_parameters_of_another_shape_or_dtype_are_refused(position, name, wrong):
    batch = list(small_batch(3))
    batch[position] = wrong
    with pytest.raises(RequestError, match=f"^{name} must be"):
        OPERATIONS["Rotate"](*batch)
