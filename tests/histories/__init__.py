"""Golden histories."""
