"""Looks in every room that knows a part of the reason why a saga stands where it stands.

It reads and changes nothing: the saga's state and history, the outboxes and inboxes, slots and connectors, consumer
groups and dead letters. What cannot be reached is named in the facts instead of ending the command.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

from towpath.capture import postgres as capture_postgres
from towpath.capture.connect import ConnectClient, ConnectorStatus
from towpath.capture.postgres import SlotState
from towpath.capture.start import next_step
from towpath.cli.saga_reading import InstanceReader
from towpath.clock import SystemClock, epoch_milliseconds
from towpath.errors import NotFoundError, RefusedError, TowpathError, WorldError
from towpath.orchestrator import envelope
from towpath.orchestrator.why import Asked, Capture, Facts, Message, Reader
from towpath.outbox.names import connector_name, slot_name
from towpath.saga.definition import Activity, Definition
from towpath.saga.keys import command_id_of, idempotency_key_of, saga_id_of, start_id_of_child
from towpath.saga.state import Direction, SagaState, StepState, StepStatus
from towpath.settings import Settings
from towpath.stack.home import Home
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

if TYPE_CHECKING:
    from towpath.deadletter.quarantine import Dead, Quarantine
    from towpath.stack.supervisor.spec import ProcessStatus

Found = TypeVar("Found")
_ASKED = frozenset({StepStatus.SENT, StepStatus.UNDOING})
_RESTS = frozenset({StepStatus.BACKOFF, StepStatus.UNDO_BACKOFF})
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
        self.reader = InstanceReader(self.settings)
        self._quarantines: dict[tuple[str, ...], Quarantine | None] = {}
        if not self.definitions:
            raise NotFoundError(f"the project has no saga {self.saga}", next_step="towpath saga list")

    def at(self, which: str) -> Facts:
        """Return what there is to know of one instance."""
        from towpath.contract.registry import load_codec

        codec = load_codec(self.settings, self.catalogue, [envelope.topic_of(self.saga, envelope.STATE)])
        found = self.reader.instances(self.saga, which, codec, definitions=self.definitions)
        open_ = [one for one in found if not one.state.ended] or found
        now = epoch_milliseconds(SystemClock())
        if not open_:
            return self._of_start(which, now)
        if len(open_) > 1:
            ids = ", ".join(one.state.saga_id for one in open_)
            raise RefusedError(f"key {which} has {len(open_)} instances: {ids}", next_step="name one by its id")
        state = open_[0].state
        definition = self.definitions.get(state.version)
        asked = () if definition is None or state.ended else tuple(self._asked(definition, state))
        rests = () if definition is None or state.ended else tuple(self._asked(definition, state, _RESTS))
        services = {one.participant for one in (*asked, *rests) if one.child is None}
        return Facts(
            self.saga,
            which,
            now,
            state=state,
            version_known=definition is not None,
            asked=asked,
            rests=rests,
            waits={} if definition is None else _waits(definition, state),
            stuck={} if definition is None else _stuck(definition, state),
            capture=self._capture(services),
            capture_behind=self._behind(definition, state, now),
            dead_hold_attempts=self.settings.saga.dead_commands_hold_attempts,
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

        def fits(record: ConsumedRecord) -> bool:
            named = (record.key or b"").decode("utf-8", "replace") == which
            return record.header("type") == type_ and (
                named or saga_id_of(self.saga, envelope.message_id(record)) == which
            )

        last = self._try(topic.name, lambda: self._last(topic.name, which, fits))
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
        for record in self.reader.of_key(topic, which):
            entry = None if record.value is None else codec.decode(record.value)
            if isinstance(entry, wire.HistoryEntry) and entry.happened == Happened.REFUSED.value:
                reason = entry.reason if entry.input == "Started" else reason
        return reason

    def _last(self, topic: str, which: str, fits: Callable[[ConsumedRecord], bool]) -> ConsumedRecord | None:
        """Return the last record in `topic` that fits, looked for from its end back."""
        for records in self.reader.backwards(topic, which):
            last = None
            for record in records:
                last = record if fits(record) else last
            if last is not None:
                return last
        return None

    # --- What an instance waits for

    def _asked(
        self, definition: Definition, state: SagaState, statuses: frozenset[StepStatus] = _ASKED
    ) -> Iterator[Asked]:
        since = datetime.fromtimestamp(state.started_milliseconds / 1000, UTC) - CLOCK_SLACK
        commands: dict[str, list[ConsumedRecord]] = {}
        for step_state in state.steps:
            for cell in step_state.items or (step_state,):
                if cell.status not in statuses:
                    continue
                step = definition.steps[definition.index[step_state.key]]
                item = cell.key if step_state.items else ""
                undo = cell.status in (StepStatus.UNDOING, StepStatus.UNDO_BACKOFF)
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
                    commands[topic] = self._of_key(topic, state.key, since)
                yield self._one_asked(state, step.key, item, undo, cell, participant, commands[topic], since)

    def _one_asked(
        self,
        state: SagaState,
        step: str,
        item: str,
        undo: bool,
        cell: StepState,
        participant: str,
        commands: Iterable[ConsumedRecord],
        since: datetime,
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
            reply = self._reply(state, step, item, direction, cell, participant, since)
        return Asked(step, item, undo, cell.attempt, cell.due_milliseconds, participant, message, recorded, reply)

    def _reply(
        self,
        state: SagaState,
        step: str,
        item: str,
        direction: Direction,
        cell: StepState,
        participant: str,
        since: datetime,
    ) -> Message:
        wanted = {"saga_id": state.saga_id, "step": step, "direction": direction.value, "round": str(cell.round)}

        def fits(record: ConsumedRecord) -> bool:
            same = all(record.header(name) == value for name, value in wanted.items())
            return same and (record.header("item") or "") == item

        topic = envelope.topic_of(self.saga, envelope.REPLIES)
        last = next((record for record in reversed(self._of_key(topic, state.key, since)) if fits(record)), None)
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
        dead, parked = self._dead(topic, id_, self._group(worker))
        return Message(
            what,
            topic,
            None if record is None else record.partition,
            None if record is None else record.offset,
            service,
            written,
            letter=None if dead is None else dead.place,
            parked_behind=None if parked is None else parked.place,
            parked_topic=None if parked is None else parked.topic,
            release=None if parked is None else parked.release,
            cause="" if dead is None else ": ".join(filter(None, (dead.letter.error, dead.letter.cause))),
            reader=None if record is None else self._reader(worker, record),
        )

    def _dead(self, topic: str, id_: str | None, group: str) -> "tuple[Dead | None, Parked | None]":
        """Return the dead letter of this group that the message is; or, if it only follows one, what it waits for."""
        from towpath.deadletter.quarantine import Fate
        from towpath.stream.broker.dead_letter import original

        quarantine = self._quarantine(topic)
        letters = [] if quarantine is None else quarantine.letters()
        # Others may read the same topic: what a view could not fold holds no saga up.
        of_group = [dead for dead in letters if (dead.letter.topic, dead.letter.application) == (topic, group)]
        # As they lay in the topic: a participant's letters go through its outbox, in headers of their own.
        waiting = [(dead, original(dead.record, dead.letter)) for dead in of_group if dead.fate is Fate.WAITING]
        own = next((dead for dead, record in waiting if id_ is not None and record.header("id") == id_), None)
        if quarantine is None or own is None or own.letter.behind is None:
            return own, None
        other = own.letter.behind.rpartition("[")[0]
        both = quarantine if other == topic else self._quarantine(topic, other)
        return None, None if both is None else parked_behind(both, own)

    def _quarantine(self, *topics: str) -> "Quarantine | None":
        """Return what the dead-letter topics of `topics` have; None where they could not be read."""
        from towpath.deadletter.redrive import read_quarantine

        if topics not in self._quarantines:
            letters = [dead.name for dead in map(self.catalogue.dead_letter, topics) if dead is not None]
            self._quarantines[topics] = self._try("the dead letters", lambda: read_quarantine(self.broker, letters))
        return self._quarantines[topics]

    def _group(self, worker: str) -> str:
        kind, _, name = worker.partition(":")
        return f"{self.settings.project.name}-{kind}-{name}"

    def _reader(self, worker: str, record: ConsumedRecord) -> Reader | None:
        from towpath.stack.workers import stalled_processes, standstill, way_back

        group = self._group(worker)
        place, home = TopicPartition(record.topic, record.partition), Home(self.settings.stack_home)

        def look() -> Reader:
            members = len(self.broker.group_members(group))
            position = self.broker.group_offsets(group, [place]).get(place)
            end = self.broker.end_offsets([place])[place]
            back = way_back(worker, self._processes, stalled_processes(home, self._processes))
            why, back = standstill(worker, home, self._processes, str(place)) or ("", back)
            return Reader(group, worker, members, position, end, back, why)

        return self._try(f"the consumer group {group}", look)

    @cached_property
    def _processes(self) -> "dict[str, ProcessStatus]":
        """The processes of the stack; none where it does not run here."""
        from towpath.stack.client import running

        return self._try("the processes of the stack", lambda: running(self.settings.stack_home)) or {}

    def _of_key(self, topic: str, key: str, since: datetime) -> list[ConsumedRecord]:
        return self._try(topic, lambda: list(self.reader.of_key(topic, key, since))) or []

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
        try:
            with ConnectClient(self.settings.connect) as client:
                status = client.status(connector_name(project, service))
        except NotFoundError:
            return capture_found(service, slot, None)
        except WorldError:
            return capture_found(service, slot, None, answered=False)
        return capture_found(service, slot, status)

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


class Parked(NamedTuple):
    """What a follower waits for: the letter at `place` of `topic`, or one that died at `place`, and is gone."""

    topic: str
    place: str
    release: str | None = None
    """What lets the key go on, where the letter is not there any more."""


def parked_behind(quarantine: "Quarantine", dead: "Dead") -> Parked:
    """Return what a follower waits for; where that was redriven or dropped meanwhile, what came after it."""
    from towpath.cli.dead_report import release_command

    cohort, behind = quarantine.cohort_of(dead), dead.letter.behind or ""
    if cohort.unseen or cohort.announced or cohort.stand_in is not None:
        gone = cohort.unseen[0] if cohort.unseen else behind
        return Parked(dead.letter.topic, gone, release_command(cohort, dead))
    heads = (cohort.awaited.get(position) for position in (behind, cohort.behind or ""))
    before = next((head for head in heads if head is not None and head.settlement is None), dead)
    return Parked(before.letter.topic, before.place)


def capture_found(
    service: str, slot: SlotState | None, status: ConnectorStatus | None, *, answered: bool = True
) -> Capture:
    """Return how a service's outbox is carried; `answered` says whether Connect did."""
    standing = "missing" if slot is None else "lost" if slot.lost else "there"
    lag_bytes = 0 if slot is None else slot.lag_bytes
    # Of a connector that nobody told of nothing is to be advised, but of a slot that is gone.
    unknown = standing == "there" and not answered
    advice = "towpath status" if unknown else next_step(service, status, slot)
    if status is None:
        return Capture(service, standing, "missing" if answered else None, lag_bytes, next_step=advice)
    state = "FAILED" if status.failure else status.state
    return Capture(service, standing, state, lag_bytes, status.failure_in_short or "", advice)


def _waits(definition: Definition, state: SagaState) -> dict[str, tuple[str, ...]]:
    waiting = {step.key for step in state.steps if step.status in (StepStatus.WAITING, StepStatus.STUCK)}
    return {
        step.key: tuple(kind.__name__ for kind in step.outcomes)
        for step in definition.steps
        if step.key in waiting and step.activity is Activity.WAIT
    }


def _stuck(definition: Definition, state: SagaState) -> dict[str, str]:
    """Say why steps are stuck that did not use their attempts up."""
    found = {}
    for cell in state.steps:
        step = definition.steps[definition.index[cell.key]]
        if cell.status is not StepStatus.STUCK:
            continue
        if not state.deadline_milliseconds:
            found[cell.key] = "the time of the saga as a whole is over, past the pivot"
        elif step.activity is Activity.DELAY:
            found[cell.key] = "its delay would end later than it may"
        elif step.over is not None and not cell.items:
            found[cell.key] = f"its list has more than {step.items_max} items"
    return found


def _class_of(record: ConsumedRecord) -> str:
    return (record.header("type") or "the message").rpartition(".")[2]
