"""Debezium carries what outboxes hold to Kafka.

`connector.py` says how a connector is configured and `completeness.py` whether everything arrived (both pure);
`connect.py` speaks to Kafka Connect, `postgres.py` to the slot and the outbox, `kafka.py` to the topics.
"""
