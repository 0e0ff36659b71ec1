"""Statistics and summaries of what came out."""
