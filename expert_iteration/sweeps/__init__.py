"""The jobs of a sweep: what became of each, and those that are done again."""
