"""Arguments, result files and timing shared by all benchmarks."""
