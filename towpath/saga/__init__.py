"""Room: saga."""
