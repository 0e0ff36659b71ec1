"""Losses on logits, one per file."""
