"""Target domains: images of another origin to validate and to test on."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from spaces import Genome, RequestError
from trainables.data import DATA, TensorImages, load
from trainables.task import Task
from trainables.task import test_score as score_test
from trainables.training.recipe import Recipe

SIZE = 8
CLASSES = ("ant", "bee", "cow")


def write(root, count, classes=CLASSES, seed=0):
    """Write `count` random images of each class, in one folder per class."""
    random = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / name / f"{index:03}.png")
    return root


@pytest.fixture
def root(tmp_path):
    """The source: 6 images of each class to train and validate on, and 2 to test on."""
    for seed, (part, count) in enumerate((("train", 6), ("test", 2))):
        write(tmp_path / "source" / part, count, seed=seed)
    return tmp_path / "source"


@pytest.fixture
def read(root):
    return lambda **options: load("imagefolder", **{"root": root, "size": SIZE, "validation": 6} | options)


def pixels(images):
    """Each image's bytes with its label, in order."""
    batch, labels = next(images.batches(999))
    return [(image.numpy().tobytes(), int(label)) for image, label in zip(batch, labels, strict=True)]


def files(folder):
    """What `pixels` returns of all images of a folder of class folders."""
    found = []
    for label, name in enumerate(sorted(path.name for path in folder.iterdir())):
        for file in sorted((folder / name).rglob("*.png")):
            with Image.open(file) as image:
                found.append((torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().numpy().tobytes(), label))
    return found


# Scores ---------------------------------------------------------------------------------------------------------------


def test_a_target_is_scored_beside_the_domain():
    target = "mnist5k-shifted"
    data = load("mnist5k", train=40, validation=40, validation_from=target, test_from=target)
    task = Task("teacher", "mlp", data, Recipe(batch_size=20), 1, data.validation)
    weights = task.learner(Genome(), seed=0).model.state_dict()
    score = score_test(task, weights)
    assert score.keys() == {"accuracy", "loss", "in_domain_accuracy"}
    home = replace(task, data=load("mnist5k", train=40, validation=40))
    assert score_test(home, weights).keys() == {"accuracy", "loss"}
    assert score_test(home, weights)["accuracy"] == score["in_domain_accuracy"]


# Folders --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["val", "validation"])
def test_a_folder_with_parts(tmp_path, root, read, inner):
    write(tmp_path / "other" / inner, 4, seed=7)
    write(tmp_path / "other/test", 3, seed=8)
    other, plain = str(tmp_path / "other"), read()
    data = read(validation_from=other, test_from=other)
    assert pixels(data.train) == pixels(plain.train)
    assert len(data.validation) == 6 and set(pixels(data.validation)) <= set(files(tmp_path / "other" / inner))
    assert data.validation.labels.bincount().tolist() == [2, 2, 2]
    assert pixels(data.test) == files(tmp_path / "other/test") and pixels(data.in_domain) == files(root / "test")
    assert data.target_validation and pixels(data.full) == pixels(data.train)
    assert pixels(read(validation_from=other, validation=None).validation) == files(tmp_path / "other" / inner)


def test_either_part_may_stay_in_the_source(tmp_path, read):
    other, plain = write(tmp_path / "other", 4, seed=7), read()
    data = read(validation_from=str(other))
    assert set(pixels(data.validation)) <= set(files(other)) and data.in_domain is None
    assert pixels(data.test) == pixels(plain.test)
    data = read(test_from=str(other))
    assert pixels(data.test) == files(other) and pixels(data.in_domain) == pixels(plain.test)
    assert pixels(data.validation) == pixels(plain.validation) and not data.target_validation
    assert pixels(data.full) == pixels(plain.full)


def test_no_file_is_in_two_parts(tmp_path, root, read):
    (tmp_path / "link").symlink_to(root)
    plain = str(write(tmp_path / "plain", 3, seed=7))
    for options, parts in (
        ({"validation_from": plain, "test_from": plain}, "validation and test"),
        ({"validation_from": plain, "test_from": f"{plain}/../plain"}, "validation and test"),
        ({"validation_from": f"{root}/train"}, "train and validation"),
        ({"validation_from": f"{root}/test"}, "validation and test"),
        ({"test_from": f"{tmp_path}/link"}, "test and in_domain"),
        ({"test_from": f"{root}/train"}, "train and test"),
    ):
        with pytest.raises(RequestError, match=f"{parts} images must be different files, got .*png"):
            read(**options)


def test_the_home_folder_may_be_abbreviated(tmp_path, read, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "other/test", 3, seed=8)
    assert pixels(read(test_from="~/other").test) == files(tmp_path / "other/test")


