"""The base of every generated record class. A record is a frozen value that knows which schema it keeps."""

from typing import ClassVar


class Record:
    """What travels in a topic: a command, an event, a reply, a saga's state.

    Subclasses are frozen slotted dataclasses, written by `towpath contracts generate` from the Avro files; nobody
    writes one by hand. `SCHEMA_NAME` is Avro's full name, `SCHEMA_FINGERPRINT` the fingerprint of the schema from
    which the class was generated (`towpath.contract.schema.fingerprint`).
    """

    __slots__ = ()

    SCHEMA_NAME: ClassVar[str]
    SCHEMA_FINGERPRINT: ClassVar[str]
