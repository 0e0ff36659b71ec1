"""Policies, and the sampling of operations for each image of a batch."""
