"""VAE augmentor: a small convolutional VAE and a learned shift of its posterior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.augmentors.base import Augmentor, AugmentorOutput

STRIDE = 4
"""Stride of the latents; images are padded to a multiple of it."""


class Vae(nn.Module):
    """Fully convolutional variational autoencoder (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114).

    Images (B, C, H, W) in [0, 1] have latents (B, latent, ⌈H/4⌉, ⌈W/4⌉) with the prior N(0, 1). The initial weights
    come from torch's global random state.

    Args:
        channels: Channels C of the images.
        latent: Channels of the latents.
        width: Channels of the narrowest hidden layer.
    """

    def __init__(self, channels: int, *, latent: int, width: int) -> None:
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
        """Return the mean and the log standard deviation of the posterior."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        mean, deviation = self.encoder(2 * padded - 1).chunk(2, dim=1)
        return mean, deviation.clamp(-6, 2)

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Decode latents to images (B, C, height, width) in [0, 1]."""
        images: Tensor = self.decoder(latents).sigmoid()
        return images[..., :height, :width]


class Latent(Augmentor):
    """Decoded sample z = q'_m + (ELU(q'_v) + 1)·ε, with a learned residual on the posterior of the clean image.

    The residual is bounded and initially 0, so that step 0 is the stochastic reconstruction of the VAE.

    Args:
        channels: Channels C of the images.
        latent: Channels of the VAE's latents.
        width: Width of the VAE.
        reach: Bound of the residuals on q_m and q_v, in standard deviations of the prior; 0 gives the plain
            reconstruction, which serves as a control.
    """

    names = ("mean", "deviation")

    def __init__(self, channels: int, *, latent: int, width: int, reach: float) -> None:
        super().__init__()
        self.vae = Vae(channels, latent=latent, width=width).requires_grad_(False)
        self.reach = reach
        last = nn.Conv2d(32, 2 * latent, 1)
        nn.init.zeros_(last.weight)
        last.bias = nn.Parameter(torch.zeros(2 * latent))
        self.residual = nn.Sequential(nn.Conv2d(2 * latent, 32, 3, padding=1), nn.SiLU(), last)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> AugmentorOutput:
        """Encode, shift the posterior, sample and decode."""
        del fill
        mean, log_deviation = self.vae.encode(images)  # with a gradient to earlier parts of a chain
        residual = self.residual(torch.cat((mean, log_deviation), dim=1)).tanh()
        on_mean, on_deviation = residual.chunk(2, dim=1)
        # ELU(v) + 1 is e^v below 0 and v + 1 above, so this v gives the deviation of the VAE.
        raw = torch.where(log_deviation < 0, log_deviation, log_deviation.exp() - 1)
        deviation = F.elu(raw + self.reach * on_deviation) + 1
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        decoded = self.vae.decode(mean + self.reach * on_mean + deviation * noise, *images.shape[-2:])
        # A posterior wider than the VAE's counts as the VAE's, since more width is only noise. For a very certain
        # posterior elu(v) + 1 rounds to 0, hence the clamp before the logarithm.
        entropy = (deviation.clamp_min(1e-6).log() - log_deviation).clamp_max(0).sum(dim=(1, 2, 3)).mean()
        parts = torch.stack((on_mean.mean(dim=(1, 2, 3)), on_deviation.mean(dim=(1, 2, 3))), dim=1)
        return AugmentorOutput(decoded, entropy, parts.detach())

    def learnable(self) -> dict[str, Tensor]:
        """Return a copy of the residual's weights by name, without the pretrained VAE."""
        return {name: value for name, value in super().learnable().items() if not name.startswith("vae.")}
