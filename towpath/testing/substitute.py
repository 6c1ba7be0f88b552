"""A service in memory, where a test has no database for the real one: it answers as the test's author declares.

The one rule: it keeps the participant's contract, by the participant's own core: one recorded outcome for each
idempotency key, repeated to whoever asks again, and a command that comes after its undo is passed over.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from towpath.contract.record import Record
from towpath.outbox.handover import routed_record
from towpath.outbox.message import OutboxMessage
from towpath.participant.core import (
    Command,
    InboxRow,
    Ledger,
    Verdict,
    decide,
    event_message,
    read_command,
    reply_message,
)
from towpath.participant.service import Context, Emitted, Handling
from towpath.saga.definition import Definition
from towpath.saga.state import Direction
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.failures import RecordFailed
from towpath.testing.parts import ProjectParts

Reply = Record | type[Record] | Callable[[Any], Record | None] | None
"""A reply; its class, made like the command; a function of the command; or None: nobody answers."""
Sagas = Mapping[str, Mapping[int, Definition]]


@dataclass(frozen=True, slots=True)
class DeclaredAnswer:
    """How a test says that a command is answered, and which events go with that."""

    reply: Reply
    emits: tuple[Record | type[Record], ...] = ()


class DeclaredAnswers:
    """What a test's author has declared: by the command's class, the latest declaration first."""

    def __init__(self, parts: ProjectParts) -> None:
        self._parts = parts
        self._declared: dict[type[Record], DeclaredAnswer] = {}
        self.by_example = False

    def declare(self, command: type[Record], reply: Reply, emits: Iterable[Record | type[Record]]) -> None:
        """Have `command` answered so from now on."""
        self._declared[command] = DeclaredAnswer(reply, tuple(emits))

    def has(self, command: type[Record]) -> bool:
        """Return whether a command is answered as declared, be it by example, and not by its service."""
        return self.by_example or command in self._declared

    def of(self, command: Record, outcomes: Mapping[type, bool]) -> tuple[Record | None, tuple[Record, ...]]:
        """Return the reply to `command`, None where nobody answers, and the events that go with it.

        `outcomes` are the replies that the saga's step knows, and whether each is a success. Raises AssertionError
        where nothing was declared, or something that the step does not know.
        """
        kind = type(command)
        answer = self._declared.get(kind)
        if answer is None:
            if not self.by_example:
                raise AssertionError(self._undeclared(kind, outcomes))
            answer = DeclaredAnswer(next((reply for reply, succeeds in outcomes.items() if succeeds), None))
        reply = self._reply(answer.reply, command)
        if reply is not None and type(reply) not in outcomes:
            known = ", ".join(sorted(each.__name__ for each in outcomes))
            raise AssertionError(f"{kind.__name__} is answered by {type(reply).__name__}; the saga knows {known}")
        emitted = tuple(self._event(event, command, reply) for event in answer.emits) if reply is not None else ()
        return reply, emitted

    def _reply(self, reply: Reply, command: Record) -> Record | None:
        if isinstance(reply, type):
            return self._parts.example(reply, command)
        return reply if reply is None or isinstance(reply, Record) else reply(command)

    def _event(self, event: Record | type[Record], command: Record, reply: Record | None) -> Record:
        if not isinstance(event, type):
            return event
        return reply if isinstance(reply, event) else self._parts.example(event, command)

    @staticmethod
    def _undeclared(kind: type, outcomes: Mapping[type, bool]) -> str:
        reply = next((each.__name__ for each, succeeds in outcomes.items() if succeeds), "...")
        return (
            f"nobody answers {kind.__name__}: this project runs without PostgreSQL, so without its services.\n"
            f"declare the answer: project.answers({kind.__name__}, {reply});\n"
            "or every one by the contracts' examples: project.answers_by_example();\n"
            "or run the real services: pytest --towpath-postgres URL"
        )


class Substitute:
    """One service's place in memory."""

    def __init__(self, name: str, parts: ProjectParts, answers: DeclaredAnswers) -> None:
        self.name = name
        self._parts = parts
        self._answers = answers
        self._rows: dict[UUID, InboxRow] = {}

    def answer(self, records: Sequence[ConsumedRecord], unit: Any) -> None:
        """Answer commands, in the unit of work that sends the replies. Raises RecordFailed naming one at fault."""
        ledger = Ledger(self._rows.values())
        for record in records:
            try:
                messages = self._messages(record, ledger)
            except Exception as error:
                raise RecordFailed(record, error) from error
            for message in messages:
                routed = routed_record(message)
                unit.send(routed.topic, routed.value, key=routed.key, headers=routed.headers)
        changed = [*ledger.added, *(row for key in ledger.marked if (row := ledger.row(key)) is not None)]
        self._rows.update((row.idempotency_key, row) for row in changed)

    def _messages(self, record: ConsumedRecord, ledger: Ledger) -> list[OutboxMessage]:
        asked = self._parts.codec.decode(record.value or b"")
        outcomes = self._outcomes(record)
        command = read_command(record, {asked.SCHEMA_NAME: _handling(asked, record, outcomes)})
        row = ledger.row(command.idempotency_key)
        match decide(row):
            case Verdict.REPLAY:
                assert row is not None
                return [reply_message(command, row)]
            case Verdict.IGNORE:
                return []
            case Verdict.RUN:
                return self._carried_out(command, asked, outcomes, ledger)

    def _carried_out(
        self, command: Command, asked: Record, outcomes: Mapping[type, bool], ledger: Ledger
    ) -> list[OutboxMessage]:
        reply, events = self._answers.of(asked, outcomes)
        if reply is None:
            return []
        codec, topic = self._parts.codec, f"{self.name}.events"
        refused = not outcomes[type(reply)]
        row = ledger.record(command, reply.SCHEMA_NAME, codec.encode(reply), refused=refused)
        emitted = [
            event_message(command, number, Emitted(event, command.key, None), codec.encode(event), events_topic=topic)
            for number, event in enumerate(() if refused else events)
        ]
        return [*emitted, reply_message(command, row)]

    def _outcomes(self, record: ConsumedRecord) -> Mapping[type, bool]:
        """Return the replies that the step knows which sent a command, and whether each is a success."""
        found: dict[type, bool] = {}
        for definition in self._parts.sagas.get(record.header("saga") or "", {}).values():
            for step in definition.steps:
                if step.key != record.header("step"):
                    continue
                undo = record.header("direction") == Direction.UNDO.value
                known: Mapping[Any, Any] = (step.undo.outcomes if step.undo else {}) if undo else step.outcomes
                found.update({kind: bool(succeeds) for kind, succeeds in known.items()})
        return found


