"""Whole sweeps: plan, runner, resume, evaluation, screening."""
