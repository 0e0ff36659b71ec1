"""What happened in a sweep: events, history, lineage, export."""
