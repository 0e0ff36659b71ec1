"""The optimizers equal PyTorch's bit for bit."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from trainables.training import optimizers

SETTINGS = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
    "Adam": {"weight_decay": 1e-2},
    "AdamW": {"weight_decay": 1e-2},
}


def trained(kind, settings, *, halt):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    optimizer = kind(model.parameters(), lr=0.05, **settings)
    inputs = torch.randn(6, 5)
    for step in range(6):
        if step == halt:
            state = deepcopy(optimizer.state_dict())
            optimizer = kind(model.parameters(), lr=1.0)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    return [value.detach() for value in model.parameters()], optimizer.state_dict()


@pytest.mark.parametrize("halt", [None, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_they_compute_what_pytorchs_do(name, halt):
    ours, state = trained(getattr(optimizers, name), SETTINGS[name], halt=halt)
    theirs, known = trained(getattr(torch.optim, name), SETTINGS[name], halt=None)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert state["param_groups"] == known["param_groups"] and state["state"].keys() == known["state"].keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_leaves_no_graph_and_the_mode_as_it_was(name):
    value = nn.Parameter(torch.ones(3))
    optimizer = getattr(optimizers, name)([value], lr=0.1)
    value.grad = torch.ones(3)
    optimizer.step()
    assert value.grad_fn is None and value.requires_grad and torch.is_grad_enabled()
