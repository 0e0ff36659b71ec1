"""The log of a sweep: events, history, lineage and the export of policies."""
