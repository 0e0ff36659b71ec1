"""Sweeps under faults, and across hosts."""
