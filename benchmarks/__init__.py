"""What is measured, and by what; the results lie in `results/`. Start reading at `record.py`."""
