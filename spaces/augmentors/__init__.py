"""Augmentors of HARD: modules that learn to change images where teacher and student disagree."""

from spaces.augmentors.affine import Affine
from spaces.augmentors.base import Augmentor, AugmentorOutput
from spaces.augmentors.chain import Chain
from spaces.augmentors.color import Color
from spaces.augmentors.mix import Mix
from spaces.augmentors.vae import Latent, Vae

__all__ = ["Affine", "Augmentor", "AugmentorOutput", "Chain", "Color", "Latent", "Mix", "Vae"]
