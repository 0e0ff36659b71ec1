"""A genome's two parts as modules on batches: the policy, and the second view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spaces.augmentations import Answers, Augmentation, View
from spaces.core.errors import RequestError
from spaces.engine import apply
from spaces.operations.images import check_images, check_range
from spaces.policy.policy import Policy
from spaces.policy.sampling import Draws, seeded


class Transform(nn.Module):
    """A policy as a module: images (B, C, H, W) in, the same out, each image changed on its own.

    Args:
        policy: what is applied.
        fill: the color of uncovered pixels, one number from 0 to 255 per channel.
        seed: whole numbers that the random numbers follow from; the global random state is not touched.
    """

    def __init__(self, policy: Policy, *, fill: Sequence[int], seed: Sequence[int] = (0,)) -> None:
        """Make the module's own random generator."""
        super().__init__()
        self.policy = policy
        self.fill = tuple(fill)
        self.draws = Draws(policy, seeded(*seed))

    def forward(self, images: Tensor) -> Tensor:
        """Draw parameters for the batch and apply them; uint8, or floating point in [0, 1], on any device.

        Returns:
            a new tensor, also where nothing is changed; the module's mode (`train`, `eval`) has no say.
        """
        if torch.compiler.is_compiling():  # the kernel is compiled already, and by another compiler
            return torch.compiler.disable(self._changed)(images)  # type: ignore[no-any-return]  # untyped in torch
        return self._changed(images)

    def _changed(self, images: Tensor) -> Tensor:
        check_images(images, channels=len(self.fill))
        if self.policy.is_identity:
            check_range(images)
            return images.clone()
        return apply(images, self.draws.take(len(images)), self.fill).as_subclass(type(images))

    def extra_repr(self) -> str:
        """The operations in force, for `print`."""
        return ", ".join(f"{op} {value:.1f}" for op, value in self.policy.strength().items() if value)


class SecondView(nn.Module):
    """A genome's augmentation as a module: makes the view of a batch that only the teacher's answers are a target of.

    Args:
        augment: how the view is made; `augment.asks` says whose answers that takes.
        fill: the color of uncovered pixels, one number from 0 to 255 per channel.
        seed: whole numbers that the random numbers follow from; the global random state is not touched.
    """

    def __init__(self, augment: Augmentation, *, fill: Sequence[int], seed: Sequence[int] = (0,)) -> None:
        """Make the module's own random generator."""
        super().__init__()
        self.augment = augment
        self.fill = tuple(fill)
        self.generator = seeded(*seed)

    def forward(self, images: Tensor, answers: Answers | None = None) -> View:
        """The view of uint8 images (B, C, H, W).

        Args:
            images: left as they are.
            answers: uint8 images → logits (B, K), of the network that `augment.asks` names.

        Raises:
            RequestError: the images are no uint8 batch, or answers are needed.
        """
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self._view)(images, answers)  # type: ignore[no-any-return]  # untyped in torch
        return self._view(images, answers)

    def _view(self, images: Tensor, answers: Answers | None) -> View:
        check_images(images)
        if images.is_floating_point():
            raise RequestError("a second view is made of uint8 images", value=str(images.dtype))
        return self.augment(images, self.fill, self.generator, answers)

    def extra_repr(self) -> str:
        """What makes the view, for `print`."""
        return self.augment.label
