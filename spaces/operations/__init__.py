"""The 15 operations of PBA on batches of images, and their registry."""

from spaces.operations.registry import LEVELS, OPERATIONS, Operation

__all__ = ["LEVELS", "OPERATIONS", "Operation"]
