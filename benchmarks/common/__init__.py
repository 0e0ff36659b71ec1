"""Helpers shared by all benchmarks: result files, timing, training, searches and plots."""
