"""Room: stream."""
