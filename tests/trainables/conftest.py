"""Shared fixtures: a toy data set, tasks on it, and custom networks."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

from spaces import Entry, Genome, Policy
from trainables import Recipe, Task, TrainedTeacher
from trainables.data import DataSet, TensorImages
from trainables.models import build_model

CLASSES, SIZE = 3, 8

RICH = Genome(
    Policy(
        (
            Entry("Rotate", 8, 6),
            Entry("Cutout", 7, 8),
            Entry("Posterize", 6, 5),
            Entry("Brightness", 5, 3),
            Entry("TranslateX", 9, 4),
            Entry("Rotate", 2, 9),
        )
    )
)
"""A genome that changes most images."""


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Use one thread, so that sums are always formed in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def known_stream():
    """Seed the default generator, so that no test depends on the draws of another."""
    torch.default_generator.manual_seed(20)


def stripes(count, channels, seed):
    """Build images with a bright band on noise, whose height is the class: linearly separable."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randperm(count, generator=draw) % CLASSES
    images = torch.randint(0, 90, (count, channels, SIZE, SIZE), generator=draw)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 1 + 2 * label : 3 + 2 * label] += 150
    return TensorImages(images.to(torch.uint8), labels)


@pytest.fixture
def make_data():
    """Return a function that builds a data set of stripes; keyword arguments replace its fields."""

    def make(train=48, channels=1, **changes):
        parts = {part: stripes(count, channels, seed) for seed, (part, count) in enumerate(_counts(train).items())}
        data = DataSet(
            name="stripes",
            classes=CLASSES,
            channels=channels,
            size=SIZE,
            mean=(0.25,) * channels,
            std=(0.2,) * channels,
            crop=1,
            flip=True,
            **parts,
        )
        return replace(data, **changes)

    return make


def _counts(train):
    return {"train": train, "validation": 24, "test": 30}


@pytest.fixture
def make_task(make_data):
    """Return a function that builds a task on stripes; a student's teacher has random weights."""

    def make(role="teacher", data=None, **changes):
        data = data or make_data()
        task = Task(role, "cnn", data, Recipe(lr=0.05, batch_size=16), epochs=4, validation=data.validation)
        if role == "student":
            shape = {"classes": data.classes, "channels": data.channels, "size": data.size}
            weights = build_model("resnet8", seed=77, **shape).state_dict()
            task = replace(task, teacher=TrainedTeacher("resnet8", weights))
        return replace(task, **changes)

    return make


@pytest.fixture
def rich():
    return RICH


class Dropping(nn.Module):
    """Batch normalization, dropout and a convolution: layers that differ between training and evaluation mode."""

    def __init__(self, classes, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.4))
        self.head = nn.Linear(8 * SIZE * SIZE, classes)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


class Spy(nn.Module):
    """Records every input and the modes of its modules."""

    def __init__(self, classes, channels):
        super().__init__()
        self.inner = Dropping(classes, channels)
        self.seen, self.modes = [], []

    def forward(self, x):
        self.seen.append(x)
        self.modes.append({module.training for module in self.modules()})
        return self.inner(x)


@pytest.fixture
def user_nets(monkeypatch):
    """Return an importable user module, to which tests add attributes."""
    module = ModuleType("roletune_user_nets")
    module.dropping, module.spy = Dropping, Spy
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def assert_same():
    """Return a function that checks that nested data are equal, tensors bit for bit."""

    def check(one, other):
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype and torch.equal(one, other)
        elif isinstance(one, dict):
            assert one.keys() == other.keys()
            for key in one:
                check(one[key], other[key])
        elif isinstance(one, list | tuple):
            assert len(one) == len(other)
            for left, right in zip(one, other, strict=True):
                check(left, right)
        else:
            assert one == other

    return check


@pytest.fixture
def through_file(tmp_path):
    """Return a function that saves a state and loads it with `weights_only=True`."""

    def round_trip(state):
        torch.save(state, tmp_path / "state.pt")
        return torch.load(tmp_path / "state.pt", weights_only=True)

    return round_trip


@pytest.fixture
def no_gpu_seeding(monkeypatch):
    """Fail on seeding the GPUs' global generators, which `torch.manual_seed` does even without a GPU."""

    def refuse(seed):
        raise AssertionError("the global generators of the GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    with pytest.raises(AssertionError), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
