"""Everything breaks at once, and nothing is lost."""
