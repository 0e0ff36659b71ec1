"""HARD augmentations: augmentor, settings of the game, and learned weights.

Source: Hard Augmentations for Robust Distillation, Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890. The entropy
term, the units of the thresholds and all constants are our reading of the paper.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spaces.augmentations.base import Augmentation, Predict, View
from spaces.augmentors import Affine, Augmentor, AugmentorOutput, Chain, Color, Latent, Mix
from spaces.core.errors import RequestError
from spaces.core.validation import check_flag, check_integer, check_number
from spaces.core.weights import Learned

RANGES: Mapping[str, tuple[float, float]] = {
    "lambda_s": (0, 100),
    "lambda_t": (0, 100),
    "lambda_h": (0, 100),
    "low": (0.01, 1000),
    "high": (0.01, 1000),
    "lr": (1e-5, 1),
}
"""Ranges of the settings that a search explores."""

FACTORS = (0.8, 1.25)
"""Factors by which exploring multiplies them."""


@dataclass(frozen=True)
class Hard(Augmentation):
    """Learned augmentation: trained in a game against the student, then replayed from its weights.

    Augmentor phases minimize -λ_s·L_st/ℓ + λ_t·L_tt/ℓ - λ_h·H over φ with teacher and student frozen. L_st is the
    distillation loss on the view, L_tt the loss between the teacher's logits for the images and for the view, H the
    entropy of the sampling distribution, and ℓ the distillation loss on clean images after the warm-up, so that no
    constant depends on the data. Student phases keep φ fixed.

    Args:
        draw: `sample`; random numbers per image.
        lambda_s: Weight λ_s of the disagreement, 0 to 100.
        lambda_t: Weight λ_t of the teacher's consistency, 0 to 100.
        lambda_h: Weight λ_h of the entropy, 0 to 100.
        low: Threshold ℓ_min in units of ℓ, 0.01 to 1000; below it an augmentor phase starts.
        high: Threshold ℓ_max in units of ℓ, greater than `low`; above it a student phase starts.
        lr: Learning rate of Adam on φ, 1e-5 to 1.
        warmup: Student steps before the first augmentor phase; ℓ is measured at their end.
        student_steps: Longest student phase in steps; the shortest is a quarter of it.
        augmentor_steps: Longest augmentor phase in steps, each on a quarter of a batch.
        memory: Number of earlier augmentors that half of each batch is drawn from; 0 for none.
        learned: Learned weights; None before learning.
    """

    lambda_s: float = 1.0
    lambda_t: float = 1.0
    lambda_h: float = 0.3
    low: float = 1.0
    high: float = 10.0
    lr: float = 0.05
    warmup: int = 50
    student_steps: int = 50
    augmentor_steps: int = 5
    memory: int = 20
    learned: Learned | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.draw != "sample":
            raise RequestError(f"the draw of {self.kind} must be sample", value=self.draw)
        for name, (least, most) in RANGES.items():
            self._check_number(name, least, most)
        if self.low >= self.high:
            raise RequestError(f"{self.kind} low must be less than high", value=f"{self.low:g} and {self.high:g}")
        for name in ("warmup", "student_steps", "augmentor_steps"):
            check_integer(f"{self.kind} {name}", getattr(self, name), 1, 1_000_000)
        check_integer(f"{self.kind} memory", self.memory, 0, 1000)
        if self.learned is not None:
            object.__setattr__(self, "learned", Learned.from_json(self.learned))

    def _check_number(self, name: str, low: float, high: float) -> None:
        """Check a parameter, and store it as a float, so that equal values have one form."""
        object.__setattr__(self, name, check_number(f"{self.kind} {name}", getattr(self, name), low, high))

    @property
    def learns(self) -> bool:
        """True if the augmentation has no learned weights yet."""
        return self.learned is None

    @property
    def structure(self) -> Hard:
        """Copy with default settings and without learned weights; equal structures have interchangeable weights."""
        return replace(self, **_DEFAULTS)

    @abstractmethod
    def augmentor(self, channels: int) -> Augmentor:
        """Return the initial module for images of C channels; random weights come from torch's global state."""

    def explore(self, generator: np.random.Generator) -> Hard:
        """Return a copy whose settings in `RANGES` are multiplied by 0.8 or 1.25 and clipped; itself once learned."""
        if not self.learns:
            return self
        moved = {
            name: min(max(getattr(self, name) * FACTORS[int(generator.integers(2))], least), most)
            for name, (least, most) in RANGES.items()
        }
        if moved["low"] >= moved["high"]:
            moved |= {"low": self.low, "high": self.high}
        return replace(self, **moved)

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Apply the learned augmentor.

        Raises:
            RequestError: There are no learned weights, or they are not loaded or do not fit the augmentor.
        """
        if self.learned is None:
            hint = "train a student with it (roletune search); the resulting policy holds the weights"
            raise RequestError(f"{self.kind} must be learned before it is applied", hint=hint)
        self.learned.required()  # before the cache, whose key is the hash alone
        return render_view(_load_augmentor(self, images.shape[1], images.device), images, fill, generator)

    def to_json(self) -> dict[str, Any]:
        """Return name and parameters as JSON data; weights that are None are left out."""
        content = super().to_json()
        return {name: value for name, value in content.items() if value is not None}


_DEFAULTS: Mapping[str, Any] = {item.name: item.default for item in fields(Hard)}


@dataclass(frozen=True)
class HardAffine(Hard):
    """Learned distribution over affine transforms; see `Hard` for the other arguments.

    Args:
        linear: Bound of the four scaling and shearing numbers, 0 to 1.
        shift: Bound of the two shifts in half sides, 0 to 1.
        conditional: True if the distribution depends on the image, by a small network.

    Example:
        >>> from spaces.augmentations import HardAffine
        >>> HardAffine(linear=0.0).learns
        True
    """

    kind: ClassVar[str] = "hard_affine"

    linear: float = 0.5
    shift: float = 0.5
    conditional: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        for name in ("linear", "shift"):
            self._check_number(name, 0, 1)
        check_flag(f"{self.kind} conditional", self.conditional)

    def augmentor(self, channels: int) -> Affine:
        """Return the initial module, close to the identity."""
        return Affine(channels, linear=self.linear, shift=self.shift, conditional=self.conditional)


@dataclass(frozen=True)
class HardMix(Hard):
    """Learned mix with another image of the batch, with a weight per region; see `Hard` for the other arguments.

    Args:
        regions: Regions per side, 1 to 16.
        most: Largest weight of the partner, 0 to 1.
        conditional: True if the weights depend on the two images, by a small network.

    Example:
        >>> from spaces.augmentations import HardMix
        >>> HardMix(regions=2).label
        'hard_mix(regions=2)'
    """

    kind: ClassVar[str] = "hard_mix"

    regions: int = 4
    most: float = 0.5
    conditional: bool = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        check_integer(f"{self.kind} regions", self.regions, 1, 16)
        self._check_number("most", 0, 1)
        check_flag(f"{self.kind} conditional", self.conditional)

    def augmentor(self, channels: int) -> Mix:
        """Return the initial module, close to the identity."""
        return Mix(channels, regions=self.regions, most=self.most, conditional=self.conditional)


@dataclass(frozen=True)
class HardVae(Hard):
    """Learned residual on the posterior of a small pretrained VAE; see `Hard` for the other arguments.

    Args:
        reach: Bound of the residual in standard deviations of the prior, 0 to 4; 0 gives the plain reconstruction,
            which serves as a control.
        latent: Channels of the VAE's latents, 1 to 256.
        width: Channels of the VAE's narrowest layer, 1 to 256.
        vae_steps: Adam steps of the VAE's training.
        vae: Weights of the VAE; None before its training.

    Example:
        >>> from spaces.augmentations import HardVae
        >>> HardVae(latent=8).vae is None
        True
    """

    kind: ClassVar[str] = "hard_vae"
    unlabeled = ("vae",)

    reach: float = 1.0
    latent: int = 16
    width: int = 16
    vae_steps: int = 1500
    vae: Learned | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self._check_number("reach", 0, 4)
        for name in ("latent", "width"):
            check_integer(f"{self.kind} {name}", getattr(self, name), 1, 256)
        check_integer(f"{self.kind} vae_steps", self.vae_steps, 1, 1_000_000)
        if self.vae is not None:
            object.__setattr__(self, "vae", Learned.from_json(self.vae))

    def augmentor(self, channels: int) -> Latent:
        """Return the initial module, the plain reconstruction.

        Raises:
            RequestError: The VAE is not trained.
        """
        if self.vae is None:
            raise RequestError(
                "the VAE of hard_vae must be trained first",
                hint="trainables.hard.vae_pretraining.with_vae(choice, images, channels=C)",
            )
        module = Latent(channels, latent=self.latent, width=self.width, reach=self.reach)
        load_weights(module.vae, self.vae.required(), "the weights of the VAE")
        return module


@dataclass(frozen=True)
class HardColor(Hard):
    """Learned distribution over brightness, contrast and channel gains; see `Hard` for the other arguments.

    Args:
        reach: Bound of the changes, 0 to 1; see `spaces.augmentors.Color`.
        conditional: True if the distribution depends on the image, by a small network.

    Example:
        >>> from spaces.augmentations import HardColor
        >>> HardColor(conditional=True).label
        'hard_color(conditional=True)'
    """

    kind: ClassVar[str] = "hard_color"

    reach: float = 0.5
    conditional: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self._check_number("reach", 0, 1)
        check_flag(f"{self.kind} conditional", self.conditional)

    def augmentor(self, channels: int) -> Color:
        """Return the initial module, close to the identity."""
        return Color(channels, reach=self.reach, conditional=self.conditional)


@dataclass(frozen=True)
class HardChain(Hard):
    """Chain of hard augmentations, learned in one game with the settings of the chain.

    See `Hard` for the other arguments.

    Args:
        parts: At least two other hard augmentations, of which at most one mixes; their game settings are ignored.

    Example:
        >>> from spaces.augmentations import HardAffine, HardChain, HardMix
        >>> HardChain(parts=(HardAffine(), HardMix())).label
        'hard_chain(parts=hard_affine+hard_mix)'
    """

    kind: ClassVar[str] = "hard_chain"

    parts: tuple[Hard, ...] = (HardColor(), HardAffine())

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        rule = f"the parts of {self.kind} must be two or more of the other hard augmentations"
        if not isinstance(self.parts, list | tuple):
            raise RequestError(rule, value=self.parts)
        object.__setattr__(self, "parts", tuple(self.parts))
        kinds = [part.kind if isinstance(part, Hard) else part for part in self.parts]
        if len(kinds) < 2 or not all(isinstance(part, Hard) and part.kind != self.kind for part in self.parts):
            raise RequestError(rule, value=kinds)
        if kinds.count(HardMix.kind) > 1:
            raise RequestError(f"at most one of the parts of {self.kind} must mix", value=kinds)
        if any(not part.learns for part in self.parts):
            raise RequestError(
                f"the learned weights of {self.kind} must be in the chain, not in its parts", value=kinds
            )

    def augmentor(self, channels: int) -> Chain:
        """Return the chain of the initial modules of the parts."""
        labels = [part.kind.removeprefix("hard_") for part in self.parts]
        return Chain([part.augmentor(channels) for part in self.parts], labels)

    def to_json(self) -> dict[str, Any]:
        """Return name and parameters as JSON data, those of the parts included."""
        content = super().to_json()
        return content | {"parts": [part.to_json() for part in self.parts]}


def render_view(
    module: Callable[[Tensor, Tensor, torch.Generator], AugmentorOutput],
    images: Tensor,
    fill: Sequence[int],
    generator: torch.Generator,
) -> View:
    """Return the view of uint8 images by an augmentor, rounded to bytes, without gradients."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # so that a replay gives the same bytes
        drawn = module(images.float() / 255, fill_color(fill, images.device), generator)
        shown = (drawn.images * 255).round().to(torch.uint8)
    view = View.unmixed(shown)
    if drawn.partner is None or drawn.weight is None:
        return view
    return replace(view, second=drawn.partner, weight=drawn.weight)


def fill_color(fill: Sequence[int], device: torch.device) -> Tensor:
    """Return a fill color as an augmentor takes it: (C,), float32 in [0, 1]."""
    return torch.tensor(tuple(fill), dtype=torch.float32, device=device) / 255


def load_weights(module: torch.nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load weights into a module: the learned ones of an augmentor, the whole state of other modules.

    Args:
        module: Module to load into.
        weights: Tensors by name.
        what: Noun phrase for the weights in messages, in the plural.

    Raises:
        RequestError: The names or the shapes do not match.
    """
    names = (module.learnable() if isinstance(module, Augmentor) else module.state_dict()).keys()
    if names != weights.keys():
        raise RequestError(f"{what} must have the names of these settings", value=sorted(names ^ weights.keys()))
    try:
        module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise RequestError(f"{what} must have the shapes of these settings") from error


@lru_cache(maxsize=16)
def _load_augmentor(choice: Hard, channels: int, device: torch.device) -> Augmentor:
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced
        module = choice.augmentor(channels)
    if choice.learned is not None:
        load_weights(module, choice.learned.required(), f"the learned weights of {choice.kind}")
    return module.to(device).eval().requires_grad_(False)
