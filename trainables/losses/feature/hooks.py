"""What the layers of a network give: which there are, which are worth comparing, and their outputs in a forward."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spaces.core.errors import RequestError

Shape = tuple[int, ...]
Hook = Callable[[nn.Module, Any, Any], None]
_SHOWN = 12


def trace(model: nn.Module, images: Tensor) -> dict[str, Shape]:
    """Name → shape without the batch of what each named module gives, in the order in which they finish.

    Only modules whose output is one floating-point tensor, its first dimension the batch, count; one that is called
    several times counts with its last call, and the network itself is left out. The forward runs in evaluation mode
    without gradients; the modules' modes and buffers are put back.

    Args:
        model: the network; it lives where `images` do.
        images: a small batch, (B, C, H, W) float.
    """
    return {name: _shape(output) for name, (output, _) in _outputs(model, images).items()}


def stages(model: nn.Module, images: Tensor) -> dict[str, Shape]:
    """Name → shape of the layers whose features are compared unless somebody chooses others, in order.

    - A network of maps (C, H, W): the last output of each resolution above 1×1.
    - A network of tokens (N, D): the last output of each shape.
    - Any other: the vectors (D,) that go into its last linear layer, or nothing if these are the images themselves.

    What a block computes on its way to another resolution or shape does not count. Of several names for one output
    the outermost is taken (`layer3`, not `layer3.2`). In a network of maps these are as high as they are wide, as the
    images are, so maps with the channels last are left out.

    Args:
        model: the network; it lives where `images` do.
        images: a small batch, (B, C, H, W) float with H = W.
    """
    images = images.contiguous()  # so that flattened ones are known by their memory
    outputs = _outputs(model, images)
    shapes = {name: _shape(output) for name, (output, _) in outputs.items()}
    modules = dict(model.named_modules())
    pools = {name for name in shapes if isinstance(modules[name], nn.AdaptiveAvgPool2d)}  # VGG's may even enlarge
    grids = {name: grid for name, shape in shapes.items() if name not in pools and (grid := _grid(shape))}
    if not grids:
        last = _last_hidden(modules, images, outputs)
    else:
        kind = len(shapes[list(grids)[-1]])  # 3 of maps, 2 of tokens; a transformer's patches are maps at first
        grids = {name: grid for name, grid in grids.items() if len(shapes[name]) == kind}
        on_the_way = _on_the_way(modules, shapes, grids, kind)
        last = list({grid: name for name, grid in grids.items() if name not in on_the_way}.values())
    chosen = {_outermost(outputs, name) for name in last}
    return {name: shapes[name] for name in shapes if name in chosen}


def check_layers(model: nn.Module, images: Tensor, layers: Sequence[str], role: str) -> dict[str, Shape]:
    """The shapes of `layers`, in their order.

    Args:
        model: the network; it lives where `images` do.
        images: a small batch, (B, C, H, W) float.
        layers: names of modules, as `model.named_modules()` has them.
        role: whose network it is, for the message.

    Raises:
        RequestError: there is no such module, or it does not give one tensor; the nearest name is told.
    """
    shapes = trace(model, images)
    names, modules = list(shapes), dict(model.named_modules())
    for name in layers:
        if name not in shapes:
            there = name and name in modules
            rule = f"the {role}'s layer {name!r} gives no" if there else f"the {role}'s network has no layer {name!r}"
            rule += " single tensor with the batch in front" if there else ""
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:_SHOWN])}{more}"
            raise RequestError(rule, hint=hint)
    return {name: shapes[name] for name in layers}


class Features:
    """What named layers of a network give while it is being recorded.

    The network carries hooks during a recording only, so at any other time it can be copied, saved and compiled as if
    there were none, and no output is kept.

    Args:
        model: the network.
        layers: names of its modules; `check_layers` says whether they are good.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        """Find the layers.

        Raises:
            AttributeError: there is no module of that name.
        """
        self._modules = {name: model.get_submodule(name) for name in layers}

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Fill the dictionary with name → output in each forward within the `with`; the last call of a layer counts.

        The outputs are neither copied nor detached: gradients flow through them. So what changes an output in place
        changes it here too: of a batch normalization before a `ReLU(inplace=True)` the activation is kept.
        """
        kept: dict[str, Tensor] = {}
        hooks = [module.register_forward_hook(_keeper(kept, name)) for name, module in self._modules.items()]
        try:
            yield kept
        finally:
            for hook in hooks:
                hook.remove()


Output = tuple[Tensor, int]
"""A module's output, and how often it had been changed in place when the module gave it."""


def _outputs(model: nn.Module, images: Tensor) -> dict[str, Output]:
    outputs: dict[str, Output] = {}
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if not is_lazy(buffer)
    ]
    hooks = [module.register_forward_hook(_tracer(outputs, name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer.resize_(before.shape).copy_(before))
    return {name: output for name, output in outputs.items() if output[0].shape[:1] == images.shape[:1]}


def _tracer(outputs: dict[str, Output], name: str) -> Hook:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        outputs.pop(name, None)  # the last call counts, and its place in the order
        if isinstance(output, Tensor) and output.is_floating_point():
            outputs[name] = output, 0 if output.is_inference() else output._version

    return hook


def _keeper(kept: dict[str, Tensor], name: str) -> Hook:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        kept[name] = output

    return hook


def _shape(output: Tensor) -> Shape:
    return tuple(output.shape[1:])


def _grid(shape: Shape) -> Shape | None:
    """The resolution of a map, the shape of tokens, or nothing."""
    if len(shape) == 3 and shape[1] == shape[2] > 1:
        return shape[1:]
    return shape if len(shape) == 2 and shape[0] > 1 else None


def _on_the_way(
    modules: dict[str, nn.Module], shapes: dict[str, Shape], grids: dict[str, Shape], kind: int
) -> set[str]:
    """The layers within a block that goes on to another resolution, or to another shape of tokens.

    A `nn.Sequential` is no such block, nor is a module of maps that goes through more than two resolutions: its own
    parts are the network's stages.
    """
    found: set[str] = set()
    for block, shape in shapes.items():
        if len(shape) != kind or type(modules[block]) is nn.Sequential:
            continue
        own = shape[1:] if kind == 3 else shape
        inner = {name: grid for name, grid in grids.items() if name.startswith(f"{block}.")}
        if kind == 2 or len({own, *inner.values()}) <= 2:
            found |= {name for name, grid in inner.items() if grid != own}
    return found


def _last_hidden(modules: dict[str, nn.Module], images: Tensor, outputs: dict[str, Output]) -> list[str]:
    """The last vectors before the last linear layer, unless they are the images."""
    names = list(outputs)
    linear = [index for index, name in enumerate(names) if isinstance(modules[name], nn.Linear)]
    vectors = [
        name
        for name in names[: linear[-1] if linear else 0]
        if outputs[name][0].dim() == 2 and outputs[name][0].data_ptr() != images.data_ptr()
    ]
    return vectors[-1:]


def _outermost(outputs: dict[str, Output], name: str) -> str:
    """The name with the fewest dots, and of these the first, of all that gave the very output of `name`."""
    output, version = outputs[name]
    alike = [other for other, (tensor, changes) in outputs.items() if tensor is output and changes == version]
    return min(alike, key=lambda other: other.count("."))
