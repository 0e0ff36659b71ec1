"""What came out: tracking in MLflow, lineage, export, statistics, plots."""
