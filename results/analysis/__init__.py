"""Statistics, comparisons and summaries of results."""
