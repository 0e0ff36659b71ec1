"""HARD's game between a student and an augmentor, and the pretraining of its VAE."""
