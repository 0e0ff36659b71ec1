"""HARD in the catalog: which augmentor, the rules of its game, and what it has learned.

Source: Hard Augmentations for Robust Distillation, Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890. The entropy
term, the units of the thresholds and all constants are our reading.
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

from spaces.augmentations.base import Answers, Augmentation, View, check_range, check_whole
from spaces.augmentors import Affine, Augmentor, Chain, Color, Drawn, Latent, Mix
from spaces.core.errors import RequestError
from spaces.core.weights import Learned

RANGES: Mapping[str, tuple[float, float]] = {
    "lambda_s": (0, 100),
    "lambda_t": (0, 100),
    "lambda_h": (0, 100),
    "low": (0.01, 1000),
    "high": (0.01, 1000),
    "lr": (1e-5, 1),
}
"""Of the numbers that a population may move."""

FACTORS = (0.8, 1.25)
"""What exploring multiplies them by."""


@dataclass(frozen=True)
class Hard(Augmentation):
    """A second view that is learned in a game against the student, or, once learned, replayed without anyone.

    In the augmentor's phases φ goes down -λ_s·L_st/ℓ + λ_t·L_tt/ℓ - λ_h·H with teacher and student frozen: L_st is the
    distillation loss on the view, L_tt the loss between the teacher's own answers to the images and to their views, H
    the entropy of what is drawn, and ℓ the distillation loss on clean images after the warm-up, so that no constant
    depends on the data. In the student's phases φ stands still.

    Args:
        draw: `sample`; every image has its own random numbers.
        lambda_s: λ_s, how much disagreement is sought, 0 … 100.
        lambda_t: λ_t, how much the teacher must keep its own answer, 0 … 100.
        lambda_h: λ_h, how widely is drawn, in nats, 0 … 100.
        low: ℓ_min in units of ℓ: below it the augmentor has its turn. 0.01 … 1000.
        high: ℓ_max in units of ℓ, above `low`: above it the student has its turn.
        lr: of Adam on φ, 1e-5 … 1.
        warmup: student steps before the first augmentor phase, over whose end ℓ is measured.
        student_steps: the longest phase of the student; a quarter of it is the shortest.
        augmentor_steps: the longest phase of the augmentor, each step on a quarter of a batch.
        memory: earlier augmentors that half of each batch is drawn from; 0: none.
        learned: what the augmentor has learned; None: it has yet to learn.
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
        """Refuse a game that cannot be played."""
        super().__post_init__()
        if self.draw != "sample":
            raise RequestError(f"{self.kind} draws for each image: draw is sample", value=self.draw)
        for name, (least, most) in RANGES.items():
            checked = check_range(f"{self.kind}'s {name}", getattr(self, name), least, most)
            object.__setattr__(self, name, checked)
        if self.low >= self.high:
            raise RequestError(f"{self.kind}'s low is below its high", value=f"{self.low:g} and {self.high:g}")
        for name in ("warmup", "student_steps", "augmentor_steps"):
            check_whole(f"{self.kind}'s {name}", getattr(self, name), 1, 1_000_000)
        check_whole(f"{self.kind}'s memory", self.memory, 0, 1000)
        if self.learned is not None:
            object.__setattr__(self, "learned", Learned.from_json(self.learned))

    @property
    def learns(self) -> bool:
        """Whether it takes a game against the student; what was learned is only replayed."""
        return self.learned is None

    @property
    def structure(self) -> Hard:
        """The same augmentor under the usual rules, yet to learn: two that are equal in this have the same weights."""
        return replace(self, **_RULES)

    @abstractmethod
    def augmentor(self, channels: int) -> Augmentor:
        """The module at its start, for images of C channels; random weights come from torch's global state."""

    def explored(self, generator: np.random.Generator) -> Hard:
        """The same augmentor under neighboring rules: each number of `RANGES` times 0.8 or 1.25, within its range."""
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
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Replay what was learned.

        Raises:
            RequestError: nothing was learned yet, or the weights are not at hand or not this augmentor's.
        """
        if self.learned is None:
            hint = "train a student with it (roletune search); the policy that this gives holds what was learned"
            raise RequestError(f"{self.kind} has yet to learn, in a game against a student", hint=hint)
        self.learned.required()  # before the cache, which knows the hash alone
        return made(_ready(self, images.shape[1], images.device), images, fill, generator)

    def to_json(self) -> dict[str, Any]:
        """Its name and parameters; `learned` only where there is something."""
        content = super().to_json()
        return {name: value for name, value in content.items() if value is not None}


def _check_flag(kind: str, value: object) -> None:
    if not isinstance(value, bool):
        raise RequestError(f"{kind}'s conditional is true or false", value=value)


_RULES: Mapping[str, Any] = {item.name: item.default for item in fields(Hard)}


@dataclass(frozen=True)
class HardAffine(Hard):
    """A learned distribution over affine transforms.

    Args:
        linear: bound of each of the four numbers that stretch and shear, 0 … 1.
        shift: bound of the two that shift, in half sides, 0 … 1.
        conditional: whether the distribution depends on the image, through a small network.
    """

    kind: ClassVar[str] = "hard_affine"

    linear: float = 0.5
    shift: float = 0.5
    conditional: bool = False

    def __post_init__(self) -> None:
        """Refuse bounds out of range."""
        super().__post_init__()
        for name in ("linear", "shift"):
            object.__setattr__(self, name, check_range(f"{self.kind}'s {name}", getattr(self, name), 0, 1))
        _check_flag(self.kind, self.conditional)

    def augmentor(self, channels: int) -> Affine:
        """Near the identity."""
        return Affine(channels, linear=self.linear, shift=self.shift, conditional=self.conditional)


@dataclass(frozen=True)
class HardMix(Hard):
    """A mix with a partner from the batch, in shares that are learned by region.

    Args:
        regions: along each side, 1 … 16.
        most: the partner's largest share, 0 … 1.
        conditional: whether the shares depend on the two images, through a small network.
    """

    kind: ClassVar[str] = "hard_mix"

    regions: int = 4
    most: float = 0.5
    conditional: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no mix."""
        super().__post_init__()
        check_whole(f"{self.kind}'s regions", self.regions, 1, 16)
        object.__setattr__(self, "most", check_range(f"{self.kind}'s most", self.most, 0, 1))
        _check_flag(self.kind, self.conditional)

    def augmentor(self, channels: int) -> Mix:
        """Near the identity."""
        return Mix(channels, regions=self.regions, most=self.most, conditional=self.conditional)


