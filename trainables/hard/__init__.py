"""HARD: the game between augmentor and student, and the pretraining of its VAE."""
