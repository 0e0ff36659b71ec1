"""The 15 operations of PBA on batches of images, and their registry."""

from spaces.operations.registry import ALL_LEVELS, LEVELS, OPERATIONS, Operation

__all__ = ["ALL_LEVELS", "LEVELS", "OPERATIONS", "Operation"]
