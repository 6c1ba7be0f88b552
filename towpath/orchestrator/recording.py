"""The history of an instance, decided again: a run that production recorded becomes a golden history. Pure.

The one rule: nothing is taken on trust. The inputs of a run stand in its history whole; they are decided anew, by the
definition as it is, and each entry that would be written now must be the entry that was written then (what happened,
how the saga stood, why, and every message by its class, step, attempt and id). Only then is there a golden history.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from towpath.contract.codec import Codec
from towpath.errors import ContractError
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages, headers_from_wire, parent_from_wire
from towpath.orchestrator.message_builder import MessageBuilder, came_as
from towpath.saga.advance import Decision, advance
from towpath.saga.definition import Definition
from towpath.saga.effects import Happened
from towpath.saga.inputs import (
    HINDERED,
    Action,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    Timer,
    TimerFired,
    TimerKind,
    Unrecognised,
    UpgradeAsked,
)
from towpath.saga.migrate import migrate
from towpath.saga.state import Direction, SagaState
from towpath.saga.testing.golden import history_of
from towpath.stream.broker.record import ConsumedRecord


class NotAsRecorded(ContractError):
    """A recorded run cannot be decided again, or is decided differently now."""

    def __init__(self, saga_id: str, entry: int, problem: str, next_step: str) -> None:
        super().__init__(
            f"instance {saga_id}, entry {entry} of its history: {problem}",
            kept="the history; nothing was written",
            next_step=next_step,
        )


def entries_of(records: Iterable[ConsumedRecord], codec: Codec, which: str) -> dict[str, list[wire.HistoryEntry]]:
    """Return the entries about the instance called `which`, by its id; a business key may have several instances.

    `records` are those of a history topic, each partition's in order. Raises PeerError for one that is no entry.
    """
    return {
        saga_id: [entry for _, entry in placed] for saga_id, placed in placed_entries_of(records, codec, which).items()
    }


def placed_entries_of(
    records: Iterable[ConsumedRecord], codec: Codec, which: str
) -> dict[str, list[tuple[int, wire.HistoryEntry]]]:
    """Return the entries about an instance as `entries_of` does, each with its offset in the history topic."""
    found: dict[str, list[tuple[int, wire.HistoryEntry]]] = {}
    key = which.encode()
    for record in records:
        if record.key != key and record.header("saga_id") != which:
            continue  # most are about others: they cost no decoding
        entry = codec.decode(record.value or b"")
        assert isinstance(entry, wire.HistoryEntry)
        if entry.saga_id:
            found.setdefault(entry.saga_id, []).append((record.offset, entry))
    return found


class DecidedAgain(NamedTuple):
    """One entry of a history, the input that it is about, and the decision, as it comes out again."""

    entry: wire.HistoryEntry
    input: Input
    decision: Decision


def decided_again(
    definition: Definition,
    entries: Sequence[wire.HistoryEntry],
    codec: Codec,
    others: Mapping[int, Definition] | None = None,
) -> Iterator[DecidedAgain]:
    """Yield the decisions of the instance whose history `entries` is, from its start on.

    `others` are further versions, under which it may have gone on. Raises NotAsRecorded where its beginning is gone,
    where a decision differs from what was recorded, or where it went on under a version that is not among them.
    """
    messages = Messages(codec)
    message_builder = MessageBuilder(definition.name, messages)
    state: SagaState | None = None
    for number, entry in enumerate(entries, start=1):
        if number == 1 and came_as(entry) != Started.__name__:
            raise NotAsRecorded(
                entry.saga_id, number, "it is not the start: the topic no longer has that", "record a younger run"
            )
        input_ = input_of(entry, messages)
        if isinstance(input_, UpgradeAsked):
            if entry.happened == Happened.REFUSED.value:  # it stays as it was, and why depends on the worker
                yield DecidedAgain(entry, input_, Decision(state, ()))
                continue
            definition, decision = _upgraded(definition, others or {}, state, input_, entry, number)
        else:
            decision = advance(definition, state, input_)
        state = decision.state
        if state is not None:
            outgoing = message_builder.outgoing(decision, state)
            different = _differences(entry, message_builder.entry(definition, state, input_, decision, outgoing))
            if different:
                raise NotAsRecorded(
                    entry.saga_id,
                    number,
                    f"{entry.happened} {entry.detail} is decided differently now: {'; '.join(different)}",
                    "raise the version of the definition that was changed",
                )
        yield DecidedAgain(entry, input_, decision)


def _upgraded(
    old: Definition,
    others: Mapping[int, Definition],
    state: SagaState | None,
    asked: UpgradeAsked,
    entry: wire.HistoryEntry,
    number: int,
) -> tuple[Definition, Decision]:
    """Return the definition under which an instance went on, and what that decided. Raises NotAsRecorded."""
    new = others.get(asked.version)
    if new is None or state is None:
        raise NotAsRecorded(
            entry.saga_id,
            number,
            f"a person asked that it goes on {entry.detail}",
            f"record a run of one version; or look at it with version {asked.version} in the project",
        )
    return new, migrate(old, new, state, asked)


def golden_of(definition: Definition, entries: Sequence[wire.HistoryEntry], codec: Codec) -> dict[str, Any]:
    """Return the golden history of the instance whose history `entries` is. Raises NotAsRecorded.

    What a person asked for in vain, to go on under another version, is no part of it.
    """
    every = decided_again(definition, entries, codec)
    decided = [one for one in every if not isinstance(one.input, UpgradeAsked)]
    return history_of(definition, [one.input for one in decided], [one.decision for one in decided])


def input_of(entry: wire.HistoryEntry, messages: Messages) -> Input:
    """Return the input that an entry of a history is about. Raises what `Codec.decode` raises."""
    hindered = entry.input.rpartition(":")[0]
    if hindered:
        inner: Any = input_of(replace(entry, input=came_as(entry), reason=""), messages)
        return HINDERED[hindered](inner, entry.reason)
    return _READERS[entry.input](entry, messages)


def _started(entry: wire.HistoryEntry, messages: Messages) -> Input:
    return Started(
        entry.input_id,
        entry.at_milliseconds,
        _carried(entry, messages),
        entry.key,
        None if entry.parent is None else parent_from_wire(entry.parent),
        headers_from_wire(entry.headers),
        entry.reason if entry.happened == Happened.STARTED else "",
    )


def _replied(entry: wire.HistoryEntry, messages: Messages) -> Input:
    return Replied(
        entry.input_id,
        entry.at_milliseconds,
        entry.step,
        Direction(entry.direction),
        entry.attempt,
        entry.round,
        _carried(entry, messages),
        entry.item,
    )


def _timer_fired(entry: wire.HistoryEntry, _: Messages) -> Input:
    timer = Timer(
        TimerKind(entry.detail), entry.step, entry.item, Direction(entry.direction), entry.attempt, entry.round
    )
    return TimerFired(entry.input_id, entry.at_milliseconds, timer)


def _signalled(entry: wire.HistoryEntry, messages: Messages) -> Input:
    return Signalled(entry.input_id, entry.at_milliseconds, _carried(entry, messages))


def _operator_asked(entry: wire.HistoryEntry, messages: Messages) -> Input:
    return OperatorAsked(
        entry.input_id,
        entry.at_milliseconds,
        Action(entry.detail),
        entry.actor,
        entry.asked_because,
        entry.step,
        entry.item,
        messages.unwrap_optional(entry.message),
        Direction(entry.direction),
        entry.attempt,
        entry.round,
    )


def _parent_asked(entry: wire.HistoryEntry, _: Messages) -> Input:
    assert entry.parent is not None  # an entry about such an input carries it
    return ParentAsked(entry.input_id, entry.at_milliseconds, parent_from_wire(entry.parent))


def _upgrade_asked(entry: wire.HistoryEntry, _: Messages) -> Input:
    version = int(entry.detail.rpartition(" ")[2])
    return UpgradeAsked(entry.input_id, entry.at_milliseconds, version, entry.actor, entry.asked_because)


def _unrecognised(entry: wire.HistoryEntry, _: Messages) -> Input:
    return Unrecognised(entry.input_id, entry.at_milliseconds, entry.detail)


def _carried(entry: wire.HistoryEntry, messages: Messages) -> Any:
    assert entry.message is not None  # an entry about such an input carries it
    return messages.unwrap(entry.message)


_READERS: dict[str, Callable[[wire.HistoryEntry, Messages], Input]] = {
    Started.__name__: _started,
    Replied.__name__: _replied,
    TimerFired.__name__: _timer_fired,
    Signalled.__name__: _signalled,
    OperatorAsked.__name__: _operator_asked,
    ParentAsked.__name__: _parent_asked,
    UpgradeAsked.__name__: _upgrade_asked,
    Unrecognised.__name__: _unrecognised,
}


_IN_ORDER_OF_LINES = ("sent", "waiting_for")
"""Fields in the order of the definition's lines, which is none that an instance goes by."""


def _differences(recorded: wire.HistoryEntry, decided: wire.HistoryEntry) -> list[str]:
    """Name the fields that differ, with both values where these are no data of the business."""
    words = []
    for field in fields(recorded):
        was, is_ = getattr(recorded, field.name), getattr(decided, field.name)
        if was == is_ or (field.name in _IN_ORDER_OF_LINES and Counter(was) == Counter(is_)):
            continue
        if field.name == "sent":
            was, is_ = (", ".join(f"{m.type} to {m.topic} for {m.step}" for m in sent) for sent in (was, is_))
        words.append(field.name if field.name == "message" else f"{field.name} was {was!r} and is {is_!r}")
    return words
