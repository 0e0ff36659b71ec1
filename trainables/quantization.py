"""Quantization of weights and activations to k bits, in training and after it.

Source: DoReFa-Net (Zhou et al. 2016, https://arxiv.org/abs/1606.06160), with the forward pass of the authors' released
code (https://github.com/tensorpack/tensorpack/tree/master/examples/DoReFa-Net); gradients are not quantized. With
Q(v) = round(v · n) / n and n = 2ᵏ − 1, whose gradient is that of the identity (straight-through estimator):

- Weights, k ≥ 2: 2 · Q(tanh w / (2 · max |tanh w|) + ½) − 1, with the maximum over the layer. As in that code, the
  gradient flows through the maximum too (in equal shares if several weights reach it).
- Weights, k = 1: mean |w| over the layer, with the sign of w, and + for 0. The gradient is that of the identity.
- Activations: Q of the input clipped to [0, 1], at each quantized layer, since in an arbitrary network the activation
  may be a function call. Negative inputs are lost, so suitable networks have a ReLU before each layer.
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
"""Bits of a float: no quantization."""

CHOICES = (1, 2, 4, 8, FULL)
"""Numbers of bits that weights and activations can have."""

_NEGLIGIBLE = 1e-30
"""Layers with no larger weight are treated as zero: dividing by it would overflow the gradients' sums."""

_ORIGINAL = ".parametrizations.weight.original"


@dataclass(frozen=True)
class Bits:
    """Numbers of bits of a network's weights and activations.

    Args:
        weights: Bits of each weight: 1, 2, 4, 8 or 32, which is full precision.
        activations: Bits of each input of a quantized layer, from the same choices.

    Raises:
        RequestError: A number is not one of the choices.

    Example:
        >>> Bits(weights=2).is_full, Bits().is_full
        (False, True)
        >>> Bits(weights=2).override({"activations": 4})
        Bits(weights=2, activations=4)
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - pydantic reads it from the class

    weights: int = FULL
    activations: int = FULL

    def __post_init__(self) -> None:
        """Check the numbers."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value not in CHOICES:
                raise RequestError(f"bits.{field.name} must be one of {', '.join(map(str, CHOICES))}", value=value)

    @property
    def is_full(self) -> bool:
        """True if nothing is quantized."""
        return self.weights == self.activations == FULL

    def override(self, choices: Mapping[str, int]) -> Bits:
        """Return these bits with a genome's choices.

        Args:
            choices: Numbers of bits by name, `weights` or `activations`.

        Raises:
            RequestError: A name is unknown, or a number is not one of the choices.
        """
        names = [field.name for field in fields(self)]
        for name in choices:
            if name not in names:
                raise unknown("setting of bits that a genome chooses", name, names)
        return replace(self, **choices) if choices else self


def quantize(model: nn.Module, bits: Bits) -> nn.Module:
    """Quantize the convolutions (1-d and 2-d) and linear layers of `model`, except the first and the last.

    The first convolution (without any, the first linear layer) and the last linear layer (without any, the last
    convolution) stay in full precision, in the order in which the model registers them. Parameters outside such layers,
    such as the projections of `nn.MultiheadAttention`, stay in full precision too. Inputs are quantized where a layer
    is called; where a model passes a layer's weight to a function (as torchvision's Swin does), only the weight is.

    Args:
        model: Network, changed in place. Its parameters stay full-precision numbers that an optimizer updates, named
            `….parametrizations.weight.original` where weights are quantized; a layer's `weight` is quantized.
        bits: Numbers of bits; 32 leaves weights or activations unchanged.

    Returns:
        `model`.

    Raises:
        RequestError: There is no layer between the first and the last, or a layer's weight is no plain parameter.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = quantize(model, Bits(weights=2, activations=2))
        >>> len(model[2].weight.unique()) <= 4, len(model[0].weight.unique()) <= 4
        (True, False)
    """
    if bits.is_full:
        return model
    layers = _inner_layers(model)
    if not layers:
        rule = "a quantized network must have a convolution or linear layer between its first and its last"
        raise RequestError(rule, value=type(model).__name__)
    for name, layer in layers.items():
        if not isinstance(layer._parameters.get("weight"), nn.Parameter):
            raise RequestError(
                f"the weight of {name} must be a plain parameter", hint="quantize a model once, and first"
            )
    for layer in layers.values():
        if bits.weights < FULL:
            parametrize.register_parametrization(layer, "weight", _WeightQuantizer(bits.weights))
        if bits.activations < FULL:
            layer.register_forward_pre_hook(_InputQuantizer(bits.activations))
    return model


