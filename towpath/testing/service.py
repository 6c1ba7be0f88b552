"""A service tested alone: given a command, expect its reply, its events and its rows.

The one rule: it is asked as its worker asks it: the service's own `Answerer`, one batch of commands in one transaction
of a real database, with inbox and outbox.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from towpath.clock import ManualClock, epoch_milliseconds
from towpath.contract.record import Record
from towpath.errors import ProgrammerError
from towpath.outbox.message import OutboxMessage
from towpath.participant.execution import Answerer
from towpath.participant.postgres import apply_service_schema
from towpath.participant.service import Service
from towpath.saga.state import Direction
from towpath.saga.testing.differences import differences
from towpath.stream.engine.failures import RecordFailed
from towpath.testing.asking import SAGA, Asking
from towpath.testing.parts import ProjectParts
from towpath.testing.postgres import (
    Relay,
    ScratchServer,
    Snapshot,
    WatchedConnection,
    allow_topic,
    connect_watched,
    snapshot,
)

REPLIES = ".replies"


@dataclass(frozen=True, slots=True)
class Left:
    """One message that left a service: a reply to its saga, or an event."""

    topic: str
    key: str
    record: Record
    payload: bytes

    @property
    def is_reply(self) -> bool:
        """Return whether it answers a command."""
        return self.topic.endswith(REPLIES)


@dataclass
class ServiceAlone:
    """A service with a scratch database. `connection` is to that database, for rows that a test prepares or looks at.

    Time stands still at `clock` until `pass_time`.
    """

    service: Service
    parts: ProjectParts
    server: ScratchServer
    clock: ManualClock = field(default_factory=ManualClock)
    left: list[Left] = field(default_factory=list)
    """What left at the last `when`."""

    def __post_init__(self) -> None:
        name = self.service.name
        self.settings = self.server.settings(self.parts.settings, [name])
        self.server.prepare(name, self._make)
        url = self.settings.postgres.database_url(name)
        allow_topic(url, f"{SAGA}{REPLIES}")  # here, since a project's test may have made the database
        self.connection: WatchedConnection = connect_watched(url)
        self._relay = Relay(url)
        self._outside = self.service.opens(self.settings) if self.service.opens is not None else None
        self._answerer = Answerer(self.service, self.parts.codec, outside=self._outside)
        self._last: list[Asking] = []
        self._offset = 0
        self._unexpected: list[Left] = []
        self._untouched = True

    def _make(self) -> None:
        apply_service_schema(self.settings, self.service.name, capture=False)

    def reset(self) -> "ServiceAlone":
        """Begin anew: empty tables, and the time of the beginning. What the process itself remembers stays."""
        self.connection.rollback()
        if self._untouched:
            return self
        self.server.prepare(self.service.name, self._make)
        self.clock = ManualClock()
        self.left, self._last, self._unexpected = [], [], []
        return self

    # --- given ------------------------------------------------------------------------------------------------------

    def given(self, prepared: str | Callable[[Any], object], *parameters: Any) -> "ServiceAlone":
        """Execute a statement with its parameters, or call a function with the connection; then commit."""
        self._untouched = False
        with self.connection.transaction():
            if callable(prepared):
                prepared(self.connection)
            else:
                self.connection.execute(prepared, parameters or None)
        return self

    def pass_time(self, duration: timedelta) -> "ServiceAlone":
        """Let time pass: the handlers' `context.now` is later from now on."""
        self.clock.advance(duration.total_seconds())
        return self

    # --- when -------------------------------------------------------------------------------------------------------

    def asking(self, command: Record, **changes: Any) -> Asking:
        """Return how a saga asks a command: keyed as its topic says; an undo names what it undoes.

        The step is called by the command's class, so an undo and what it undoes belong together if they have the same
        key. `changes` are further fields of `Asking`. Raises ProgrammerError for a command that has no handler.
        """
        handling = self.service.handlings.get(type(command))
        if handling is None:
            known = ", ".join(kind.__name__ for kind in self.service.handlings)
            raise ProgrammerError(
                f"service {self.service.name} has no handler for {type(command).__name__}", next_step=f"ask {known}"
            )
        undo = handling.of is not None
        made = Asking(
            command,
            key=self.parts.key_of(self.service.commands_topic, command),
            step=(handling.of or handling.command).__name__,
            direction=Direction.UNDO if undo else Direction.DO,
        )
        return replace(made, **changes)

    def when(self, *commands: Record | Asking, **changes: Any) -> "ServiceAlone":
        """Ask commands, together in one transaction, and commit. `changes` are fields of `Asking`, for all of them.

        Raises what a handler raised; nothing was committed then.
        """
        asked = [one if isinstance(one, Asking) else self.asking(one, **changes) for one in commands]
        try:
            self.answer(asked)
        except BaseException:
            self.connection.rollback()
            raise
        return self.commit()

    def when_repeated(self, *, attempt: bool = True) -> "ServiceAlone":
        """Ask the last commands once more: as their next attempt, or (`attempt` False) as the same one, redelivered."""
        return self.when(*(asking.again() if attempt else asking for asking in self._last))

    def answer(self, askings: Sequence[Asking]) -> None:
        """Answer commands in the transaction that is open, and leave it open, as a worker's is. Raises what a handler
        raised.
        """
        self._last = list(askings)
        self._untouched = False
        at = epoch_milliseconds(self.clock)
        records = []
        for asking in askings:
            self._offset += 1
            records.append(asking.record(self.parts.codec, self.service.commands_topic, self._offset, at))
        try:
            self._answerer.answer(self.connection, records, self.clock.now())
        except RecordFailed as error:
            raise error.cause from error

    def commit(self) -> "ServiceAlone":
        """Commit what was answered, and take note of what left."""
        self.connection.commit()
        self.left = [self._left(message) for message in self._relay.messages()]
        self._unexpected = list(self.left)
        return self

    def _left(self, message: OutboxMessage) -> Left:
        return Left(message.topic, message.key, self.parts.codec.decode(message.payload), message.payload)

    # --- expect -----------------------------------------------------------------------------------------------------

    @property
    def replies(self) -> list[Record]:
        """Return the replies to the last commands, in their order."""
        return [left.record for left in self.left if left.is_reply]

    @property
    def events(self) -> list[Record]:
        """Return the events that the last commands left."""
        return [left.record for left in self.left if not left.is_reply]

    def expect(self, *replies: Record | type[Record] | Callable[[Any], bool]) -> "ServiceAlone":
        """Expect these replies to the last commands, in their order, and no others.

        Each is the record, its class, or a function that says whether it is the one.
        """
        came = self.replies
        for wanted, reply in zip(replies, came, strict=False):
            _require_like("reply", wanted, reply)
        assert len(came) == len(replies), f"expected {len(replies)} replies, and {len(came)} came: {came}"
        return self

    def expect_event(
        self, event: Record | type[Record] | Callable[[Any], bool], *, key: str | None = None
    ) -> "ServiceAlone":
        """Expect that the last commands left this event, under `key` if that is given, beside others."""
        found = [left for left in self._unexpected if not left.is_reply and _is_like(event, left.record)]
        near = [left.record for left in self._unexpected if not left.is_reply and type(left.record) is type(event)]
        if not found and near:
            _require_like("event", event, near[0])
        assert found, f"expected {_name_of(event)} among the events; there are: {self.events or 'none'}"
        self._unexpected.remove(found[0])
        assert key in (None, found[0].key), f"expected {_name_of(event)} under key {key}, it has {found[0].key}"
        return self

    def expect_no_events(self) -> "ServiceAlone":
        """Expect that the last commands left no event but those that were expected."""
        left = [one.record for one in self._unexpected if not one.is_reply]
        assert not left, f"expected no further events; there are: {left}"
        return self

    def expect_rows(self, query: str, *rows: tuple[Any, ...]) -> "ServiceAlone":
        """Expect that a query returns these rows, in this order."""
        found = self.rows(query)
        assert found == list(rows), "\n".join(["the rows differ:", *differences(list(rows), found)])
        return self

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.connection.transaction():
            return self.connection.execute(query).fetchall()

    def snapshot(self, ignore: Sequence[str] = ()) -> Snapshot:
        """Return what the service's own tables hold; `ignore` as in `towpath.testing.postgres.snapshot`."""
        with self.connection.transaction():
            return snapshot(self.connection, ignore)

    def close(self) -> None:
        """Close what was opened."""
        close = getattr(self._outside, "close", None)
        if close is not None:
            close()
        self._relay.close()
        self.connection.close()


def _is_like(wanted: Any, record: Record) -> bool:
    if isinstance(wanted, type):
        return isinstance(record, wanted)
    return bool(wanted(record)) if callable(wanted) else bool(record == wanted)


def _require_like(what: str, wanted: Any, came: Record) -> None:
    if _is_like(wanted, came):
        return
    if not isinstance(wanted, type) and type(wanted) is type(came):
        lines = [f"the {what} {type(came).__name__} differs:", *(f"    {line}" for line in differences(wanted, came))]
        raise AssertionError("\n".join(lines))
    raise AssertionError(f"expected {_name_of(wanted)} as {what}, came {came!r}")


def _name_of(wanted: Any) -> str:
    if isinstance(wanted, type):
        return f"a {wanted.__name__}"
    return f"one for which {getattr(wanted, '__name__', 'a function')} holds" if callable(wanted) else repr(wanted)
