"""What every room needs: errors, files, imports, redaction, weights."""