def exported_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of `model` under the names of the plain model, with weights quantized as in the forward pass.

    Quantized weights have at most 2ᵏ values per layer. Quantized activations are no part of a state:
    `quantize(plain, Bits(32, activations))` with this state answers as `model` does in evaluation mode. Tensors that
    are not quantized are the model's own, not copies.

    Example:
        >>> from torch import nn
        >>> model = quantize(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), Bits(weights=1))
        >>> list(exported_state(model))[:4], len(exported_state(model)["1.weight"].unique()) <= 2
        (['0.weight', '0.bias', '1.bias', '1.weight'], True)
    """
    with torch.no_grad():
        return {
            name: tensor.detach() if layer is None else layer.weight.detach() for name, tensor, layer in _stored(model)
        }


def size_in_bits(model: nn.Module) -> int:
    """Return the size of the parameters and floating-point buffers (such as batch statistics) of `model`, bits.

    A quantized weight takes k bits, and the scale of a layer with k = 1 another 32; every other number takes 32 in
    whatever type it is computed. Tensors shared by modules count once, and with 32 bits if one of the modules is not
    quantized. Integers, such as batch normalization's count of batches, are not needed in evaluation and count 0.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
        >>> size_in_bits(model), size_in_bits(quantize(model, Bits(weights=2)))
        (576, 456)
    """
    sizes: dict[int, int] = {}
    for _, tensor, layer in _stored(model):
        if tensor.is_floating_point():
            bits = FULL if layer is None else _bits(layer)
            size = bits * tensor.numel() + (FULL if bits == 1 else 0)
            sizes[id(tensor)] = max(size, sizes.get(id(tensor), 0))
    return sum(sizes.values())


def _inner_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers to quantize, each once, by name."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
        and not isinstance(module, NonDynamicallyQuantizableLinear)  # attention never calls its forward
    }
    linear = [name for name, module in found.items() if isinstance(module, nn.Linear)]
    convolutions = [name for name in found if name not in linear]
    full = {*(convolutions or linear)[:1], *(linear or convolutions)[-1:]}
    return {name: module for name, module in found.items() if name not in full}


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor, Any]]:
    """Yield the plain name, the tensor, and the layer whose `weight` is quantized from it, or None."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        owner = name.removesuffix(_ORIGINAL)
        layer = model.get_submodule(owner) if owner != name else None
        if layer is None or not _bits(layer):
            yield name, tensor, None
        else:
            yield f"{owner}.weight", tensor, layer


def _bits(layer: Any) -> int:
    """Return the bits of a quantized weight; 0 for another parametrization."""
    quantizer = layer.parametrizations.weight[0]
    return quantizer.bits if isinstance(quantizer, _WeightQuantizer) else 0


class _WeightQuantizer(nn.Module):
    """Parametrization of a layer's weights with `bits` bits."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        if self.bits == 1:
            levels: Tensor = _SignTimesMean.apply(weight)
            return levels
        squashed = weight.tanh()
        largest = squashed.abs().max()
        largest = torch.where(largest <= _NEGLIGIBLE, 1.0, largest)
        return 2 * _round_to_levels(squashed / (2 * largest) + 0.5, self.bits) - 1

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


@dataclass(frozen=True)
class _InputQuantizer:
    """Forward pre-hook that quantizes a layer's input; the clip has no gradient at its ends."""

    bits: int

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return _round_to_levels(F.hardtanh(inputs[0], 0.0, 1.0), self.bits), *inputs[1:]


def _round_to_levels(values: Tensor, bits: int) -> Tensor:
    """Apply Q to numbers in [0, 1]."""
    levels: Tensor = _Round.apply(values, 2**bits - 1)
    return levels


class _Round(torch.autograd.Function):
    """Rounding to multiples of 1 / `steps` with a straight-through gradient, in one function that saves no tensor."""

    @staticmethod
    def forward(values: Tensor, steps: int) -> Tensor:
        return values.mul(steps).round_().div_(steps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None


class _SignTimesMean(torch.autograd.Function):
    """The mean magnitude with each number's sign, with a straight-through gradient."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        mean = values.abs().mean()
        return torch.where(values >= 0, mean, -mean)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        return gradient
