"""What a service answers, and with which of its functions. Pure declarations.

The one rule: whatever a handler does in its service's database commits together with the reply, or not at all. What
it does elsewhere (a card network) it does at least once, and so under `context.idempotency_key`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from towpath.contract.record import Record
from towpath.errors import ConfigurationError
from towpath.settings import Settings

C = TypeVar("C", bound=Record)
C_co = TypeVar("C_co", bound=Record, covariant=True)
Replies = type[Record] | tuple[type[Record], ...]


@dataclass(frozen=True, slots=True)
class Emitted:
    """A domain event that a handler wants to leave with the reply. `topic` None: the service's own events."""

    record: Record
    key: str
    topic: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Generic[C_co]):
    """A command, and what surrounds it while its handler runs.

    `connection` is psycopg's, inside the transaction: it refuses to commit or roll back, savepoints are the handler's
    own (`with connection.transaction()`), and what is SET for the session lasts as long as the batch. `now` is the time
    of the batch. `idempotency_key` is the same for every attempt at this command. For an undo, `undoes` is the
    idempotency key of what it undoes and `do_reply` the reply recorded for that; None means that there is nothing to
    undo in this database, because it never ran or was refused. `outside` is what the service's `opens` returned.
    """

    command: C_co
    connection: Any
    now: datetime
    key: str
    saga: str
    saga_id: UUID
    step: str
    item: str
    attempt: int
    round: int
    idempotency_key: UUID
    undoes: UUID | None = None
    do_reply: Record | None = None
    deadline_text: str | None = None
    tenant: str | None = None
    traceparent: str | None = None
    outside: Any = None
    emitted: list[Emitted] = field(default_factory=list)

    @property
    def deadline(self) -> datetime | None:
        """Return when the saga stops waiting for this attempt; past or not, the command is carried out.

        A saga that has given up asks again under the same idempotency key, or undoes: both are right only if what
        was asked first was either done or never will be. A handler may use the time to bound a wait of its own.
        """
        return datetime.fromisoformat(self.deadline_text) if self.deadline_text else None

    def emit(self, record: Record, *, key: str, topic: str | None = None) -> None:
        """Leave a domain event with the reply, in the service's own events unless `topic` names another topic.

        The events of a command that is refused are dropped with the rest of what it did.
        """
        self.emitted.append(Emitted(record, key, topic))


Handler = Callable[[Sequence[Context[Any]]], Sequence[Record]]


@dataclass(frozen=True, slots=True)
class Handling:
    """How one type of command is answered: `handler` takes several and returns a reply for each, in their order.

    `fails` are the replies that refuse: by contract they say that nothing was done. `of` is what an undo undoes.
    """

    command: type[Record]
    handler: Handler
    succeeds: frozenset[type[Record]]
    fails: frozenset[type[Record]]
    of: type[Record] | None = None
    each: bool = False
    """Whether the handler takes one at a time; the engine then sees to it that a refused command leaves no trace."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError for what no command could be answered with."""
        name = self.command.__name__
        if problem := _later(self.handler):
            raise ConfigurationError(
                f"the handler of {name} {problem}",
                next_step="make it a plain function (def) that returns it; it runs in a thread, and may block there",
            )
        if both := self.succeeds & self.fails:
            raise ConfigurationError(
                f"{', '.join(sorted(reply.__name__ for reply in both))} says both that {name} was done and that it was "
                "refused",
                next_step="name it in succeeds= or in fails=",
            )


def handle(
    command: type[C],
    handler: Callable[[Sequence[Context[C]]], Sequence[Record]],
    *,
    succeeds: Replies,
    fails: Replies = (),
) -> Handling:
    """Answer `command` with `handler`, which takes all of a batch at once and returns a reply for each, in order.

    This is the fast form: a handler reads what it needs for all of them in one statement, decides in memory, and
    writes in one statement. It must not write for a command that it refuses. No two of a batch have the same key.
    """
    return Handling(command, handler, _set(succeeds), _set(fails))


