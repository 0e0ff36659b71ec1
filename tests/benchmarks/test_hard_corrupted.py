"""The benchmark `hard_corrupted`: its corruptions, its images and its statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.methods import hard_corrupted
from results.analysis.statistics import holm
from spaces.core.seeding import seeded_generator
from trainables.data import TensorImages


def test_corruptions_change_the_pixels_alone_and_always_in_the_same_way():
    for setting, channels in zip(hard_corrupted.SETTINGS.values(), (1, 3), strict=True):
        pixels = torch.randint(256, (7, channels, 8, 8), generator=seeded_generator(0), dtype=torch.uint8)
        images, before = TensorImages(pixels, torch.arange(7)), pixels.clone()
        found, again = (hard_corrupted.corrupt(images, setting) for _ in range(2))
        assert tuple(found) == hard_corrupted.CORRUPTIONS and torch.equal(pixels, before)
        for name, copy in found.items():
            assert copy.images.shape == pixels.shape and copy.images.dtype == torch.uint8
            assert torch.equal(copy.labels, images.labels) and torch.equal(copy.images, again[name].images)
            assert not (copy.images == pixels).flatten(1).all(1).any(), f"{name} leaves no image as it is"


def test_corruptions_are_what_they_are_called():
    flat = torch.full((40, 1, 9, 9), 51, dtype=torch.uint8)
    point = torch.zeros(40, 1, 9, 9, dtype=torch.uint8)
    point[:, :, 4, 2] = 255
    images = TensorImages(torch.cat((flat, point)), torch.zeros(80, dtype=torch.int64))
    found = hard_corrupted.corrupt(images, hard_corrupted.SETTINGS["digits"])
    flats, points = ({name: copy.images[part] for name, copy in found.items()} for part in (slice(40), slice(40, 80)))
    for name in ("blur", "contrast"):
        assert torch.equal(flats[name], flat), f"{name} keeps the mean"
    assert abs(flats["noise"].float().mean() / 255 - 0.2) < 0.05, "clipped at 0, so a little brighter"
    places = {tuple(place) for place in (points["translation"] == 255).nonzero()[:, 2:].tolist()}
    assert places == {(3, 2), (5, 2), (4, 1), (4, 3)} and (points["translation"] > 0).flatten(1).sum(1).eq(1).all()
    turned = points["rotation"].float()[:, 0]
    rows = (turned.sum(2) * torch.arange(9)).sum(1) / turned.sum((1, 2)) - 4
    expected = 2 * np.sin(np.radians(hard_corrupted.ANGLE))
    assert set(rows.sign().tolist()) == {-1.0, 1.0} and (rows.abs() - expected).abs().max() < 0.2
    assert points["blur"].max() == points["blur"][0, 0, 4, 2] < 128 and abs(int(points["blur"][0].sum()) - 255) <= 12
    assert (points["contrast"].float().mean((1, 2, 3)) - 255 / 81).abs().max() < 1


def test_every_part_is_painted_over_columns_of_its_own(monkeypatch):
    codes, width = {"train": 10, "validation": 100, "test": 200}, 640
    photo = np.zeros((427, width, 3), dtype=np.uint8)
    for part, (first, end) in hard_corrupted.COLUMNS.items():
        photo[:, round(first * width) : round(end * width)] = codes[part]
    photos = type("Photos", (), {"images": [photo, photo]})
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: photos)
    data = hard_corrupted.build_data("photographs", hard_corrupted.SETTINGS["photographs"], seed=0, copies=2)
    grounds = {part: getattr(data, part).images for part in codes}
    assert {part: len(images) for part, images in grounds.items()} == {"train": 1200, "validation": 100, "test": 597}
    for part, images in grounds.items():
        own = (images == codes[part]).all(1).float().mean((1, 2))
        assert own.min() > 0.05, f"some of every {part} image is bare, and from {part}'s columns"
        bare = hard_corrupted.photo_squares(hard_corrupted.COLUMNS[part], 400, seeded_generator(1))
        assert bare.shape == (400, 3, 16, 16) and (255 * bare).round().unique().tolist() == [codes[part]]


def test_a_painted_digit_stands_out_in_every_channel():
    ground = torch.rand(200, 3, 1, 1, generator=seeded_generator(0)).expand(200, 3, 16, 16)
    painted = hard_corrupted.paint(ground, torch.ones(200, 1, 8, 8), seeded_generator(1))
    assert float((painted - ground).abs().min()) > 0.299 and painted.min() >= 0 and painted.max() <= 1
    assert torch.equal(hard_corrupted.paint(ground, torch.zeros(200, 1, 8, 8), seeded_generator(1)), ground)


def test_a_gain_is_ours_minus_theirs_and_its_p_is_corrected_within_its_family(required_keys):
    changes = {"kd": 0.0, "trivialaugment": 0.05, "vae": 0.01, **dict.fromkeys(hard_corrupted.HARD, 0.1)}
    changes["hard_mix"] = -0.1
    wobble = {arm: 0.001 * np.cos(np.arange(5) * (place + 1)) for place, arm in enumerate(changes)}
    seeds = {arm: [0.5 + float(change + one) for one in wobble[arm]] for arm, change in changes.items()}
    rows = [
        {"set": name, "arm": arm, "clean_by_seed": by_seed, "corrupted_by_seed": [value / 2 for value in by_seed]}
        for name in hard_corrupted.SETTINGS
        for arm, by_seed in seeds.items()
    ]
    summary = hard_corrupted.summarize([*rows, {"set": "digits", "arm": "teacher", "clean": 1.0}])
    assert required_keys["hard_corrupted"] <= set(summary) and len(summary) == 2 * (5 * 3 + 2) * 2
    assert summary["digits_hard_affine_minus_kd_clean"] == pytest.approx(0.1, abs=0.002)
    assert summary["photographs_hard_mix_minus_kd_corrupted"] == pytest.approx(-0.05, abs=0.001)
    assert summary["digits_hard_affine_minus_trivialaugment_corrupted"] == pytest.approx(0.025, abs=0.001)
    assert summary["digits_hard_vae_minus_vae_clean"] == pytest.approx(0.09, abs=0.002)
    p = [stats.ttest_rel(seeds[arm], seeds["kd"]).pvalue for arm in hard_corrupted.HARD]
    found = [summary[f"p_digits_{arm}_minus_kd_clean"] for arm in hard_corrupted.HARD]
    assert found == pytest.approx(holm(p)) and max(found) < 0.001
    alone = stats.ttest_rel(seeds["hard_vae"], seeds["vae"]).pvalue
    assert summary["p_digits_hard_vae_minus_vae_clean"] == pytest.approx(alone)
