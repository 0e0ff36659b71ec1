"""Utilization of sweeps, and searches of simulated trainings."""
