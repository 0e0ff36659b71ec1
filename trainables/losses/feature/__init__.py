"""Losses on features: hooks, projectors, and one loss per file."""
