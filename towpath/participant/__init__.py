"""Room: participant."""
