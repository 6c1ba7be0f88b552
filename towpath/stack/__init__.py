"""Room: stack."""
