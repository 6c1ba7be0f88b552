"""Room: contract."""
