"""Results of a sweep: the log of its events, tracking in MLflow, statistics, plots and the report."""
