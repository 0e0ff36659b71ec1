"""A small vision transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929) for small images.

Its layers are plain `nn.Linear`s, so code that replaces or parametrizes weights, such as quantization, finds all of
them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.core.errors import RequestError


def vit(*, classes: int, channels: int, size: int) -> nn.Module:
    """Build a ViT of 2.7 M parameters with patches of 4×4 px, or of 2×2 px for images smaller than 16 px.

    Raises:
        RequestError: `size` is not a multiple of the patch size.

    Example:
        >>> tuple(vit(classes=3, channels=1, size=8)(torch.zeros(2, 1, 8, 8)).shape)
        (2, 3)
    """
    return ViT(size, 4 if size >= 16 else 2, classes=classes, channels=channels)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each with layer normalization before and a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the block, (B, N, width) → the same shape."""
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        query, key, value = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(nn.Module):
    """A vision transformer without a class token: the mean over the patches is normalized and classified.

    Args:
        size: Side of the images, px, a multiple of `patch`.
        patch: Side of a patch, px; the N = (size / patch)² tokens are in row order.
        width: Length of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        classes: Number of classes.
        channels: Number of channels of the images.
    """

    def __init__(
        self,
        size: int,
        patch: int,
        *,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        classes: int,
        channels: int,
    ) -> None:
        """Build the blocks, with linear weights and positions drawn from a normal distribution of deviation 0.02."""
        super().__init__()
        if size % patch:
            hint = f"set data.size: {max(patch, round(size / patch) * patch)}, or choose another model"
            raise RequestError(
                f"the size of images for vit must be a multiple of its patch, {patch} px", value=size, hint=hint
            )
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, (size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, channels, size, size) → (B, classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.fc(self.norm(self.blocks(tokens).mean(dim=1)))
        return logits
