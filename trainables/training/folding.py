"""Batch normalizations folded into the convolutions before them, in a network that only answers.

In evaluation mode a batch normalization is y = γ (x − μ) / √(σ² + ε) + β with fixed numbers, so the convolution before
it can do its work, with W′ = W · γ / √(σ² + ε) and b′ = (b − μ) · γ / √(σ² + ε) + β (Jacob et al. 2018, section 3.2,
https://arxiv.org/abs/1712.05877). What the normalization gives is the same up to rounding; what the convolution gives
is that as well, and no longer its own output.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Node, Tracer

M = TypeVar("M", bound=nn.Module)


def fold(model: M) -> M:
    """Fold every batch normalization of `model` that alone sees what a convolution gives.

    Parameters and buffers stay what they are, under their names: the folded numbers are kept beside them, follow the
    network to another device or layout, and are formed anew when a state is loaded. A network that `torch.fx` cannot
    trace stays as it is, and so do pairs that are called by different modules, called twice, or carry hooks.

    Args:
        model: in evaluation mode, and to stay there; changed in place.

    Returns:
        `model`.
    """
    for convolution, norm in _pairs(model):
        convolution.__class__, norm.__class__ = _FOLDED[type(convolution)], _PASSING[type(norm)]
        convolution._norm = (norm,)  # in a tuple, so that it is no module of the convolution's
        for name, value in zip(("folded_weight", "folded_bias"), _numbers(convolution, norm), strict=True):
            convolution.register_buffer(name, value, persistent=False)
    model.register_load_state_dict_post_hook(_renew)  # type: ignore[no-untyped-call] # torch has not typed it
    return model


def unfold(model: M, layers: Iterable[str] | None = None) -> M:
    """Give the convolutions of `model` their own outputs back.

    Args:
        model: folded or not; changed in place.
        layers: names of modules, of which those that are no folded convolutions stay as they are; None: all.

    Returns:
        `model`.
    """
    for module in list(model.modules()) if layers is None else [model.get_submodule(name) for name in layers]:
        if isinstance(module, _Folded):
            (norm,) = module._norm
            module.__class__, norm.__class__ = type(module).__bases__[1], type(norm).__bases__[1]
            del module.folded_weight, module.folded_bias, module._norm
    return model


class _Folded(nn.Module):
    """A convolution that normalizes too."""

    folded_weight: Tensor
    folded_bias: Tensor
    _norm: tuple[nn.Module]
    _conv_forward: Any

    def forward(self, images: Tensor) -> Tensor:
        normalized: Tensor = self._conv_forward(images, self.folded_weight, self.folded_bias)
        return normalized


class _FoldedConv1d(_Folded, nn.Conv1d): ...


class _FoldedConv2d(_Folded, nn.Conv2d): ...


class _Passing(nn.Module):
    """A normalization that has been done already; a view, so that its output is not taken for the convolution's."""

    def forward(self, normalized: Tensor) -> Tensor:
        return normalized.view_as(normalized)


class _PassingNorm1d(_Passing, nn.BatchNorm1d): ...


class _PassingNorm2d(_Passing, nn.BatchNorm2d): ...


_FOLDED: dict[type, type[_Folded]] = {nn.Conv1d: _FoldedConv1d, nn.Conv2d: _FoldedConv2d}
_PASSING: dict[type, type[_Passing]] = {nn.BatchNorm1d: _PassingNorm1d, nn.BatchNorm2d: _PassingNorm2d}


@torch.no_grad()
def _numbers(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """W′ and b′."""
    factor = (norm.running_var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight
    bias = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = bias * factor if norm.bias is None else bias * factor + norm.bias
    weight = convolution.weight * factor.view(-1, *[1] * (convolution.weight.dim() - 1))
    return weight.to(convolution.weight.dtype), bias.to(convolution.weight.dtype)


def _renew(model: nn.Module, keys: Any) -> None:
    """After a state has been loaded."""
    del keys
    for module in model.modules():
        if isinstance(module, _Folded):
            module.folded_weight, module.folded_bias = _numbers(module, module._norm[0])


def _pairs(model: nn.Module) -> list[tuple[Any, nn.Module]]:
    """Each convolution whose output goes to one batch normalization, called by the same module, and nowhere else."""
    modules = dict(model.named_modules(remove_duplicate=False))
    nodes = _traced(model)
    called = [modules[str(node.target)] for node in nodes if node.op == "call_module"]
    taken = {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}  # whose weights are used
    pairs = []
    for node in nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        (user,) = node.users
        if user.op != "call_module" or user.args != (node,) or user.kwargs or _caller(user) != _caller(node):
            continue
        both = modules[str(node.target)], modules[str(user.target)]
        alone = all(called.count(module) == 1 and not _has_hooks(module) for module in both)
        if alone and not {str(node.target), str(user.target)} & taken and _fits(*both):
            pairs.append(both)
    return pairs


def _traced(model: nn.Module) -> list[Node]:
    """What the forward pass consists of; empty where that cannot be known."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    try:
        # A copy, for a network may keep what it is shown; with streams and warnings of its own.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
            return list(Tracer().trace(deepcopy(model, shared)).nodes)
    except Exception:  # whatever a user's own forward raises when it is shown no tensor
        return []


def _caller(node: Node) -> list[str]:
    """The modules around a call, outermost first."""
    return list(node.meta["nn_module_stack"])[:-1]


def _fits(convolution: Any, norm: Any) -> bool:
    """Whether both are of the plain kind, which no parametrization has changed, and their numbers are there."""
    if type(convolution) not in _FOLDED or type(norm) not in _PASSING or norm.running_mean is None:
        return False
    return "weight" in convolution._parameters and norm.num_features == convolution.out_channels


def _has_hooks(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)
