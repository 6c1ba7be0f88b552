"""Looks in every room that knows a part of the reason why a saga stands where it stands.

It reads and changes nothing: the saga's state and history, the outboxes and inboxes, slots and connectors, consumer
groups and dead letters. What cannot be reached is named in the facts instead of ending the command.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from towpath.capture import postgres as capture_postgres
from towpath.capture.connect import ConnectClient
from towpath.clock import SystemClock
from towpath.errors import NotFoundError, RefusedError, TowpathError, WorldError
from towpath.orchestrator import envelope
from towpath.orchestrator.why import Asked, Capture, Facts, Message, Reader
from towpath.outbox.names import connector_name, slot_name
from towpath.saga.definition import Activity, Definition
from towpath.saga.keys import command_id_of, idempotency_key_of, saga_id_of, start_id_of_child
from towpath.saga.state import Direction, SagaState, StepState, StepStatus
from towpath.settings import Settings
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

if TYPE_CHECKING:
    from towpath.deadletter.quarantine import Dead, Quarantine

Found = TypeVar("Found")
_ASKED = frozenset({StepStatus.SENT, StepStatus.UNDOING})
CLOCK_SLACK = timedelta(minutes=10)
"""A record's time is its writer's clock: reading begins so much before the instance began."""


@dataclass
class Look:
    """One look at everything that concerns one saga."""

    settings: Settings
    saga: str
    unknown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from towpath.contract.catalogue import Catalogue
        from towpath.project import load_sagas
        from towpath.stream.broker.kafka import KafkaBroker

        self.catalogue: Catalogue = Catalogue.load(self.settings)
        self.definitions: Mapping[int, Definition] = load_sagas(self.settings).get(self.saga, {})
        self.broker = KafkaBroker(self.settings.kafka, self.settings.stream)
        self._quarantine: Quarantine | None = None
        if not self.definitions:
            raise NotFoundError(f"the project has no saga {self.saga}", next_step="towpath saga list")

    def at(self, which: str) -> Facts:
        """Return what there is to know of one instance."""
        from towpath.cli.saga_instances import read_instances

        found = [one for one in read_instances(self.settings, self.saga) if which in (one.state.saga_id, one.state.key)]
        open_ = [one for one in found if not one.state.ended] or found
        now = int(SystemClock().now().timestamp() * 1000)
        if not open_:
            return self._of_start(which, now)
        if len(open_) > 1:
            ids = ", ".join(one.state.saga_id for one in open_)
            raise RefusedError(f"key {which} has {len(open_)} instances: {ids}", next_step="name one by its id")
        state = open_[0].state
        definition = self.definitions.get(state.version)
        asked = () if definition is None or state.ended else tuple(self._asked(definition, state))
        services = {one.participant for one in asked if one.child is None}
        return Facts(
            self.saga,
            which,
            now,
            state=state,
            version_known=definition is not None,
            asked=asked,
            waits={} if definition is None else _waits(definition, state),
            capture=self._capture(services),
            capture_behind=self._behind(definition, state, now),
            unknown=tuple(self.unknown),
        )

    # --- Where there is no instance

    def _of_start(self, which: str, now: int) -> Facts:
        from towpath.client.saga import start_topic

        definition = self.definitions[max(self.definitions)]
        starts_on: Any = definition.starts_on
        refused = self._try("the history", lambda: self._refused(which))
        topic = self.catalogue.topic(start_topic(self.catalogue, self.saga, starts_on))
        type_ = starts_on.SCHEMA_NAME
        records = self._try(topic.name, lambda: self._records(topic.name, None)) or []

        def fits(record: ConsumedRecord) -> bool:
            named = (record.key or b"").decode("utf-8", "replace") == which
            return record.header("type") == type_ and (
                named or saga_id_of(self.saga, envelope.message_id(record)) == which
            )

        last = next((record for record in reversed(records) if fits(record)), None)
        service = topic.producers[0] if topic.producers else topic.owner
        written = None
        if last is None:
            written = self._try(
                f"the outbox of {service}", lambda: self._in_outbox(service, topic.name, which, type_, None)
            )
        start = None
        if last is not None or written:
            start = self._message(starts_on.__name__, topic.name, last, service, written, f"saga:{self.saga}")
        return Facts(
            self.saga,
            which,
            now,
            start=start,
            refused=refused,
            capture=self._capture({service}),
            unknown=tuple(self.unknown),
        )

    def _refused(self, which: str) -> str | None:
        """Return why the last start for this key was refused, None where none was."""
        from towpath.contract.registry import load_codec
        from towpath.orchestrator import records as wire
        from towpath.saga.effects import Happened

        topic = envelope.topic_of(self.saga, envelope.HISTORY)
        codec = load_codec(self.settings, self.catalogue, [topic])
        reason = None
        for record in self._records(topic, None):
            if record.key == which.encode() and record.value is not None:
                entry = codec.decode(record.value)
                if (
                    isinstance(entry, wire.HistoryEntry)
                    and entry.happened == Happened.REFUSED.value
                    and entry.input == "Started"
                ):
                    reason = entry.reason
        return reason

    # --- What an instance waits for

    def _asked(self, definition: Definition, state: SagaState) -> Iterator[Asked]:
        since = datetime.fromtimestamp(state.started_milliseconds / 1000, UTC) - CLOCK_SLACK
        replies_topic = envelope.topic_of(self.saga, envelope.REPLIES)
        replies = self._try(replies_topic, lambda: self._records(replies_topic, since)) or []
        commands: dict[str, list[ConsumedRecord]] = {}
        for step_state in state.steps:
            for cell in step_state.items or (step_state,):
                if cell.status not in _ASKED:
                    continue
                step = definition.steps[definition.index[step_state.key]]
                item = cell.key if step_state.items else ""
                undo = cell.status is StepStatus.UNDOING
                if step.child is not None:
                    child = saga_id_of(step.child.name, start_id_of_child(state.saga_id, step.key, item))
                    yield Asked(
                        step.key,
                        item,
                        undo,
                        cell.attempt,
                        cell.due_milliseconds,
                        step.child.name,
                        Message("the start", ""),
                        child=child,
                    )
                    continue
                participant = (step.undo.participant if undo and step.undo else "") or step.participant
                topic = f"{participant}.commands"
                if topic not in commands:
                    commands[topic] = self._try(topic, lambda topic=topic: self._records(topic, since)) or []  # type: ignore[misc]
                yield self._one_asked(state, step.key, item, undo, cell, participant, commands[topic], replies)

    def _one_asked(
        self,
        state: SagaState,
        step: str,
        item: str,
        undo: bool,
        cell: StepState,
        participant: str,
        commands: Iterable[ConsumedRecord],
        replies: Iterable[ConsumedRecord],
    ) -> Asked:
        direction = Direction.UNDO if undo else Direction.DO
        key = idempotency_key_of(state.saga_id, step, item, direction, cell.round)
        id_ = command_id_of(key, cell.attempt)
        command = next((record for record in commands if record.header("id") == id_), None)
        topic = f"{participant}.commands"
        what = _class_of(command) if command is not None else "the command"
        message = self._message(what, topic, command, None, None, f"service:{participant}", id_=id_)
        recorded = self._try(f"the inbox of {participant}", lambda: self._recorded(participant, key))
        reply = None
        if recorded:
            reply = self._reply(state, step, item, direction, cell, participant, replies)
        return Asked(step, item, undo, cell.attempt, cell.due_milliseconds, participant, message, recorded, reply)

    def _reply(
        self,
        state: SagaState,
        step: str,
        item: str,
        direction: Direction,
        cell: StepState,
        participant: str,
        replies: Iterable[ConsumedRecord],
    ) -> Message:
        wanted = {"saga_id": state.saga_id, "step": step, "direction": direction.value, "round": str(cell.round)}

        def fits(record: ConsumedRecord) -> bool:
            same = all(record.header(name) == value for name, value in wanted.items())
            return same and (record.header("item") or "") == item

        last = None
        for record in replies:
            last = record if fits(record) else last
        topic = envelope.topic_of(self.saga, envelope.REPLIES)
        written = None
        if last is None:
            written = self._try(
                f"the outbox of {participant}",
                lambda: self._in_outbox(participant, topic, state.key, None, state.saga_id),
            )
        what = "the reply" if last is None else _class_of(last)
        return self._message(what, topic, last, participant, written, f"saga:{self.saga}")

    # --- Where a message got to

    def _message(
        self,
        what: str,
        topic: str,
        record: ConsumedRecord | None,
        service: str | None,
        written: bool | None,
        worker: str,
        id_: str | None = None,
    ) -> Message:
        id_ = id_ if record is None else envelope.message_id(record)
        key = None if record is None else record.key
        dead, behind = self._dead(topic, id_, key)
        return Message(
            what,
            topic,
            None if record is None else record.partition,
            None if record is None else record.offset,
            service,
            written,
            letter=None if dead is None else dead.place,
            parked_behind=None if behind is None else behind.place,
            cause="" if dead is None else dead.letter.error,
            reader=None if record is None else self._reader(worker, record),
        )

    def _dead(self, topic: str, id_: str | None, key: bytes | None) -> "tuple[Dead | None, Dead | None]":
        """Return the dead letter that the message is, or the one that its key waits behind."""
        from towpath.deadletter.quarantine import Fate

        quarantine = self._try("the dead letters", self._read_quarantine)
        letters = [] if quarantine is None else quarantine.letters()
        waiting = [dead for dead in letters if dead.letter.topic == topic and dead.fate is Fate.WAITING]
        own = next((dead for dead in waiting if id_ is not None and dead.record.header("id") == id_), None)
        if own is not None and own.letter.behind is None:
            return own, None
        same_key = [dead for dead in waiting if dead.sets_parking and key is not None and dead.record.key == key]
        return None, (same_key[0] if same_key and (own is not None) else None)

    def _read_quarantine(self) -> "Quarantine":
        from towpath.contract.catalogue import TopicKind
        from towpath.deadletter.redrive import read_quarantine

        if self._quarantine is None:
            names = [topic.name for topic in self.catalogue.topics.values() if topic.kind is TopicKind.DEAD]
            self._quarantine = read_quarantine(self.broker, names)
        return self._quarantine

    def _reader(self, worker: str, record: ConsumedRecord) -> Reader | None:
        kind, _, name = worker.partition(":")
        group = f"{self.settings.project.name}-{kind}-{name}"
        place = TopicPartition(record.topic, record.partition)

        def look() -> Reader:
            members = len(self.broker.group_members(group))
            position = self.broker.group_offsets(group, [place]).get(place)
            return Reader(group, worker, members, position, self.broker.end_offsets([place])[place])

        return self._try(f"the consumer group {group}", look)

    def _records(self, topic: str, since: datetime | None) -> list[ConsumedRecord]:
        from towpath.stream.broker.kafka import read_records

        return list(read_records(self.settings, [topic], since))

    # --- Databases and capture

    def _recorded(self, participant: str, key: str) -> bool:
        from towpath.participant.postgres import fetch

        with closing(capture_postgres.connect(self.settings, participant)) as connection:
            return any(row.type is not None for row in fetch(connection, [UUID(key)]))

    def _in_outbox(self, service: str, topic: str, key: str, type_: str | None, saga_id: str | None) -> bool:
        with closing(capture_postgres.connect(self.settings, service)) as connection:
            return capture_postgres.has_message(connection, topic, key, type_, saga_id)

    def _capture(self, services: Iterable[str]) -> dict[str, Capture]:
        found = {}
        for service in sorted(services):
            capture = self._try(f"the capture of {service}", lambda service=service: self._one_capture(service))  # type: ignore[misc]
            if capture is not None:
                found[service] = capture
        return found

    def _one_capture(self, service: str) -> Capture:
        project = self.settings.project.name
        with closing(capture_postgres.connect(self.settings, service)) as connection:
            slot = capture_postgres.slot_state(connection, slot_name(project, service))
        state, trace = self._connector(connector_name(project, service))
        standing = "missing" if slot is None else "lost" if slot.lost else "there"
        return Capture(service, standing, state, 0 if slot is None else slot.lag_bytes, trace)

    def _connector(self, name: str) -> tuple[str | None, str]:
        try:
            with ConnectClient(self.settings.connect) as client:
                status = client.status(name)
        except NotFoundError:
            return "missing", ""
        except WorldError:
            return None, ""
        failure = status.failure
        return ("FAILED" if failure else status.state), failure or ""

    def _behind(self, definition: Definition | None, state: SagaState, now: int) -> tuple[str, ...]:
        """Return the services whose capture holds deadlines, where a deadline is overdue."""
        from towpath.capture.kafka import services_behind
        from towpath.orchestrator.core import participants_of

        cells = (*state.steps, *(item for step in state.steps for item in step.items))
        if definition is None or not any(0 < cell.due_milliseconds < now for cell in cells):
            return ()
        services = participants_of({definition.version: definition})
        return self._try("the heartbeats of capture", lambda: services_behind(self.settings, services, now)) or ()

    def _try(self, what: str, look: Callable[[], Found]) -> Found | None:
        """Return what `look` finds; where it cannot look, note that and return None."""
        try:
            return look()
        except TowpathError as error:
            self.unknown.append(f"{what} ({error.cause})")
            return None


def _waits(definition: Definition, state: SagaState) -> dict[str, tuple[str, ...]]:
    waiting = {step.key for step in state.steps if step.status is StepStatus.WAITING}
    return {
        step.key: tuple(kind.__name__ for kind in step.outcomes)
        for step in definition.steps
        if step.key in waiting and step.activity is Activity.WAIT
    }


def _class_of(record: ConsumedRecord) -> str:
    return (record.header("type") or "the message").rpartition(".")[2]
