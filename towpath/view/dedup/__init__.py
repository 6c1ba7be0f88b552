"""Dedup by event id, for applications whose effects are in a database: Debezium may repeat, operators replay."""
