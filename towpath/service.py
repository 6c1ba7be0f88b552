"""Everything that the file of a service imports: handlers, messages and records, in one place.

The rooms behind it: `participant` answers commands, `outbox` carries messages out, `contract` says what they may hold.
"""

from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.outbox.message import OutboxMessage, from_record
from towpath.outbox.postgres import write
from towpath.participant import Context, Service, handle, handle_each, undo, undo_each
from towpath.settings import Settings

__all__ = [
    "Codec",
    "Context",
    "OutboxMessage",
    "Record",
    "Service",
    "Settings",
    "from_record",
    "handle",
    "handle_each",
    "undo",
    "undo_each",
    "write",
]