def test_other_classes_are_refused(tmp_path, root, read):
    write(tmp_path / "other", 2, classes=("ant", "bee", "dog"))
    expected = r"other must have the classes that are trained on: ant, bee, cow, got 'ant, bee, dog'"
    with pytest.raises(RequestError, match=expected):
        read(test_from=str(tmp_path / "other"))
    (root / "train/ant/deep").mkdir()  # images may be anywhere below their class
    (root / "train/ant/000.png").rename(root / "train/ant/deep/000.png")
    with pytest.raises(RequestError, match=expected):
        read(test_from=str(tmp_path / "other"))
    write(tmp_path / "parts/train", 2)
    write(tmp_path / "parts/test", 2)
    with pytest.raises(RequestError, match=r"must have the classes .*, got 'test, train'"):
        read(validation_from=str(tmp_path / "parts"))


def test_validation_images_must_suffice(tmp_path, read):
    other = str(write(tmp_path / "other", 2))
    with pytest.raises(RequestError, match=r"data\.validation must be at most 6, the number of images, got 9"):
        read(validation_from=other, validation=9)
    write(tmp_path / "both/val", 1)
    write(tmp_path / "both/validation", 1)
    with pytest.raises(RequestError, match="only one of validation/ and val/"):
        read(validation_from=str(tmp_path / "both"))


def test_gray_images_have_no_folder(tmp_path):
    write(tmp_path / "other", 1, classes=[str(digit) for digit in range(10)])
    with pytest.raises(RequestError, match=r"data\.test_from must be a data set where digits is gray"):
        load("digits", test_from=str(tmp_path / "other"))


# Data sets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("name", ["mnist6k", "/nowhere/birds.v2", "./birds"])
def test_unknown_names_list_the_known_ones(part, name):
    with pytest.raises(RequestError, match=rf"data\.{part}_from must be a folder that exists or a data set: digits, "):
        load("digits", **{f"{part}_from": name})


def test_other_sizes_and_the_folder_set_by_name_are_refused():
    with pytest.raises(RequestError, match=r"data\.test_from must have the size of digits: 8, got 'mnist5k: 28'"):
        load("digits", test_from="mnist5k")
    with pytest.raises(RequestError, match=r"data\.validation_from must be the folder itself"):
        load("digits", validation_from="imagefolder")


def test_a_name_comes_before_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist5k-shifted").mkdir()
    assert len(load("mnist5k", test_from="mnist5k-shifted").test) == 2500


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "roletune_targets.py").write_text(
        "from dataclasses import replace\n"
        "from trainables.data import load\n"
        "def plain():\n    return replace(load('digits', validation=200), name='plain')\n"
        "def sized(size, train, validation):\n"
        "    return load('digits', train=train, validation=validation, size=size)\n"
        "def fewer():\n    data = load('digits')\n    return replace(data, classes=11)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "roletune_targets"
    sys.modules.pop("roletune_targets", None)


def test_a_factory_takes_what_it_has_arguments_for(package):
    """It need not take the source's settings; more validation images than requested are cut down."""
    data = load("digits", train=100, validation=50, validation_from=f"{package}:plain", test_from=f"{package}:plain")
    assert (len(data.train), len(data.validation), len(data.test)) == (100, 50, 597)
    assert data.name == "digits" and torch.equal(data.in_domain.images, data.test.images)
    assert len(load("digits", train=100, validation=50, validation_from=f"{package}:sized").validation) == 50
    with pytest.raises(RequestError, match=r"data\.test_from must have the classes of digits: 10, got .*fewer: 11"):
        load("digits", test_from=f"{package}:fewer")


def test_a_target_may_have_fewer_images_than_are_trained_on(monkeypatch):
    def read(options):
        pool, rows = DATA["mnist5k"].read(options), 8 * torch.arange(300)
        return replace(pool, train=pool.train.subset(rows), test=pool.test.subset(rows))

    small = replace(DATA["mnist5k"], name="small", images=(300, 300), read=read)
    monkeypatch.setattr("trainables.data.loading.DATA", {**DATA, "small": small})
    data = load("mnist5k", train=2000, validation=100, validation_from="small", test_from="small")
    assert (len(data.train), len(data.validation), len(data.test), len(data.in_domain)) == (2000, 100, 300, 2500)
    assert len(load("mnist5k", train=2000, validation_from="small").validation) == 30  # a tenth
    assert len(load("mnist5k", validation=500, test_from="small").test) == 300
    with pytest.raises(RequestError, match="must together have at most 300 images"):
        load("mnist5k", validation=500, validation_from="small")


# What a data set knows of its parts -----------------------------------------------------------------------------------


def test_in_domain_images_are_checked_and_moved():
    data = load("mnist5k", train=100, validation=50, test_from="mnist5k-shifted")
    moved = data.to("meta")
    assert {part.images.device.type for part in (moved.train, moved.test, moved.in_domain)} == {"meta"}
    with pytest.raises(RequestError, match=r"in_domain labels of data set 'mnist5k' must be in 0 … 9"):
        replace(data, in_domain=TensorImages(data.in_domain.images, data.in_domain.labels + 1))
