"""How full an outbox is, for metrics."""
