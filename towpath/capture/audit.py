"""Conducts the completeness audit: reads the outbox, reads the topics, and waits until the answer is certain.

The one rule: a message is missing only once the slot has confirmed a position behind it and its topic, read after
that, still lacks it. Until then it is on its way.
"""

from dataclasses import dataclass
from datetime import datetime

from towpath.capture import kafka, postgres
from towpath.capture.completeness import TopicAudit, compare
from towpath.clock import Clock, SystemClock, wait_until
from towpath.outbox.names import slot_name
from towpath.settings import Settings

POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Audit:
    """The verdict on one service. Not `certain`: what is missing may still be on its way."""

    service: str
    certain: bool
    topics: tuple[TopicAudit, ...]

    @property
    def complete(self) -> bool:
        """Return whether every message arrived."""
        return all(topic.complete for topic in self.topics)


def audit(
    connection: postgres.Connection,
    settings: Settings,
    service: str,
    since: datetime,
    *,
    timeout_seconds: float = 30.0,
    clock: Clock | None = None,
) -> Audit:
    """Compare the messages that `service` wrote since `since` with what its topics hold.

    `connection` is to the service's database. Raises NotFoundError where nothing captures it, WorldError where
    Kafka does not answer.
    """
    slot = slot_name(settings.project.name, service)
    written = postgres.written_ids(connection, since)
    end = postgres.current_lsn(connection)
    connection.rollback()

    def look() -> Audit:
        certain = postgres.has_carried(connection, service, slot, end)
        connection.rollback()
        return Audit(service, certain, compare(written, kafka.carried_ids(settings, written, since)))

    return wait_until(
        clock or SystemClock(),
        look,
        holds=lambda verdict: verdict.complete or verdict.certain,
        seconds=timeout_seconds,
        every_seconds=POLL_SECONDS,
    )
