"""Plots of schedules, lineages, curves and images."""
