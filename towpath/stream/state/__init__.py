"""The state of a partition: committed values, the open unit's changes over them, timers, parked keys, changelog."""
