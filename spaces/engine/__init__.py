"""Fast application of sampled operations: compiled kernels on the CPU, dense PyTorch elsewhere, the same bytes."""

from spaces.engine.dispatch import apply, crop

__all__ = ["apply", "crop"]
