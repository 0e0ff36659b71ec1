"""Networks of few bits: weights and activations on 2ᵏ levels, in training and after it.

Source: DoReFa-Net (Zhou et al. 2016, https://arxiv.org/abs/1606.06160), its forward pass as the authors' released code
has it (https://github.com/tensorpack/tensorpack/tree/master/examples/DoReFa-Net); gradients are not quantized. With
Q(v) = round(v · n) / n and n = 2ᵏ − 1, which gradients pass as if it were not there:

- weights, k ≥ 2: 2 · Q(tanh w / (2 · max |tanh w|) + ½) − 1, the maximum over the layer. As in that code, the gradient
  goes through the maximum too (in equal shares, where several weights reach it).
- weights, k = 1: mean |w| over the layer, with the sign of w, and + for 0. The gradient passes as it is.
- activations: Q of what is clipped to [0, 1], by every layer from what it is given, for in a network of any make the
  activation may be a function. What is below 0 is lost, so the networks that this suits have a ReLU before each layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from spaces import RequestError
from spaces.core.errors import unknown

FULL = 32
"""As many bits as a float has: what is of as many is not quantized."""

CHOICES = (1, 2, 4, 8, FULL)
"""The bits that a weight or an activation can have."""

_ORIGINAL = ".parametrizations.weight.original"


@dataclass(frozen=True)
class Bits:
    """How many bits the weights and the activations of a network have.

    Args:
        weights: of 1, 2, 4, 8 and 32, which is full precision.
        activations: of the same; what a quantized layer is given.

    Raises:
        RequestError: another number.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    weights: int = FULL
    activations: int = FULL

    def __post_init__(self) -> None:
        """Refuse what there is no quantizer for."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value not in CHOICES:
                raise RequestError(f"bits.{field.name} is one of {', '.join(map(str, CHOICES))}", value=value)

    @property
    def is_full(self) -> bool:
        """Whether nothing is quantized."""
        return self.weights == self.activations == FULL

    def under(self, chosen: Mapping[str, int]) -> Bits:
        """These bits with what a genome has chosen.

        Raises:
            RequestError: it names what has no bits, or a number that is no choice.
        """
        names = [field.name for field in fields(self)]
        for name in chosen:
            if name not in names:
                raise unknown("setting of bits that a genome chooses", name, names)
        return replace(self, **chosen) if chosen else self


def quantize(model: nn.Module, bits: Bits) -> nn.Module:
    """Quantize the convolutions (1-d and 2-d) and linear layers of `model`, but for the first and the last.

    The first convolution (without any: the first linear layer) and the last linear layer (without any: the last
    convolution) stay full, in the order in which the model registers them; so does what is no layer of its own, such as
    the projections of `nn.MultiheadAttention`. Inputs are quantized where a layer is called: where a model takes a
    layer's weight and calls a function (as torchvision's Swin does), the weight alone is.

    Args:
        model: changed in place. Its parameters stay what they are, full numbers that an optimizer moves, under the name
            `….parametrizations.weight.original` where weights are quantized; a layer's `weight` is quantized.
        bits: how far; what is of 32 bits stays as it is.

    Returns:
        `model`.

    Raises:
        RequestError: there is no layer between the first and the last, or one whose weight is no plain parameter.
    """
    if bits.is_full:
        return model
    layers = _inner_layers(model)
    if not layers:
        rule = "a network of few bits has a convolution or linear layer between its first and its last, which stay full"
        raise RequestError(rule, value=type(model).__name__)
    for name, layer in layers.items():
        if not isinstance(layer._parameters.get("weight"), nn.Parameter):
            raise RequestError(f"the weight of {name} is a plain parameter", hint="quantize a model once, and first")
    for layer in layers.values():
        if bits.weights < FULL:
            parametrize.register_parametrization(layer, "weight", _Weights(bits.weights))
        if bits.activations < FULL:
            layer.register_forward_pre_hook(_Inputs(bits.activations))
    return model


def exported(model: nn.Module) -> dict[str, Tensor]:
    """The state of `model` under the names of the plain model, quantized weights as what they are in the forward pass.

    They have at most 2ᵏ values a layer. Activations are quantized by no weight: `low_bit(plain, Bits(32, activations))`
    with this state answers as `model` does in evaluation mode. Tensors that are not quantized are the model's own.
    """
    with torch.no_grad():
        return {
            name: tensor.detach() if layer is None else layer.weight.detach() for name, tensor, layer in _stored(model)
        }


def size_in_bits(model: nn.Module) -> int:
    """The bits that the parameters and floating buffers (such as batch normalization's statistics) of `model` take.

    A quantized weight takes k bits, and the scale of a layer of k = 1 another 32; every other number takes 32, whatever
    it is computed in. What modules share counts once, and in full if a full layer shares it. Whole numbers, such as
    batch normalization's count of batches, are of no use to a finished model and take none.
    """
    sizes: dict[int, int] = {}
    for _, tensor, layer in _stored(model):
        if tensor.is_floating_point():
            bits = FULL if layer is None else _bits(layer)
            size = bits * tensor.numel() + (FULL if bits == 1 else 0)
            sizes[id(tensor)] = max(size, sizes.get(id(tensor), 0))
    return sum(sizes.values())


def _inner_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that are quantized, each once."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
        and not isinstance(module, NonDynamicallyQuantizableLinear)  # whose forward attention never calls
    }
    linear = [name for name, module in found.items() if isinstance(module, nn.Linear)]
    convolutions = [name for name in found if name not in linear]
    full = {*(convolutions or linear)[:1], *(linear or convolutions)[-1:]}
    return {name: module for name, module in found.items() if name not in full}


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor, Any]]:
    """The model's state: plain name, tensor, and the layer whose `weight` is quantized from it, or None."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        owner = name.removesuffix(_ORIGINAL)
        layer = model.get_submodule(owner) if owner != name else None
        if layer is None or not _bits(layer):
            yield name, tensor, None
        else:
            yield f"{owner}.weight", tensor, layer


def _bits(layer: Any) -> int:
    """The bits of a parametrized weight; 0: it is parametrized otherwise."""
    quantizer = layer.parametrizations.weight[0]
    return quantizer.bits if isinstance(quantizer, _Weights) else 0


class _Weights(nn.Module):
    """A layer's weights on the levels of `bits` bits."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        if self.bits == 1:
            levels: Tensor = _Signs.apply(weight)
            return levels
        bent = weight.tanh()
        most = bent.abs().max()
        most = most + (most == 0)  # a layer of zeros stays finite
        return 2 * _levels(bent / (2 * most) + 0.5, self.bits) - 1

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


@dataclass(frozen=True)
class _Inputs:
    """Before a layer: its input on the levels of `bits` bits; the clip has no gradient at its ends."""

    bits: int

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return _levels(F.hardtanh(inputs[0], 0.0, 1.0), self.bits), *inputs[1:]


def _levels(values: Tensor, bits: int) -> Tensor:
    """Q of numbers in [0, 1]."""
    levels: Tensor = _Levels.apply(values, 2**bits - 1)
    return levels


class _Levels(torch.autograd.Function):
    """Rounding to `top` steps, which gradients pass; in one function, so that nothing is kept for them."""

    @staticmethod
    def forward(values: Tensor, top: int) -> Tensor:
        return values.mul(top).round_().div_(top)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None


class _Signs(torch.autograd.Function):
    """The mean magnitude with each number's sign, which gradients pass."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        mean = values.abs().mean()
        return torch.where(values >= 0, mean, -mean)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        return gradient