def _handling(asked: Record, record: ConsumedRecord, outcomes: Mapping[type, bool]) -> Handling:
    """Return how a command is read: an undo must say of what."""
    undo = record.header("direction") == Direction.UNDO.value
    return Handling(
        type(asked),
        lambda _: (),
        frozenset(kind for kind, succeeds in outcomes.items() if succeeds),
        frozenset(kind for kind, succeeds in outcomes.items() if not succeeds),
        of=type(asked) if undo else None,
    )


def with_answers(service: str, handling: Handling, answers: DeclaredAnswers) -> Handling:
    """Return a real service's handling that answers as the test declares, where it declares anything.

    Inbox, transaction and outbox stay those of the service; only its own function is replaced.
    """
    outcomes = {**dict.fromkeys(handling.succeeds, True), **dict.fromkeys(handling.fails, False)}

    def handler(contexts: Sequence[Context[Any]]) -> Sequence[Record]:
        if not answers.has(handling.command):
            return handling.handler(contexts)
        replies = []
        for context in contexts:
            reply, events = answers.of(context.command, outcomes)
            assert reply is not None, f"a real service answers every command; to silence it: project.away({service!r})"
            for event in events:
                context.emit(event, key=context.key)
            replies.append(reply)
        return replies

    return Handling(handling.command, handler, handling.succeeds, handling.fails, of=handling.of)