@dataclass(frozen=True)
class HardVae(Hard):
    """A residual on the posterior of a small VAE, which is trained on the sweep's images beforehand.

    Args:
        reach: bound of the residual, in deviations of the prior, 0 … 4; 0: the plain reconstruction, the control.
        latent: channels of the VAE's latents, 1 … 256.
        width: channels of the VAE's narrowest layer, 1 … 256.
        vae_steps: Adam steps that the VAE is trained for.
        vae: its weights; None: it has yet to be trained.
    """

    kind: ClassVar[str] = "hard_vae"
    unlabeled = ("vae",)

    reach: float = 1.0
    latent: int = 16
    width: int = 16
    vae_steps: int = 1500
    vae: Learned | None = None

    def __post_init__(self) -> None:
        """Refuse what is no VAE."""
        super().__post_init__()
        object.__setattr__(self, "reach", check_range(f"{self.kind}'s reach", self.reach, 0, 4))
        for name in ("latent", "width"):
            check_whole(f"{self.kind}'s {name}", getattr(self, name), 1, 256)
        check_whole(f"{self.kind}'s vae_steps", self.vae_steps, 1, 1_000_000)
        if self.vae is not None:
            object.__setattr__(self, "vae", Learned.from_json(self.vae))

    def augmentor(self, channels: int) -> Latent:
        """At the plain reconstruction.

        Raises:
            RequestError: the VAE was not trained yet.
        """
        if self.vae is None:
            raise RequestError(
                "hard_vae needs a trained VAE",
                hint="trainables.hard.vae_pretraining.with_vae(choice, images, channels=C)",
            )
        module = Latent(channels, latent=self.latent, width=self.width, reach=self.reach)
        fit(module.vae, self.vae.required(), "the VAE's weights")
        return module


@dataclass(frozen=True)
class HardColor(Hard):
    """A learned distribution over changes of brightness, contrast and the channels' gains.

    Args:
        reach: bound of the changes, 0 … 1; see `spaces.augmentors.Color`.
        conditional: whether the distribution depends on the image, through a small network.
    """

    kind: ClassVar[str] = "hard_color"

    reach: float = 0.5
    conditional: bool = False

    def __post_init__(self) -> None:
        """Refuse a bound out of range."""
        super().__post_init__()
        object.__setattr__(self, "reach", check_range(f"{self.kind}'s reach", self.reach, 0, 1))
        _check_flag(self.kind, self.conditional)

    def augmentor(self, channels: int) -> Color:
        """Near the identity."""
        return Color(channels, reach=self.reach, conditional=self.conditional)


