"""Towpath: business transactions across services on PostgreSQL, Debezium, Kafka and Faust.

The rooms below are in the order a message travels: outbox, capture, contract, stream, saga, orchestrator,
participant, client, view. Each room's pure file lies beside its I/O twin, whose name tells the I/O.
"""
