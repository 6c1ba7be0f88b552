"""Answers commands: a service's handlers run once for each command, however often it comes.

`service.py` declares and `core.py` decides (pure), `postgres.py` keeps the inbox, `execution.py` runs a batch in one
transaction, `agent.py` takes the batches from Kafka.
"""

from towpath.participant.service import Context, Service, handle, handle_each, undo, undo_each

__all__ = ["Context", "Service", "handle", "handle_each", "undo", "undo_each"]
