"""Room: outbox."""
