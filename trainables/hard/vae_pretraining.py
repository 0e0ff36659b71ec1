"""Training of the VAE whose posterior `hard_vae` shifts, once for a sweep's training images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import WorkError
from spaces.augmentations import Augmentation, HardChain, HardVae
from spaces.augmentors import Vae
from spaces.core.seeding import seeded_generator
from spaces.core.weights import Learned
from trainables.checkpoints import load_weights, save_weights
from trainables.data import Images
from trainables.training.optimizers import Adam

BATCH, RATE = 128, 2e-3
KL_WEIGHT = 0.1
"""Weight of the KL divergence from the prior; below 1 for sharp rather than smooth reconstructions."""
NOISE = 0.1
"""Standard deviation of a reconstructed pixel in [0, 1]."""


def train_vae(
    images: Images, choice: HardVae, *, channels: int, seed: int = 0, device: torch.device | str = "cpu"
) -> Vae:
    """Train a VAE with the settings of `choice`; all draws follow from `seed`.

    The loss is ‖x − x̂‖² / (2 · 0.1²) + 0.1 · KL(q ‖ N(0, 1)), summed over pixels and latents, minimized by
    `choice.vae_steps` steps of Adam.

    Args:
        images: Training images.
        choice: Width, latents and steps of the VAE.
        channels: Number of channels of the images.
        seed: Seed of weights and draws.
        device: Device of the training.

    Returns:
        The VAE, frozen and in evaluation mode.

    Raises:
        WorkError: The loss is not finite.

    Example:
        >>> from trainables.data import load
        >>> images = load("digits", train=20, validation=10).train
        >>> vae = train_vae(images, HardVae(latent=2, width=4, vae_steps=2), channels=1)
        >>> vae.training
        False
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeded_generator(seed, 0, 8).initial_seed())
        vae = Vae(channels, latent=choice.latent, width=choice.width).to(device)
    optimizer = Adam(vae.parameters(), lr=RATE)
    generator = seeded_generator(seed, 1, 8)
    for step in range(choice.vae_steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / choice.vae_steps))
        rows = torch.randint(len(images), (min(BATCH, len(images)),), generator=generator)
        batch, _ = next(iter(images.subset(rows).batches(len(rows))))
        loss = _loss(vae, batch.to(device).float() / 255, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 100.0)
        optimizer.step()
    if not math.isfinite(final := float(loss.detach())):
        raise WorkError(f"the VAE's loss is not finite after {choice.vae_steps} steps, got {final}")
    return vae.eval().requires_grad_(False)


def with_vae(
    choice: Augmentation,
    images: Images,
    *,
    channels: int,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> Augmentation:
    """Return `choice` with the trained VAE that it needs; other augmentations are returned unchanged.

    Args:
        choice: Augmentation, perhaps a `hard_vae` or a chain with one.
        images: Training images of the VAE.
        channels: Number of channels of the images.
        cache: Folder of trained VAEs, named by the hash of images and settings; None to train without a cache.
        device: Device of the training.
    """
    if isinstance(choice, HardChain):
        parts: Any = tuple(
            with_vae(part, images, channels=channels, cache=cache, device=device) for part in choice.parts
        )
        return replace(choice, parts=parts)
    if not isinstance(choice, HardVae) or choice.vae is not None:
        return choice
    name = vae_file(choice, images)
    if cache is not None and (cache / name).is_file():
        return replace(choice, vae=Learned.of(load_weights(cache / name)))
    weights = train_vae(images, choice, channels=channels, device=device).state_dict()
    if cache is not None:
        save_weights(cache / name, weights)
    return replace(choice, vae=Learned.of(weights))


def vae_files(choice: Augmentation, images: Images) -> tuple[str, ...]:
    """Return the file names of the VAEs that `choice` needs and does not have yet."""
    parts = choice.parts if isinstance(choice, HardChain) else (choice,)
    return tuple(vae_file(part, images) for part in parts if isinstance(part, HardVae) and part.vae is None)


def vae_file(choice: HardVae, images: Images) -> str:
    """Return the file name of a VAE, from the hash of its training images and settings."""
    digest = hashlib.sha256(
        repr((choice.latent, choice.width, choice.vae_steps, BATCH, RATE, KL_WEIGHT, NOISE)).encode()
    )
    for batch, _ in images.batches(512):
        digest.update(repr(tuple(batch.shape)).encode())
        digest.update(batch.cpu().contiguous().numpy().tobytes())
    return f"vae-{digest.hexdigest()[:16]}.safetensors"


def _loss(vae: Vae, images: Tensor, generator: torch.Generator) -> Tensor:
    mean, log_deviation = vae.encode(images)
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    reconstruction = vae.decode(mean + log_deviation.exp() * noise, *images.shape[-2:])
    divergence = 0.5 * (mean**2 + (2 * log_deviation).exp() - 1) - log_deviation
    error = F.mse_loss(reconstruction, images, reduction="sum") / (2 * NOISE**2)
    return (error + KL_WEIGHT * divergence.sum()) / len(images)


def weights_of(choices: tuple[Augmentation, ...]) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the weights of the VAEs in `choices`, by their hash."""
    found: dict[str, Mapping[str, Tensor]] = {}
    for choice in choices:
        for part in choice.parts if isinstance(choice, HardChain) else (choice,):
            if isinstance(part, HardVae) and part.vae is not None:
                found[part.vae.sha256] = part.vae.required()
    return found
