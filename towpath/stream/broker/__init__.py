"""What the stream asks of a broker: the port, and its two sides, Kafka and memory."""
