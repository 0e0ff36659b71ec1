"""The augmentation benchmark compares like with like."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.augmentation.augment import ratios
from benchmarks.augmentation.cases import FILL, Case, photographs
from benchmarks.augmentation.lean_pillow import operation_variants, two_operations
from benchmarks.augmentation.peers import peers
from benchmarks.augmentation.roletune_cpu import policies, two_operation_parameters
from spaces import OPERATIONS, Parameters, apply
from spaces.core.seeding import seeded_generator
from spaces.operations import LEVELS


@pytest.mark.parametrize("size", [32, 45])
def test_lean_pillow_returns_the_same_bytes(size):
    pixels = photographs(size, 1, seed=0)[0]
    image, batch = Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)[None]
    middle = torch.tensor([0.25, 0.75])
    draws = iter(lambda: float(middle[next(turn) % 2]), None)
    turn = iter(range(10**6))
    every = operation_variants(size, lambda: next(draws))
    assert set(every) == set(OPERATIONS)
    for index, name in enumerate(OPERATIONS):
        signs = (-1, 1) if OPERATIONS[name].signed else (1,)
        assert len(every[name]) == LEVELS * len(signs)
        for change, (level, sign) in zip(
            every[name], [(level, sign) for level in range(LEVELS) for sign in signs], strict=True
        ):
            what = Parameters(*(torch.tensor([[value]]) for value in (index, level, sign)), middle.view(1, 1, 2))
            ours = apply(batch, what, FILL)[0].permute(1, 2, 0).numpy()
            assert np.array_equal(np.asarray(change(image)), ours), (name, level, sign)


def test_lean_pillow_draws_two_operations():
    image = Image.fromarray(photographs(32, 1, seed=0)[0])
    augment = two_operations(32, seed=0)
    before = image.tobytes()
    assert len({augment(image).tobytes() for _ in range(50)}) > 40
    assert image.tobytes() == before, "the image is left as it is"


def test_ours_always_has_two_operations_and_every_one_at_every_level():
    found = torch.zeros(len(OPERATIONS), LEVELS)
    for policy in policies():
        parameters = two_operation_parameters(policy, 256, seeded_generator(0))
        assert len(parameters) == 256 and (parameters.operations >= 0).all()
        for place in range(2):
            pairs = parameters.operations[:, place], parameters.levels[:, place]
            found.index_put_(pairs, torch.tensor(1.0), accumulate=True)
    assert found.sum() == 10 * 256 * 2 and found.min() > 0
    assert float(found.std() / found.mean()) < 0.3, "about equally often"


def test_images_are_the_same_for_all_and_follow_from_the_seed():
    case = Case(32, 4, 12, seed=1)
    assert torch.equal(case.images[5], torch.from_numpy(case.arrays[5]).permute(2, 0, 1))
    assert np.array_equal(np.asarray(case.pil_images[5]), case.arrays[5])
    assert torch.equal(case.images, Case(32, 4, 12, seed=1).images)
    assert not torch.equal(case.images, Case(32, 4, 12, seed=2).images)
    assert [case.batch_slice(turn).start for turn in range(4)] == [0, 4, 8, 0]


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch, capsys):
    for package in ("kornia", "kornia.augmentation", "albumentations"):
        monkeypatch.setitem(sys.modules, package, None)
    names = [one.name for _ in range(2) for one in peers(Case(16, 2, 4, seed=0))]
    assert names and all(name.startswith(("Pillow", "torchvision")) for name in names)
    said = capsys.readouterr().out
    assert said.count("not installed") == 2 and "kornia" in said and "albumentations" in said


def test_ratios_grant_more_processes_to_what_goes_image_by_image():
    def row(name, threads, rate):
        return {"contestant": name, "threads": threads, "images_per_s": rate}

    kinds = {"us": "roletune", "pillow": "lean", "slow": "lean", "one": "peer", "batch": "peer", "less": "other"}
    rows = [row("us", 1, 80.0), row("us", 2, 120.0), row("pillow", 1, 10.0), row("slow", 1, 5.0)]
    rows += [row("one", 1, 8.0), row("batch", 1, 4.0), row("batch", 2, 30.0), row("less", 1, 1000.0)]
    singles = {"pillow", "slow", "one"}
    assert ratios(rows[0], rows, kinds, singles) == {"ratio_pillow": 8.0, "ratio_best_peer": 10.0}
    assert ratios(rows[1], rows, kinds, singles) == {"ratio_pillow": 6.0, "ratio_best_peer": 4.0}
