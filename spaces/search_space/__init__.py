"""The space of genomes: domains, bounds, and the encoding as a vector."""
