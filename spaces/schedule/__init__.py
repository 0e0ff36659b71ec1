"""Genomes, schedules, their file format, and the transforms that apply them."""
