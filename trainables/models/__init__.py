"""The models that a sweep file can name, one architecture per file."""

from trainables.models.registry import MODELS, build_model, check_model

__all__ = ["MODELS", "build_model", "check_model"]