def handle_each(
    command: type[C], handler: Callable[[C, Context[C]], Record], *, succeeds: Replies, fails: Replies = ()
) -> Handling:
    """Answer `command` with `handler(command, context)`, one at a time.

    What a handler wrote before it returned one of `fails` is rolled back, by a savepoint.
    """
    return Handling(command, _one_by_one(handler), _set(succeeds), _set(fails), each=True)


def undo(
    command: type[C],
    handler: Callable[[Sequence[Context[C]]], Sequence[Record]],
    *,
    of: type[Record],
    succeeds: Replies,
    fails: Replies = (),
) -> Handling:
    """Undo `of` with `handler`, which takes all of a batch at once, as with `handle`.

    It may come before what it undoes, or without that ever coming: see `Context.do_reply`. Answered with one of
    `fails`, it was not undone, and a person decides; a retry is another command, in the next round.
    """
    return Handling(command, handler, _set(succeeds), _set(fails), of=of)


def undo_each(
    command: type[C],
    handler: Callable[[C, Context[C]], Record],
    *,
    of: type[Record],
    succeeds: Replies,
    fails: Replies = (),
) -> Handling:
    """Undo `of` with `handler(command, context)`, one at a time; else as `undo`."""
    return Handling(command, _one_by_one(handler), _set(succeeds), _set(fails), of=of, each=True)


class Service:
    """A service: its name, which is also its database's and its topics', and how it answers each command.

    `opens` is called once in each worker with the settings, and returns what handlers need outside the database
    (`context.outside`); it is closed with the worker, by its `close`, if it has one.
    """

    def __init__(
        self, name: str, *, handlers: Iterable[Handling], opens: Callable[[Settings], Any] | None = None
    ) -> None:
        """Raise ConfigurationError where two handlers answer one command, or an undo undoes what nobody does."""
        self.name = name
        self.opens = opens
        by_command: dict[type[Record], Handling] = {}
        for handling in handlers:
            if handling.command in by_command:
                raise ConfigurationError(
                    f"service {name}: two handlers for {handling.command.__name__}", next_step="remove one"
                )
            if not handling.succeeds:
                raise ConfigurationError(
                    f"service {name}: {handling.command.__name__} can only be refused",
                    next_step="name the reply that says it was done, as succeeds=",
                )
            by_command[handling.command] = handling
        for handling in by_command.values():
            if handling.of is not None and handling.of not in by_command:
                raise ConfigurationError(
                    f"service {name}: {handling.command.__name__} undoes {handling.of.__name__}, which has no handler",
                    next_step=f"add a handler for {handling.of.__name__}, or use handle instead of undo",
                )
        self.handlings: Mapping[type[Record], Handling] = MappingProxyType(by_command)

    @property
    def commands_topic(self) -> str:
        """Return the topic of its commands."""
        return f"{self.name}.commands"

    @property
    def events_topic(self) -> str:
        """Return the topic of its events."""
        return f"{self.name}.events"


def _set(replies: Replies) -> frozenset[type[Record]]:
    return frozenset(replies if isinstance(replies, tuple) else (replies,))


def _later(handler: object) -> str | None:
    """Return why a call of `handler` gives no reply yet (it is awaited, or iterated), None where it gives one."""
    for function in (handler, inspect.getattr_static(type(handler), "__call__", None)):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            return "is asynchronous, and nobody awaits it"
        if inspect.isgeneratorfunction(function):
            return "yields, and its reply is what it returns"
    return None


def _one_by_one(handler: Callable[[C, Context[C]], Record]) -> Handler:
    if _later(handler):
        return cast("Handler", handler)  # as it is, for Handling to refuse it

    def each(contexts: Sequence[Context[C]]) -> Sequence[Record]:
        return [handler(context.command, context) for context in contexts]

    return each
