"""mnist5k, Fashion-MNIST of a system package, and target domains to validate and test on."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from spaces import Genome, RequestError
from trainables.data import load
from trainables.data.mnist5k import LARGEST_SHIFT, shifted
from trainables.task import Task
from trainables.task import test_score as score_test
from trainables.training.recipe import Recipe

SHIFTED = "mnist5k-shifted"


def test_mnist5k_is_balanced_and_its_test_images_never_change():
    one, two = (load("mnist5k", train=100, validation=200, seed=seed) for seed in (0, 1))
    assert one.train.images.shape == (100, 1, 28, 28) and one.train.images.dtype == torch.uint8
    assert one.test.labels.bincount().tolist() == [250] * 10
    assert torch.equal(one.test.images, two.test.images) and not torch.equal(one.train.images, two.train.images)
    assert (one.crop, one.flip) == (0, False)
    pool = load("mnist5k", train=500, validation=2000)
    pixels = torch.cat([pool.train.images, pool.validation.images]).float() / 255
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((pool.mean[0], pool.std[0]), abs=1e-4)


def test_an_image_is_shifted_by_whole_pixels_up_to_the_largest_shift():
    images = torch.zeros(400, 1, 13, 13, dtype=torch.uint8)
    images[:, :, 6, 6] = 200
    moved = shifted(images, 3, torch.Generator().manual_seed(0))
    places = moved[:, 0].flatten(1).argmax(1)
    assert (moved.flatten(1).sum(1) == 200).all()
    down, right = places // 13 - 6, places % 13 - 6
    assert set(down.tolist()) == set(right.tolist()) == set(range(-3, 4))


def test_validation_images_of_the_target_are_those_that_are_held_out():
    plain = load("mnist5k", train=100, validation=200, seed=3)
    target = load("mnist5k", train=100, validation=200, seed=3, validation_from=SHIFTED, test_from=SHIFTED)
    assert torch.equal(target.train.images, plain.train.images)
    assert torch.equal(target.validation.labels, plain.validation.labels)
    assert torch.equal(target.in_domain.images, plain.test.images)
    assert torch.equal(target.test.labels, plain.test.labels) and not torch.equal(target.test.images, plain.test.images)
    for part, origin in ((target.validation, plain.validation), (target.test, plain.test)):
        centers = [center(images) for images in (part.images, origin.images)]
        assert (centers[0] - centers[1]).abs().max() <= LARGEST_SHIFT + 1
    alone = load("mnist5k", train=100, validation=200, seed=3, validation_from=SHIFTED)
    assert alone.in_domain is None and torch.equal(alone.test.images, plain.test.images)


def center(images):
    weights = images[:, 0].float()
    return (weights.sum(2) * torch.arange(28)).sum(1) / weights.sum((1, 2))


def test_a_target_is_scored_beside_the_domain():
    data = load("mnist5k", train=40, validation=40, validation_from=SHIFTED, test_from=SHIFTED)
    task = Task("teacher", "mlp", data, Recipe(batch_size=20), 1, data.validation)
    score = score_test(task, task.learner(Genome(), seed=0).model.state_dict())
    assert score.keys() == {"accuracy", "loss", "in_domain_accuracy"}
    plain = Task("teacher", "mlp", load("mnist5k", train=40, validation=40), Recipe(batch_size=20), 1)
    assert "in_domain_accuracy" not in score_test(plain, plain.learner(Genome(), seed=0).model.state_dict())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"validation_from": "mnist6k"}, "data.validation_from must be a folder that exists or a data set: "),
        ({"test_from": "digits"}, "data.test_from must have the size of mnist5k: 28"),
        ({"test_from": "cifar100"}, "must be in"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(options, rule, tmp_path):
    with pytest.raises(RequestError) as refused:
        load("mnist5k", root=tmp_path, train=40, validation=40, **options)
    assert rule in str(refused.value)


@pytest.fixture
def folders(tmp_path):
    """A source of two classes with train and test, and a target with validation and test."""

    def write(place, names=("cat", "dog"), count=4, value=0):
        for label, name in enumerate(names):
            (tmp_path / place / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (12, 12), (value + 40 * label + index,) * 3)
                image.save(tmp_path / place / name / f"{index}.png")

    for place in ("source/train", "source/test"):
        write(place)
    write("target/val", value=100, count=6)
    write("target/test", value=150, count=3)
    write("plain", value=200)
    write("other", names=("cat", "horse"))
    return tmp_path


def folder_set(folders, **options):
    return load("imagefolder", root=folders / "source", size=12, validation=2, seed=0, **options)


def test_a_folder_can_be_a_target(folders):
    data = folder_set(folders, validation_from=str(folders / "target"), test_from=str(folders / "target"))
    assert (len(data.validation), len(data.test), len(data.in_domain)) == (2, 6, 8)
    images, labels = next(iter(data.test.batches(6)))
    assert sorted((images[:, 0, 0, 0] - 150 - 40 * labels).tolist()) == [0, 0, 1, 1, 2, 2]
    plain = folder_set(folders, test_from=str(folders / "plain"))
    assert len(plain.test) == 8


def test_a_folder_of_other_classes_is_refused(folders):
    with pytest.raises(RequestError, match="must have the classes that are trained on: cat, dog, got 'cat, horse'"):
        folder_set(folders, test_from=str(folders / "other"))
    with pytest.raises(RequestError, match=r"data\.test_from must be a data set for gray images"):
        load("mnist5k", train=40, validation=40, test_from=str(folders / "plain"))


def test_one_folder_without_parts_is_not_both_validation_and_test(folders):
    with pytest.raises(RequestError, match=r"data\.validation_from and data\.test_from must not be the same images"):
        folder_set(folders, validation_from=str(folders / "plain"), test_from=str(folders / "plain"))


# ---- Fashion-MNIST of a system package -------------------------------------------------------------------------------


def idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "package"
    folder.mkdir()
    generator = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 40), ("t10k", 20)):
        images, labels = generator.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
        parts[part] = images, labels
    monkeypatch.setattr("trainables.data.torchvision_sets.DEBIAN_FASHION", folder)
    return folder, parts


def test_fashion_mnist_is_read_where_the_package_put_it(package, tmp_path):
    _, parts = package
    data = load("fashionmnist", root=tmp_path / "absent", train=20, validation=20)
    images, labels = parts["t10k"]
    assert np.array_equal(data.test.images[:, 0].numpy(), images) and data.test.labels.tolist() == labels.tolist()
    assert len(data.train) == len(data.validation) == 20


@pytest.mark.parametrize("damage", ["cut", "other magic", "no gzip", "missing", "other size"])
def test_damaged_files_of_the_package_are_refused(package, tmp_path, damage):
    folder, _ = package
    file = folder / "train-images-idx3-ubyte.gz"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "other magic":
        file.write_bytes(gzip.compress(b"\0\0\x0b\3" + bytes(12)))
    elif damage == "no gzip":
        file.write_bytes(b"text")
    elif damage == "missing":
        file.unlink()
    else:
        idx(file, np.zeros((40, 20, 20)))
    with pytest.raises(RequestError, match=r"the files of data set 'fashionmnist' in .* must be undamaged"):
        load("fashionmnist", root=tmp_path / "absent", train=20, validation=20)
