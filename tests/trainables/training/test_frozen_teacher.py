"""A frozen teacher stays in evaluation mode and unchanged, whatever is called."""

import copy
import pickle

import pytest
import torch
from torch import nn

from trainables import FrozenTeacher


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3))


def in_parent(teacher):
    parent = nn.ModuleDict({"teacher": teacher, "student": nn.Linear(2, 2)})
    parent.train()
    assert parent["student"].training
    return parent["teacher"]


CALLS = {
    "nothing": lambda teacher: teacher,
    "train": lambda teacher: teacher.train(),
    "train true": lambda teacher: teacher.train(True),
    "eval, train": lambda teacher: teacher.eval().train(),
    "parent.train": in_parent,
    "to": lambda teacher: teacher.to(torch.float32).to(memory_format=torch.channels_last).train(),
    "deepcopy": lambda teacher: copy.deepcopy(teacher).train(),
    "deepcopy of parent": lambda teacher: in_parent(copy.deepcopy(nn.Sequential(teacher))[0]),
    "pickle": lambda teacher: pickle.loads(pickle.dumps(teacher)).train(),
    "load_state_dict": lambda teacher: (teacher.load_state_dict(teacher.state_dict()), teacher.train())[1],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_stays_frozen(model, call, assert_same):
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(model.state_dict())
    expected = model.eval()(images).detach()
    teacher = call(FrozenTeacher(model.train()))
    assert isinstance(teacher, FrozenTeacher) and not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    torch.testing.assert_close(teacher(images), expected)  # dropout would change it
    assert_same(teacher.model.state_dict(), before)  # batch statistics included


def test_an_unfrozen_copy_would_be_told_apart(model):
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = model[1].running_mean.clone()
    model.train()(images)
    assert not torch.equal(model[1].running_mean, before)


def test_takes_the_network_over(model):
    assert FrozenTeacher(model).model is model


def test_no_graph(model):
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    answer = FrozenTeacher(model)(images)
    assert answer.shape == (2, 3) and not answer.requires_grad


def test_an_optimizer_over_the_parent_leaves_it_alone(model, assert_same):
    parent = nn.ModuleList([FrozenTeacher(model), nn.Linear(3, 1)]).train()
    before, head = copy.deepcopy(model.state_dict()), parent[1].weight.clone()
    optimizer = torch.optim.SGD(parent.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        parent[1](parent[0](torch.rand(4, 1, 8, 8))).sum().backward()
        optimizer.step()
    assert_same(model.state_dict(), before)
    assert not torch.equal(parent[1].weight, head)
