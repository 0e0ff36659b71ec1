"""Applying parameters to a batch: every path of the engine against one operation on one image at a time."""

import copy
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import FILLS, NAMES, WRONG_IMAGES, equal, parameters_of, pictures, random_genome

import spaces
from spaces import OPERATIONS, Parameters, RequestError, apply, sample
from spaces.core.seeding import seeded_generator
from spaces.engine import cpu, cpu_kernels, dense
from spaces.policy.sampling import NO_OPERATION

every_channels = pytest.mark.parametrize("channels", [1, 3])


def one_by_one(images, parameters, fill):
    """Every image on its own, through the operations in order."""
    color = torch.tensor(fill, dtype=torch.uint8)
    results = []
    for row in range(len(images)):
        image = images[row : row + 1]
        for place in range(2):
            index = parameters.operations[row, place].item()
            if index != NO_OPERATION:
                image = OPERATIONS[NAMES[index]](
                    image,
                    parameters.levels[row, place].reshape(1),
                    parameters.signs[row, place].reshape(1),
                    parameters.positions[row, place].reshape(1, 2),
                    color,
                )
        results.append(image)
    return torch.cat(results)


@every_channels
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_equals_each_image_alone_in_order(channels, seed):
    images = pictures(160, channels)
    parameters = sample(random_genome(seed, probability=10).policy, 160, seeded_generator(seed))
    assert set(parameters.operations.flatten().tolist()) == {NO_OPERATION, *range(15)}
    assert torch.equal(apply(images, parameters, FILLS[channels]), one_by_one(images, parameters, FILLS[channels]))


@every_channels
def test_a_batch_of_one_equals_the_image_among_many(channels):
    images = pictures(60, channels)
    parameters = sample(random_genome(5, probability=10).policy, 60, seeded_generator(5))
    together = apply(images, parameters, FILLS[channels])
    for row in range(60):
        here = slice(row, row + 1)
        alone = Parameters(
            parameters.operations[here], parameters.levels[here], parameters.signs[here], parameters.positions[here]
        )
        assert torch.equal(apply(images[here], alone, FILLS[channels]), together[here])


def test_column_0_is_applied_first():
    """Posterize at level 9 keeps the highest bit; 100 → 0 → 255 or 100 → 155 → 128."""
    images = torch.full((3, 1, 2, 2), 100, dtype=torch.uint8)
    parameters = parameters_of(("Posterize", "Invert"), ("Invert", "Posterize"), (None, None), level=9)
    assert apply(images, parameters, (0,))[:, 0, 0, 0].tolist() == [255, 128, 100]


def test_either_place_alone():
    images = pictures(4, 3)
    result = apply(
        images, parameters_of(("Invert", None), (None, "Invert"), ("Invert", "Invert"), (None, None)), (0, 0, 0)
    )
    assert torch.equal(result, torch.stack([255 - images[0], 255 - images[1], images[2], images[3]]))


def test_uncovered_pixels_take_the_color():
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    result = apply(images, parameters_of(("Cutout", None), level=4), (7, 8, 9))
    assert result[0, :, 16, 16].tolist() == [7, 8, 9]
    assert (result[0].sum(dim=0) > 0).sum() == 64


@every_channels
def test_the_input_is_untouched_and_parameters_replay(channels):
    images = pictures(80, channels)
    before = images.clone()
    parameters = sample(random_genome(6, probability=10).policy, 80, seeded_generator(6))
    parameters_before = copy.deepcopy(parameters)
    first = apply(images, parameters, FILLS[channels])
    assert torch.equal(images, before)
    assert equal(parameters, parameters_before)
    assert (first.dtype, first.shape) == (torch.uint8, images.shape)
    assert torch.equal(apply(images, parameters, FILLS[channels]), first)
    first.zero_()
    assert torch.equal(images, before), "the result is a tensor of its own"


def test_nothing_to_apply_copies_the_images():
    images = pictures(3, 1)
    result = apply(images, parameters_of((None, None), (None, None), (None, None)), (0,))
    assert torch.equal(result, images)
    assert result is not images


@pytest.mark.parametrize(("images", "rule"), WRONG_IMAGES)
def test_images_that_apply_refuses(images, rule):
    with pytest.raises(RequestError, match=rule):
        apply(images, parameters_of(("Invert", None), (None, None)), (0, 0, 0))


@pytest.mark.parametrize("images", [1, 3, 50])
def test_parameters_for_another_number_of_images_are_refused(images):
    with pytest.raises(RequestError, match=f"^parameters must be for {images} images, got 2$"):
        apply(pictures(images, 3), parameters_of(("Invert", None), (None, None)), FILLS[3])


