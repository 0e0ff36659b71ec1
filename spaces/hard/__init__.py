"""HARD's augmentors: modules that learn to change images where teacher and student disagree."""

from spaces.hard.affine import Affine
from spaces.hard.base import Augmentor, Drawn
from spaces.hard.chain import Chain
from spaces.hard.color import Color
from spaces.hard.mix import Mix
from spaces.hard.vae import Latent, Vae

__all__ = ["Affine", "Augmentor", "Chain", "Color", "Drawn", "Latent", "Mix", "Vae"]
