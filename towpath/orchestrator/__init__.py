"""Room: orchestrator."""
