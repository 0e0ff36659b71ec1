"""A small convolutional VAE, and an augmentor that moves its posterior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.augmentors.base import Augmentor, Drawn

STRIDE = 4
"""Of the latents: images are padded to a multiple of it."""


class Vae(nn.Module):
    """A variational autoencoder (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114) of fully convolutional form.

    Images (B, C, H, W) in [0, 1] have latents (B, latent, ⌈H/4⌉, ⌈W/4⌉) with the prior N(0, 1).

    Args:
        channels: C.
        latent: channels of the latents.
        width: channels of the narrowest hidden layer.
    """

    def __init__(self, channels: int, *, latent: int, width: int) -> None:
        """Draw the weights from torch's global random state."""
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * latent, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * width, 2 * width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of the posterior."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        mean, deviation = self.encoder(2 * padded - 1).chunk(2, dim=1)
        return mean, deviation.clamp(-6, 2)

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Images (B, C, height, width) in [0, 1]."""
        images: Tensor = self.decoder(latents).sigmoid()
        return images[..., :height, :width]


class Latent(Augmentor):
    """z = q'_m + (ELU(q'_v) + 1)·ε, decoded: a residual on the posterior of the clean image's encoding.

    The residual is bounded, and its last layer starts at 0, so that step 0 is the VAE's own stochastic reconstruction.

    Args:
        channels: C.
        latent: channels of the VAE's latents.
        width: of the VAE.
        reach: bound of the residuals on q_m and on q_v, in units of the prior's deviation; at 0 nothing is learned,
            and the plain reconstruction remains: the control.
    """

    names = ("mean", "deviation")

    def __init__(self, channels: int, *, latent: int, width: int, reach: float) -> None:
        """Start at the plain reconstruction."""
        super().__init__()
        self.vae = Vae(channels, latent=latent, width=width).requires_grad_(False)
        self.reach = reach
        last = nn.Conv2d(32, 2 * latent, 1)
        nn.init.zeros_(last.weight)
        last.bias = nn.Parameter(torch.zeros(2 * latent))
        self.residual = nn.Sequential(nn.Conv2d(2 * latent, 32, 3, padding=1), nn.SiLU(), last)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> Drawn:
        """Encode, move, draw, decode."""
        del fill
        mean, log_deviation = self.vae.encode(images)  # with a gradient to what came before it in a chain
        moved = self.residual(torch.cat((mean, log_deviation), dim=1)).tanh()
        on_mean, on_deviation = moved.chunk(2, dim=1)
        # ELU(v) + 1 is e^v below 0 and v + 1 above: so this v gives the VAE's own deviation.
        raw = torch.where(log_deviation < 0, log_deviation, log_deviation.exp() - 1)
        deviation = F.elu(raw + self.reach * on_deviation) + 1
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        made = self.vae.decode(mean + self.reach * on_mean + deviation * noise, *images.shape[-2:])
        # To draw less widely than the VAE itself counts, more widely does not: that would be noise. And elu(v) + 1
        # rounds to 0 for a very certain posterior; its logarithm must not.
        entropy = (deviation.clamp_min(1e-6).log() - log_deviation).clamp_max(0).sum(dim=(1, 2, 3)).mean()
        parts = torch.stack((on_mean.mean(dim=(1, 2, 3)), on_deviation.mean(dim=(1, 2, 3))), dim=1)
        return Drawn(made, entropy, parts.detach())

    def learnable(self) -> dict[str, Tensor]:
        """The residual's weights; the VAE came ready-made."""
        return {name: value for name, value in super().learnable().items() if not name.startswith("vae.")}
