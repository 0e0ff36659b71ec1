"""Chain of augmentors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spaces.augmentors.base import Augmentor, AugmentorOutput


class Chain(Augmentor):
    """Augmentors applied one after another.

    Args:
        parts: At least two augmentors, of which at most one mixes images.
        labels: Label of each part, a prefix of its parameter names.
    """

    def __init__(self, parts: Sequence[Augmentor], labels: Sequence[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        pairs = zip(labels, parts, strict=True)
        self.names = tuple(f"{label} {name}" for label, part in pairs for name in part.names)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> AugmentorOutput:
        """Apply the parts in order."""
        steps: list[AugmentorOutput] = []
        for part in self.parts:
            drawn: AugmentorOutput = part(steps[-1].images if steps else images, fill, generator)
            steps.append(drawn)
        mix = next((step for step in steps if step.partner is not None), steps[0])
        return AugmentorOutput(
            steps[-1].images,
            torch.stack([step.entropy for step in steps]).sum(),
            torch.cat([step.parameters for step in steps], dim=1),
            mix.partner,
            mix.weight,
        )

    def learnable(self) -> dict[str, Tensor]:
        """Return a copy of the learned tensors of all parts by name."""
        learned: dict[str, Tensor] = {}
        for index, part in enumerate(self.parts):
            if isinstance(part, Augmentor):
                learned |= {f"parts.{index}.{name}": value for name, value in part.learnable().items()}
        return learned
