"""The outputs of a network's layers: their names and shapes, the default choice, and their recording."""

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
_LISTED = 12


def trace(model: nn.Module, images: Tensor) -> dict[str, Shape]:
    """Return name → output shape, without the batch, of each named module, in the order in which they finish.

    Only modules whose output is one floating-point tensor with the batch in front are listed. A module that is called
    several times is listed with its last call, and the network itself is left out. The forward pass runs in evaluation
    mode without gradients; modes and buffers are restored.

    Args:
        model: Network on the device of `images`.
        images: A small batch, (B, C, H, W) float.

    Example:
        >>> trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.zeros(2, 1, 2, 2))
        {'0': (4,), '1': (3,)}
    """
    return {name: _shape(output) for name, (output, _) in _outputs(model, images).items()}


def stages(model: nn.Module, images: Tensor) -> dict[str, Shape]:
    """Return name → shape of the layers that are compared by default, in order.

    - In a network of maps (C, H, W): the last output at each resolution above 1×1.
    - In a network of tokens (N, D): the last output of each shape.
    - In any other: the vectors (D,) that enter its last linear layer, or nothing if these are the images themselves.

    Intermediate outputs of a block that ends at another resolution or shape are skipped. If one output has several
    names, the outermost is taken (`layer3`, not `layer3.2`). Images are assumed square, so maps that are not square,
    such as maps in channels-last order, are skipped.

    Args:
        model: Network on the device of `images`.
        images: A small batch, (B, C, H, W) float with H = W.

    Example:
        >>> from trainables.models import build_model
        >>> stages(build_model("resnet8", classes=3, channels=1, size=8, seed=0), torch.zeros(2, 1, 8, 8))
        {'layer1': (16, 8, 8), 'layer2': (32, 4, 4), 'layer3': (64, 2, 2)}
    """
    images = images.contiguous()  # so that a flattened view has the same address
    outputs = _outputs(model, images)
    shapes = {name: _shape(output) for name, (output, _) in outputs.items()}
    modules = dict(model.named_modules())
    pools = {name for name in shapes if isinstance(modules[name], nn.AdaptiveAvgPool2d)}  # VGG's may enlarge
    grids = {name: grid for name, shape in shapes.items() if name not in pools and (grid := _grid(shape))}
    if not grids:
        last = _last_hidden(modules, images, outputs)
    else:
        kind = len(shapes[list(grids)[-1]])  # 3 of maps, 2 of tokens; a transformer's patches are maps at first
        grids = {name: grid for name, grid in grids.items() if len(shapes[name]) == kind}
        intermediate = _intermediate(modules, shapes, grids, kind)
        last = list({grid: name for name, grid in grids.items() if name not in intermediate}.values())
    names = {_outermost(outputs, name) for name in last}
    return {name: shapes[name] for name in shapes if name in names}


def check_layers(model: nn.Module, images: Tensor, layers: Sequence[str], role: str) -> dict[str, Shape]:
    """Return the output shapes of `layers`.

    Args:
        model: Network on the device of `images`.
        images: A small batch, (B, C, H, W) float.
        layers: Names of modules, as in `model.named_modules()`.
        role: Role of the network, for the error message.

    Raises:
        RequestError: A module does not exist, or does not return one tensor; the hint names the nearest layer.
    """
    shapes = trace(model, images)
    names, modules = list(shapes), dict(model.named_modules())
    for name in layers:
        if name not in shapes:
            rule = f"the {role}'s network has no layer {name!r}"
            if name and name in modules:
                rule = f"the {role}'s layer {name!r} must return a single tensor with the batch in front"
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names[:_LISTED])}{more}"
            raise RequestError(rule, hint=hint)
    return {name: shapes[name] for name in layers}


class FeatureRecorder:
    """Record the outputs of named layers.

    The network has hooks during a recording only, so at any other time it can be copied, saved and compiled.

    Args:
        model: Network.
        layers: Names of its modules; `check_layers` validates them.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> recorder = FeatureRecorder(network, ["0"])
        >>> with recorder.recording() as features:
        ...     logits = network(torch.zeros(2, 1, 2, 2))
        >>> tuple(features["0"].shape)
        (2, 4)
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        """Find the layers.

        Raises:
            AttributeError: A module does not exist.
        """
        self._modules = {name: model.get_submodule(name) for name in layers}

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Yield a dictionary that each forward pass within the context fills with name → output of the last call.

        The outputs are neither copied nor detached, so gradients flow through them, and an in-place operation changes
        them: of a batch normalization before a `ReLU(inplace=True)` the activation is recorded.
        """
        outputs: dict[str, Tensor] = {}
        hooks = [module.register_forward_hook(_recorder(outputs, name)) for name, module in self._modules.items()]
        try:
            yield outputs
        finally:
            for hook in hooks:
                hook.remove()


Output = tuple[Tensor, int]
"""A module's output, and the number of in-place changes to it when the module returned."""


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
        outputs.pop(name, None)  # keep the last call, and its place in the order
        if isinstance(output, Tensor) and output.is_floating_point():
            outputs[name] = output, 0 if output.is_inference() else output._version

    return hook


def _recorder(outputs: dict[str, Tensor], name: str) -> Hook:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        outputs[name] = output

    return hook


def _shape(output: Tensor) -> Shape:
    return tuple(output.shape[1:])


def _grid(shape: Shape) -> Shape | None:
    """Return the resolution of a map or the shape of tokens; None for other outputs."""
    if len(shape) == 3 and shape[1] == shape[2] > 1:
        return shape[1:]
    return shape if len(shape) == 2 and shape[0] > 1 else None


def _intermediate(
    modules: dict[str, nn.Module], shapes: dict[str, Shape], grids: dict[str, Shape], kind: int
) -> set[str]:
    """Return the layers within a block that ends at another resolution, or at another shape of tokens.

    An `nn.Sequential` is no such block, and neither is a module with maps of more than two resolutions: its parts are
    the network's stages.
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
    """Return the last vectors before the last linear layer, unless they are the images."""
    names = list(outputs)
    linear = [index for index, name in enumerate(names) if isinstance(modules[name], nn.Linear)]
    vectors = [
        name
        for name in names[: linear[-1] if linear else 0]
        if outputs[name][0].dim() == 2 and outputs[name][0].data_ptr() != images.data_ptr()
    ]
    return vectors[-1:]


def _outermost(outputs: dict[str, Output], name: str) -> str:
    """Return the first name with the fewest dots among the modules that returned the same output as `name`."""
    output, version = outputs[name]
    same = [other for other, (tensor, changes) in outputs.items() if tensor is output and changes == version]
    return min(same, key=lambda other: other.count("."))
