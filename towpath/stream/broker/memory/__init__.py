"""A broker in memory, for users' tests: topics, transactions, groups, with the same port as the real one.

What it has, because code is wrong without it: the last stable offset, control records that leave gaps, transactions
that expire, fencing by epoch and by generation, rebalances, and faults to order.
What it has not: replication, networks, the new consumer protocol's incremental assignment.
"""

from towpath.stream.broker.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
