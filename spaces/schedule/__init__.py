"""Genomes, schedules, their policy file, and the modules that apply them."""
