"""The untrained classification models of torchvision, `torchvision:NAME`."""

from __future__ import annotations

from torch import nn

from spaces.core.errors import RequestError, unknown

PREFIX = "torchvision:"
FIXED = {"maxvit_t": 224}  # not an attribute of the model, unlike that of the vision transformers


def torchvision_model(name: str, *, classes: int, channels: int, size: int) -> nn.Module:
    """Build a model of torchvision for images of their own size.

    Args:
        name: Name in torchvision.
        classes: Number of classes.
        channels: Number of channels of the images.
        size: Side of the images, px.

    Raises:
        RequestError: The model does not exist, or needs other channels or another size.
    """
    from torchvision import models  # imported here because it takes a second

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    if channels != 3:
        hint = "choose a model without the prefix, or a factory of your own"
        raise RequestError(f"images for {PREFIX}{name} must have 3 channels", value=channels, hint=hint)
    # These two have auxiliary classifiers, and warn unless `init_weights` is given.
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    fixed = FIXED.get(name, getattr(model, "image_size", size))
    if fixed != size:
        hint = f"set data.size: {fixed}, or choose another model"
        raise RequestError(f"images for {PREFIX}{name} must have {fixed} px", value=size, hint=hint)
    return model