# ---- both paths, both kinds of images --------------------------------------------------------------


@every_channels
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (3, 3), (8, 8), (33, 17), (64, 48)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("engine", [cpu, dense], ids=["cpu", "dense"])
def test_every_pair_of_operations_equals_one_by_one(engine, size, channels):
    """All 16 × 16 pairs, none included, at random levels."""
    generator = torch.Generator().manual_seed(channels)
    operations = torch.cartesian_prod(torch.arange(-1, 15), torch.arange(-1, 15))
    batch = len(operations)
    levels = torch.randint(0, 10, (batch, 2), generator=generator)
    signs = torch.randint(0, 2, (batch, 2), generator=generator) * 2 - 1
    parameters = Parameters(operations, levels, signs, torch.rand(batch, 2, 2, generator=generator))
    images = pictures(batch, channels, *size)
    fill = torch.tensor(FILLS[channels], dtype=torch.uint8)
    assert torch.equal(engine.apply(images, parameters, fill), one_by_one(images, parameters, FILLS[channels]))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_number_of_threads_does_not_matter(threads):
    images, parameters = pictures(101, 3), sample(random_genome(2).policy, 101, seeded_generator(2))
    expected = apply(images, parameters, FILLS[3])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(apply(images, parameters, FILLS[3]), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_fork_of_a_process_that_used_threads_augments_too():
    """The threads of the parent are not there in a `DataLoader`'s worker: nothing may wait for them."""
    program = """
import torch
from torch.utils.data import DataLoader
from spaces import Entry, Policy, Transform

torch.set_num_threads(2)
transform = Transform(Policy((Entry("Invert", 10, 0), Entry("Rotate", 10, 9))), fill=(0,))
images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
transform(images)

def collate(rows):
    torch.set_num_threads(2)
    return transform(images)

print(sum(len(batch) for batch in DataLoader(range(4), collate_fn=collate, num_workers=1, batch_size=2)))
"""
    root = Path(spaces.__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.returncode) == ("128\n", 0), run.stderr


@pytest.mark.parametrize("layout", ["channels last", "every other pixel", "expanded"])
def test_the_memory_layout_does_not_matter(layout):
    images = pictures(40, 3)
    given = {
        "channels last": images.to(memory_format=torch.channels_last),
        "every other pixel": images.repeat_interleave(2, dim=3)[..., ::2],
        "expanded": images[:1].expand_as(images),
    }[layout]
    assert not given.is_contiguous()
    parameters = sample(random_genome(4, probability=10).policy, 40, seeded_generator(4))
    expected = apply(given.clone(memory_format=torch.contiguous_format), parameters, FILLS[3])
    assert torch.equal(apply(given, parameters, FILLS[3]), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@every_channels
def test_floating_point_images_are_the_bytes_that_they_round_to(channels, dtype):
    images = pictures(64, channels)
    parameters = sample(random_genome(3, probability=10).policy, 64, seeded_generator(3))
    result = apply((images.double() / 255).to(dtype), parameters, FILLS[channels])
    assert result.dtype == dtype
    expected = apply(images, parameters, FILLS[channels])
    assert torch.equal((result.double() * 255).round().byte(), expected), "no byte is lost"
    between = (images.double() / 255 + 0.4 / 255).clamp(0, 1).float()
    assert torch.equal(apply(between, parameters, FILLS[channels]), (expected / 255).float())


@pytest.mark.parametrize("value", [float("nan"), -0.01, 1.01, float("inf"), 255.0])
def test_pixels_outside_0_to_1_are_refused(value):
    images = torch.full((2, 1, 4, 4), 0.5)
    images[1, 0, 2, 3] = value
    with pytest.raises(RequestError, match="floating-point images must lie in"):
        apply(images, parameters_of(("Invert", None), (None, None)), (0,))
    with pytest.raises(RequestError, match="floating-point images must lie in"):
        batch = (torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), torch.zeros(2, 2))
        OPERATIONS["Invert"](images, *batch, torch.zeros(1, dtype=torch.uint8))


@pytest.mark.parametrize("fill", [(), (0, 0), (0, 0, 256), (0, 0, -1)])
def test_a_fill_that_is_no_color_is_refused(fill):
    with pytest.raises(RequestError, match=r"^a fill color must have 3 numbers from 0 to 255"):
        apply(pictures(1, 3), parameters_of(("Invert", None)), fill)


def test_the_dense_plan_depends_on_no_value():
    """It is traced with fake tensors, which have shapes and no values: a look at one would raise."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    dense.constants(13, 11, torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        parameters = Parameters(
            torch.zeros(5, 2, dtype=torch.int64),
            torch.zeros(5, 2, dtype=torch.int64),
            torch.ones(5, 2, dtype=torch.int64),
            torch.zeros(5, 2, 2),
        )
        images = torch.zeros(5, 3, 13, 11, dtype=torch.uint8)
        assert dense.apply(images, parameters, torch.zeros(3, dtype=torch.uint8)).shape == images.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_nothing_waits():
    images = pictures(64, 3).cuda()
    parameters = sample(random_genome(3).policy, 64, seeded_generator(3))
    apply(images, parameters, FILLS[3])
    torch.cuda.set_sync_debug_mode("error")
    try:
        apply(images, parameters, FILLS[3])
        apply(images.float() / 255, parameters, FILLS[3])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
def test_without_numba_the_dense_plan_serves_the_cpu():
    program = """
import sys
sys.modules["numba"] = None
import torch
from spaces import Entry, Policy, Transform
transform = Transform(Policy((Entry("Invert", 10, 0),)), fill=(0,))
print(transform(torch.zeros(64, 1, 2, 2, dtype=torch.uint8)).unique().tolist())
"""
    root = Path(spaces.__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.returncode) == ("[0, 255]\n", 0), run.stderr


def test_a_kernel_is_compiled_where_its_cache_cannot_be_kept():
    """A function without a file has no place for a cache, like a package in a folder that cannot be written to."""
    names = {}
    exec("def twice(value):\n    return 2 * value", names)
    assert cpu_kernels.compiled(names["twice"])(21) == 42


WRONG_PARAMETERS = {
    "operation too high": ("operations", 15),
    "operation far too high": ("operations", 10**9),
    "operation too low": ("operations", -2),
    "level too high": ("levels", 13),
    "level far too high": ("levels", 10**8),
    "level too low": ("levels", -1),
    "no sign": ("signs", 0),
    "position at the end": ("positions", 1.0),
    "position below": ("positions", -0.1),
    "no position": ("positions", float("nan")),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fault", WRONG_PARAMETERS)
def test_parameters_out_of_range_are_refused(fault, threads):
    """They come from wherever they were kept for a replay, and the kernel would read beyond its tables."""
    name, value = WRONG_PARAMETERS[fault]
    parameters = sample(random_genome(1, probability=10).policy, 64, seeded_generator(1))
    getattr(parameters, name)[37, 1] = value
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(RequestError, match=r"positions in .0, 1., for image 37, got"):
            apply(pictures(64, 3), parameters, FILLS[3])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["levels", "signs", "positions", "operations"])
def test_parameters_whose_parts_do_not_fit_are_refused(name):
    whole = sample(random_genome(1).policy, 8, seeded_generator(1))
    for wrong in (getattr(whole, name)[:, :1], getattr(whole, name).double(), getattr(whole, name)[:, 0, None, None]):
        with pytest.raises(RequestError, match=r"operations, levels and signs must be \(B, P\) int64"):
            apply(pictures(8, 3), replace(whole, **{name: wrong}), FILLS[3])


@pytest.mark.slow
def test_what_was_compiled_before_an_edit_elsewhere_is_not_met_again(tmp_path):
    """Another order of the operations, in another file than the kernels', must not meet the old kinds of theirs."""
    root = Path(spaces.__file__).parent
    shutil.copytree(root, tmp_path / "spaces", ignore=shutil.ignore_patterns("__pycache__"))
    program = """
import torch
from spaces import Parameters
from spaces.engine import cpu, dense
generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (60, 3, 9, 9), dtype=torch.uint8, generator=generator)
operations = torch.arange(60).remainder(15).view(60, 1)
parameters = Parameters(operations, operations % 10, torch.ones_like(operations), torch.rand(60, 1, 2))
fill = torch.zeros(3, dtype=torch.uint8)
print(torch.equal(cpu.apply(images, parameters, fill), dense.apply(images, parameters, fill)))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": True}
    assert subprocess.run([sys.executable, "-c", program], **run).stdout == "True\n"
    file = tmp_path / "spaces" / "operations" / "registry.py"
    text = file.read_text()
    line = '    _tonal("Invert", "255 - value; no level", uses_level=False),\n'
    assert line in text
    file.write_text(text.replace(line, "").replace("_IN_ORDER = (\n", "_IN_ORDER = (\n" + line))
    assert subprocess.run([sys.executable, "-c", program], **run).stdout == "True\n"
