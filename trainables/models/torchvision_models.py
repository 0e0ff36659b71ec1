"""The classification networks of torchvision, untrained: `torchvision:NAME`."""

from __future__ import annotations

from torch import nn

from spaces.core.errors import RequestError, unknown

PREFIX = "torchvision:"
FIXED = {"maxvit_t": 224}  # what the vision transformers say by themselves


def torchvision_model(name: str, *, classes: int, channels: int, size: int) -> nn.Module:
    """Build torchvision's `name`, which takes the images as they are, not enlarged.

    Raises:
        RequestError: there is no such network, or it takes images of other channels or of another size.
    """
    from torchvision import models  # takes a second, so only where it is asked for

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    if channels != 3:
        hint = "choose a model without the prefix, or a factory of your own"
        raise RequestError(f"{PREFIX}{name} takes images of 3 channels", value=channels, hint=hint)
    # These two have further classifiers in training, and warn unless they are told whether to draw weights slowly.
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    fixed = FIXED.get(name, getattr(model, "image_size", size))
    if fixed != size:
        hint = f"set data.size: {fixed}, or choose another model"
        raise RequestError(f"{PREFIX}{name} takes images of {fixed} px", value=size, hint=hint)
    return model
