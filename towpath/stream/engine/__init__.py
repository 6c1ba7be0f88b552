"""The loop of a worker: units of work, their commit in Kafka or PostgreSQL, and what happens when one fails."""
