"""What topics promise: Avro records, examples, topics of events."""
