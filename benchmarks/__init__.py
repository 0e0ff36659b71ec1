"""Benchmarks: one runnable module per result file in `results/`. README.md lists the commands."""
