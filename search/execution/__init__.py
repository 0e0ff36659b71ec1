"""Running trials on Ray: journal, callbacks, progress, cluster checks."""
