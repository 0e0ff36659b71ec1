"""Sweeps under faults, and sweeps over several hosts."""
