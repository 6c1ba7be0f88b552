"""What of an outbox may also go to Kafka directly, once it is committed. Pure.

The one rule: the outbox is the guarantee, the direct way only a shorter one. A message that is handed over has the
same id as its row; Debezium carries the row all the same, and whoever reads the topic drops what comes second, as it
drops anything that Debezium repeats. So a hand-over may fail, or never happen, and nothing is lost.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from towpath.outbox.message import HEADER_COLUMNS, OutboxMessage

HANDED_OVER = "handed_over"
"""The header that tells the direct copy from Debezium's: audits of capture count only what Debezium carried."""
MESSAGES_AT_ONCE_MAX = 4
"""Of one commit. More of them are load, and a crowd is carried with less work by Debezium alone."""

Headers = tuple[tuple[str, bytes | None], ...]


class Handover(Protocol):
    """Takes messages to Kafka that are committed in an outbox."""

    def hand_over(self, messages: tuple[OutboxMessage, ...]) -> int:
        """Send messages whose transaction is committed, if there is no load; return how many were sent. Never raises.

        Does not wait until they have arrived.
        """
        ...

    def close(self) -> None:
        """Close, whatever has not arrived: Debezium brings it."""
        ...


@dataclass(frozen=True, slots=True)
class DirectRecord:
    """A message as it lies in its topic."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


def routed_record(message: OutboxMessage) -> DirectRecord:
    """Return the record that Debezium's EventRouter makes of a row.

    Every column that has a value is a header of its name, as text.
    """
    columns = [("id", str(message.id))]
    columns += [(name, str(value)) for name in HEADER_COLUMNS if (value := getattr(message, name)) is not None]
    headers = tuple((name, value.encode()) for name, value in columns)
    return DirectRecord(message.topic, message.key.encode(), message.payload, headers)


def direct_record(message: OutboxMessage) -> DirectRecord:
    """Return the record of a row as Debezium would make it, and beside it the mark of the direct way."""
    routed = routed_record(message)
    return replace(routed, headers=(*routed.headers, (HANDED_OVER, b"1")))


class Allowance:
    """So many messages a second, and a burst of half as many: beyond that the direct way costs more than it brings."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._burst = per_second / 2
        self._left = self._burst
        self._at_seconds = 0.0

    def take(self, messages: int, now_seconds: float) -> bool:
        """Return whether `messages` may go now, and count them; `now_seconds` never runs backwards."""
        gained = (now_seconds - self._at_seconds) * self._per_second
        self._left, self._at_seconds = min(self._left + gained, self._burst), now_seconds
        if messages > min(MESSAGES_AT_ONCE_MAX, self._left):
            # What is asked for counts even where it is refused: under steady load the direct way stays off.
            self._left = max(self._left - messages, -self._burst)
            return False
        self._left -= messages
        return True
