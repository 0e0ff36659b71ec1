"""The HTML report of a sweep, and the view of a policy."""
