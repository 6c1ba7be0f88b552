"""Java's Avro as a judge in the tests: fetched like the stack's parts, compiled once, never needed at run time."""
