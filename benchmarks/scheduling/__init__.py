"""Utilization of sweeps, and simulated searches."""
