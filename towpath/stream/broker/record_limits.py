"""How large a record each topic takes. Pure.

The one rule: what a topic would refuse is refused where it is written, so that its writer is known; a broker refuses a
whole transaction, and does not say which of its records it was.
"""

from collections.abc import Mapping

from towpath.stream.broker.port import OutputRefused
from towpath.stream.broker.record import Headers

TOPIC_BYTES_MAX = 1_048_588
"""Kafka's default of `max.message.bytes`: 1 MiB and the 12 bytes of an old format's framing."""
WEIGHED_FROM_BYTES = 16_384
"""Values below need no look at their topic's limit; what is too large by its key or headers, the broker refuses."""
FRAMING_BYTES = 96
"""Of a batch with one record: 61 for the batch, at most 26 for the record; the rest is to spare."""
HEADER_BYTES = 10
"""Of each header, beside name and value: two lengths of at most 5 bytes."""


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return the most that a record takes in its topic, not compressed, alone in its batch."""
    named = sum(HEADER_BYTES + 4 * len(name) + len(content or b"") for name, content in headers)
    return FRAMING_BYTES + len(key or b"") + len(value or b"") + named


class RecordLimits:
    """`max.message.bytes` by topic, as the catalogue has it; Kafka's default for topics that are not named."""

    def __init__(self, bytes_max: Mapping[str, int] | None = None) -> None:
        self._bytes_max = dict(bytes_max or {})

    def of(self, topic: str) -> int:
        """Return the most bytes of a record of `topic`, framing included."""
        return self._bytes_max.get(topic, TOPIC_BYTES_MAX)

    @property
    def greatest(self) -> int:
        """Return the most that any topic takes."""
        return max(TOPIC_BYTES_MAX, *self._bytes_max.values(), 0)

    @property
    def least(self) -> int:
        """Return what every topic takes."""
        return min(TOPIC_BYTES_MAX, *self._bytes_max.values(), TOPIC_BYTES_MAX)

    def fit(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Return whether `topic` takes this record."""
        return record_bytes(key, value, headers) <= self.of(topic)

    def check(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise OutputRefused for a record that `topic` does not take."""
        if not self.fit(topic, key, value, headers):
            raise too_large(topic, record_bytes(key, value, headers), self.of(topic))


def too_large(topic: str, bytes_: int, bytes_max: int) -> OutputRefused:
    """Return the error for a record of `bytes_` that its topic does not take."""
    return OutputRefused(
        f"a record of {bytes_} bytes is too large for {topic}, which takes {bytes_max}",
        kept="nothing of this unit of work",
        next_step=f"write less, or raise max.message.bytes in schemas/topics/{topic}.yaml, then: towpath provision",
    )
