"""Modules on batches: the policy of a genome, and its second view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spaces.augmentations import Augmentation, Predict, View
from spaces.core.errors import RequestError
from spaces.core.seeding import seeded_generator
from spaces.engine import apply
from spaces.operations.images import check_images, check_pixel_range
from spaces.policy.sampling import ParameterStream
from spaces.policy.scaled import AnyPolicy


class Transform(nn.Module):
    """Policy as a module on batches (B, C, H, W), with sampled operations for each image.

    Args:
        policy: Policy to apply.
        fill: Color of uncovered pixels, one integer from 0 to 255 per channel.
        seed: Integers that seed the random numbers; the global random state is not used.

    Example:
        >>> import torch
        >>> from spaces import Entry, Policy, Transform
        >>> transform = Transform(Policy((Entry("Rotate", 10, 5),)), fill=(0, 0, 0), seed=(7,))
        >>> transform(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(self, policy: AnyPolicy, *, fill: Sequence[int], seed: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.policy = policy
        self.fill = tuple(fill)
        self.draws = ParameterStream(policy, seeded_generator(*seed))

    def forward(self, images: Tensor) -> Tensor:
        """Augment a batch on any device; the mode of the module (`train`, `eval`) has no effect.

        Args:
            images: Images (B, C, H, W), uint8, or floating point in [0, 1].

        Returns:
            New images of the same shape and dtype.

        Raises:
            RequestError: The images have another shape, dtype or range.
        """
        if torch.compiler.is_compiling():  # the kernel is compiled by numba
            return torch.compiler.disable(self._changed)(images)  # type: ignore[no-any-return]  # untyped in torch
        return self._changed(images)

    def _changed(self, images: Tensor) -> Tensor:
        check_images(images, channels=len(self.fill))
        if self.policy.is_identity:
            check_pixel_range(images)
            return images.clone()
        return apply(images, self.draws.take(len(images)), self.fill).as_subclass(type(images))

    def extra_repr(self) -> str:
        """Return the active operations for `repr`."""
        return ", ".join(f"{op} {value:.1f}" for op, value in self.policy.strength().items() if value)


class SecondView(nn.Module):
    """Augmentation of a genome as a module that makes the second view of a batch, for the distillation loss alone.

    Args:
        augment: Augmentation; `augment.scored_by` names the network whose logits it needs.
        fill: Color of uncovered pixels, one integer from 0 to 255 per channel.
        seed: Integers that seed the random numbers; the global random state is not used.

    Example:
        >>> import torch
        >>> from spaces import SecondView
        >>> from spaces.augmentations import CutMix
        >>> view = SecondView(CutMix(), fill=(0,))(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
        >>> view.images.shape, view.weight.shape
        (torch.Size([4, 1, 8, 8]), torch.Size([4]))
    """

    def __init__(self, augment: Augmentation, *, fill: Sequence[int], seed: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.augment = augment
        self.fill = tuple(fill)
        self.generator = seeded_generator(*seed)

    def forward(self, images: Tensor, predict: Predict | None = None) -> View:
        """Make the second view of a batch.

        Args:
            images: Images (B, C, H, W), uint8. Never modified.
            predict: Function from uint8 images to the logits (B, K) of the network that `augment.scored_by` names.

        Raises:
            RequestError: The images are not a uint8 batch, or `predict` is missing.
        """
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self._view)(images, predict)  # type: ignore[no-any-return]  # untyped in torch
        return self._view(images, predict)

    def _view(self, images: Tensor, predict: Predict | None) -> View:
        check_images(images)
        if images.is_floating_point():
            raise RequestError("the images of a second view must be uint8", value=str(images.dtype))
        return self.augment(images, self.fill, self.generator, predict)

    def extra_repr(self) -> str:
        """Return the label of the augmentation for `repr`."""
        return self.augment.label
