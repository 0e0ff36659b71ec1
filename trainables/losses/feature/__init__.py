"""Losses on features, one per file, with feature hooks and projectors."""
