"""Sets capture going again: after a lost slot, or past a row that Kafka refuses; whatever it is, by the same steps.

The connector is stopped, so that nothing more reaches Kafka and what did can be read. The slot is made anew where it is
lost. What the outbox holds and its topics lack is written anew, in order of commit. The connector forgets its position
and begins where the slot does. Each step may be run again, so the whole may be, wherever it ended.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from towpath.capture import kafka, postgres
from towpath.capture.connect import ConnectClient, ConnectorStatus
from towpath.capture.connector import outbox_connector
from towpath.capture.refusal import Refusal, TopicAndId, UncarriedRow, refusal
from towpath.capture.start import wait_until_captured
from towpath.clock import Clock, SystemClock, wait_until
from towpath.contract.catalogue import Catalogue
from towpath.errors import NotFoundError, RefusedError, TowpathError, WorldError
from towpath.outbox.names import connector_name, slot_name
from towpath.outbox.postgres import ensure_slot
from towpath.settings import Settings

READ_SECONDS_MAX = 60.0
UNREAD_SECONDS_MAX = 30.0
POLL_SECONDS = 0.1
LONG_AGO = datetime.min.replace(tzinfo=UTC)  # a row from before times were checked may have any


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How the capture of a service stands. `uncarried` may still be on its way while `reading`."""

    service: str
    connector: ConnectorStatus | None
    slot: postgres.SlotState | None
    uncarried: tuple[UncarriedRow, ...]
    refusals: tuple[Refusal, ...]

    @property
    def reading(self) -> bool:
        """Return whether the outbox is read: there is nothing to recover."""
        running = self.connector is not None and self.connector.running
        return running and self.slot is not None and self.slot.active and not self.slot.lost

    @property
    def trouble(self) -> str | None:
        """Return what is wrong in one line, None where the outbox is read."""
        if self.slot is None:
            return "its slot is gone"
        if self.slot.lost:
            return f"its slot is lost ({self.slot.invalidation_reason or 'its write-ahead log is gone'})"
        if self.connector is None:
            return "Connect does not know its connector"
        if self.connector.position_gone:
            return "its slot begins after the last message that was carried"
        if self.connector.failure:
            return self.connector.failure
        return None if self.reading else f"nobody reads its slot; its connector is {self.connector.state}"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done: messages written anew, rows kept aside, and whether the slot had to be made."""

    service: str
    slot_made: bool
    written: int
    skipped: int


def diagnose(
    connection: postgres.Connection,
    connect: ConnectClient,
    settings: Settings,
    service: str,
    *,
    since: datetime | None = None,
    clock: Clock | None = None,
) -> Diagnosis:
    """Look at connector, slot, outbox and topics, and change nothing. Raises WorldError where one of them is away.

    `since` limits how far back the outbox is compared; by default all that it still has.
    """
    _, found = _look(connection, connect, settings, service, since, clock or SystemClock())
    return found


def recover(
    connection: postgres.Connection,
    connect: ConnectClient,
    settings: Settings,
    catalogue: Catalogue,
    service: str,
    *,
    skip: Collection[UUID] = (),
    actor: str,
    reason: str,
    since: datetime | None = None,
    clock: Clock | None = None,
) -> Recovery:
    """Set the capture of `service` going again, and return once its outbox is read.

    `skip` names the messages to step over: they are kept in the table `outbox_skipped`, wherever this ends. Raises
    RefusedError, before anything is sent, where Kafka refuses a message that `skip` does not name, or where somebody
    else recovers at this moment; WorldError where a part is away. Each says so where the connector is left stopped.
    """
    clock = clock or SystemClock()
    name, slot = connector_name(settings.project.name, service), slot_name(settings.project.name, service)
    with postgres.alone(connection, service):
        with _told_that_it_is_stopped(service), postgres.telling(service):
            kafka.ensure_heartbeat_topics(settings, [service])
            connect.apply(outbox_connector(settings, catalogue, service))
            connect.stop(name, settings.connect.timeout_seconds)
            made = _sound_slot(connection, slot, clock)
            carried, found = _look(connection, connect, settings, service, since, clock)
            aside, refused = _parted(found, frozenset(skip))
            written, skipped = 0, 0
            if refused:
                postgres.set_aside(connection, aside, actor=actor, reason=reason)
                raise _refused(service, refused[0])
            if found.uncarried:
                with postgres.connect(settings, service) as advance:
                    written, skipped = postgres.write_uncarried(
                        connection, advance, slot, carried, since or LONG_AGO, aside, actor=actor, reason=reason
                    )
            connect.forget_position(name)
            connect.resume(name)
        wait_until_captured(connect, settings, service, timeout_seconds=READ_SECONDS_MAX, clock=clock)
    return Recovery(service, made, written, skipped)


@contextmanager
def _told_that_it_is_stopped(service: str) -> Iterator[None]:
    """Say in each error that the connector is stopped, and what sets it going once the cause is gone."""
    try:
        yield
    except RefusedError:  # has its own way out
        raise
    except TowpathError as error:
        error.kept = f"{error.kept or 'every message, in the outbox'}; the connector of {service} may be stopped"
        error.next_step = "; ".join(filter(None, [error.next_step, f"then: towpath capture recover {service}"]))
        raise


def _sound_slot(connection: postgres.Connection, slot: str, clock: Clock) -> bool:
    """Wait until nobody reads the slot, and make it anew where it is missing or lost; return whether it was.

    A task's connection to the server may outlive the task by a moment.
    """
    state = wait_until(
        clock,
        lambda: postgres.slot_state(connection, slot),
        holds=lambda found: found is None or not found.active,
        seconds=UNREAD_SECONDS_MAX,
        every_seconds=POLL_SECONDS,
    )
    if state is not None and state.active:
        raise WorldError(
            f"slot {slot} is still read, though its connector is stopped",
            kept="every message, in the outbox",
            next_step="end who reads it (pg_stat_replication shows it), then run the same command again",
        )
    if state is not None and state.lost:
        postgres.drop_slot(connection, slot)
    return ensure_slot(connection, slot)


def _parted(found: Diagnosis, skip: frozenset[UUID]) -> tuple[tuple[Refusal, ...], tuple[Refusal, ...]]:
    """Return what to keep aside, and what Kafka refuses beside it.

    Of an id that waits in two topics it is those that Kafka refuses, or both where it refuses neither.
    """
    aside = [refused for refused in found.refusals if refused.row.id in skip]
    unasked = skip - {refused.row.id for refused in aside}
    aside += [Refusal(row, "Kafka was not asked") for row in found.uncarried if row.id in unasked]
    return tuple(aside), tuple(refused for refused in found.refusals if refused.row.id not in skip)


def _refused(service: str, refused: Refusal) -> RefusedError:
    id_ = refused.row.id
    return RefusedError(
        f"Kafka refuses message {id_} of {service}: {refused.cause}",
        kept="what was stepped over, aside; every other message, in the outbox; the connector is stopped",
        next_step=f'towpath capture skip {service} {id_} --reason "..."; or change the topic, '
        f"then: towpath capture recover {service}",
    )


def _look(
    connection: postgres.Connection,
    connect: ConnectClient,
    settings: Settings,
    service: str,
    since: datetime | None,
    clock: Clock,
) -> tuple[set[TopicAndId], Diagnosis]:
    """Return what was carried, and what follows from it."""
    try:
        connector = connect.status(connector_name(settings.project.name, service))
    except NotFoundError:
        connector = None
    slot = postgres.slot_state(connection, slot_name(settings.project.name, service))
    begin = since or postgres.oldest_message(connection) or LONG_AGO
    by_topic = kafka.carried_ids(settings, postgres.topics_written(connection, since or LONG_AGO), begin)
    carried = {(topic, id_) for topic, ids in by_topic.items() for id_ in ids}
    rows = postgres.uncarried_rows(connection, carried, since or LONG_AGO)
    topics = kafka.topic_settings(settings, {row.topic for row in rows})
    now = clock.now()
    refusals = tuple(found for row in rows if (found := refusal(row, topics, now)) is not None)
    return carried, Diagnosis(service, connector, slot, tuple(rows), refusals)