@dataclass(frozen=True)
class HardChain(Hard):
    """Augmentors one after another, in one game under this entry's rules.

    Args:
        parts: two or more of the others; their own rules have no say, and at most one of them mixes.
    """

    kind: ClassVar[str] = "hard_chain"

    parts: tuple[Hard, ...] = (HardColor(), HardAffine())

    def __post_init__(self) -> None:
        """Refuse what is no chain."""
        super().__post_init__()
        rule = f"{self.kind}'s parts are two or more of the other hard augmentations"
        if not isinstance(self.parts, list | tuple):
            raise RequestError(rule, value=self.parts)
        object.__setattr__(self, "parts", tuple(self.parts))
        kinds = [part.kind if isinstance(part, Hard) else part for part in self.parts]
        if len(kinds) < 2 or not all(isinstance(part, Hard) and part.kind != self.kind for part in self.parts):
            raise RequestError(rule, value=kinds)
        if kinds.count(HardMix.kind) > 1:
            raise RequestError(f"at most one of {self.kind}'s parts mixes", value=kinds)
        if any(not part.learns for part in self.parts):
            raise RequestError(f"what {self.kind} has learned stands in itself, not in its parts", value=kinds)

    def augmentor(self, channels: int) -> Chain:
        """Every part at its start."""
        labels = [part.kind.removeprefix("hard_") for part in self.parts]
        return Chain([part.augmentor(channels) for part in self.parts], labels)

    def to_json(self) -> dict[str, Any]:
        """Its name and parameters, the parts likewise."""
        content = super().to_json()
        return content | {"parts": [part.to_json() for part in self.parts]}


def made(
    module: Callable[[Tensor, Tensor, torch.Generator], Drawn],
    images: Tensor,
    fill: Sequence[int],
    generator: torch.Generator,
) -> View:
    """A view of uint8 images by an augmentor as it stands, rounded to bytes."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # a replay must give the same bytes
        drawn = module(images.float() / 255, color(fill, images.device), generator)
        shown = (drawn.images * 255).round().to(torch.uint8)
    alone = View.alone(shown)
    if drawn.partner is None or drawn.weight is None:
        return alone
    return replace(alone, second=drawn.partner, weight=drawn.weight)


def color(fill: Sequence[int], device: torch.device) -> Tensor:
    """A fill color as an augmentor takes it."""
    return torch.tensor(tuple(fill), dtype=torch.float32, device=device) / 255


def fit(module: torch.nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Put `weights` into `module`: of an augmentor what it learned, of anything else all there is.

    Raises:
        RequestError: a name too many or too few, or another shape.
    """
    names = (module.learnable() if isinstance(module, Augmentor) else module.state_dict()).keys()
    if names != weights.keys():
        raise RequestError(f"{what} fit these settings", value=sorted(names ^ weights.keys()))
    try:
        module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise RequestError(f"{what} have other shapes than these settings ask for") from error


@lru_cache(maxsize=16)
def _ready(choice: Hard, channels: int, device: torch.device) -> Augmentor:
    with torch.random.fork_rng(devices=[]):  # a start that the weights replace
        module = choice.augmentor(channels)
    if choice.learned is not None:
        fit(module, choice.learned.required(), f"{choice.kind}'s learned weights")
    return module.to(device).eval().requires_grad_(False)


def learned_parts(choice: Augmentation) -> tuple[Learned, ...]:
    """All learned weights that `choice`, its parts or its base refer to."""
    found: list[Learned] = []
    for item in fields(choice):
        value = getattr(choice, item.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Learned):
                found.append(part)
            elif isinstance(part, Augmentation):
                found.extend(learned_parts(part))
    return tuple(found)


def with_tensors(choice: Augmentation, weights: Mapping[str, Mapping[str, Tensor]]) -> Augmentation:
    """`choice`, its references filled from `weights` by their hash; what is not there stays a reference."""
    changed: dict[str, Any] = {}
    for item in fields(choice):
        if not item.init:
            continue
        value = getattr(choice, item.name)
        if isinstance(value, Learned) and value.sha256 in weights:
            changed[item.name] = Learned(value.sha256, weights[value.sha256])
        elif isinstance(value, Augmentation):
            changed[item.name] = with_tensors(value, weights)
        elif isinstance(value, tuple) and value and isinstance(value[0], Augmentation):
            changed[item.name] = tuple(with_tensors(part, weights) for part in value)
    return replace(choice, **changed) if changed else choice


def unready(choice: Augmentation) -> Augmentation:
    """`choice` without what was trained for it beforehand, which is trained again where it is used."""
    if isinstance(choice, HardChain):
        parts: Any = tuple(unready(part) for part in choice.parts)  # a hard one for each hard one
        return replace(choice, parts=parts)
    return replace(choice, vae=None) if isinstance(choice, HardVae) and choice.learns else choice
