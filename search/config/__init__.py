"""The sweep file: schema, YAML, and the catalog of choices."""
