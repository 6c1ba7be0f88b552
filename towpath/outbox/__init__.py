"""The first lock on the path: a service writes its message in the transaction that makes it true.

`message.py` and `partitions.py` decide (pure), `postgres.py` writes, `outbox.sql` is the table.
"""

from towpath.outbox.message import OutboxMessage

__all__ = ["OutboxMessage"]
