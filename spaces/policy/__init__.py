"""Policies, and the sampling that decides which operation hits which image."""
