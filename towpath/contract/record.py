"""The base of every generated record class. A record is a frozen value that knows which schema it keeps."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A span of the calendar, as Avro's `duration` keeps it: three counts, none negative, that never flow over into
    each other, since a month has no fixed number of days, nor a day of milliseconds.
    """

    months: int = 0
    days: int = 0
    milliseconds: int = 0


class Record:
    """What travels in a topic: a command, an event, a reply, a saga's state.

    Subclasses are frozen slotted dataclasses, written by `towpath contracts generate` from the Avro files; nobody
    writes one by hand. `SCHEMA_NAME` is Avro's full name, `SCHEMA_FINGERPRINT` the fingerprint of the schema from
    which the class was generated (`towpath.contract.schema.fingerprint`).
    """

    __slots__ = ()

    SCHEMA_NAME: ClassVar[str]
    SCHEMA_FINGERPRINT: ClassVar[str]
