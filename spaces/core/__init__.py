"""Errors, validation, files, imports, redaction, seeding and weights: the base of every other module."""
