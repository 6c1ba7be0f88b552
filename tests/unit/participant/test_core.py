"""What a command means, given what the inbox knows of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from uuid import UUID

import pytest

from schemas.records.catalog import OutOfStock, ReleaseStock, ReserveStock, StockReleased, StockReserved
from tests.commands import Asking
from towpath.contract.record import Record
from towpath.errors import ConfigurationError
from towpath.participant.core import (
    Command,
    Ledger,
    Malformed,
    UndeclaredReply,
    Verdict,
    check_replies,
    decide,
    read_command,
    reply_message,
    waves,
)
from towpath.participant.service import Context, Handling, Service, handle, handle_each, undo, undo_each
from towpath.saga.state import Direction

RESERVE = Asking(ReserveStock(order_id="o-1", lines=()), step="stock")
RELEASE = Asking(ReleaseStock(order_id="o-1"), step="stock", direction=Direction.UNDO)


def never(_: object) -> list[Record]:
    """Stand for a handler that these tests do not call."""
    raise AssertionError


HANDLINGS: Mapping[str, Handling] = {
    handling.command.SCHEMA_NAME: handling
    for handling in (
        handle(ReserveStock, never, succeeds=StockReserved, fails=OutOfStock),
        undo(ReleaseStock, never, of=ReserveStock, succeeds=StockReleased),
    )
}


def read(asking: Asking, **changes: str | None) -> Command:
    """Return the command as a participant reads it."""
    return read_command(asking.arriving(0, **changes), HANDLINGS)


def test_what_was_never_asked_is_carried_out() -> None:
    """The inbox knows nothing of it."""
    assert decide(Ledger([]).row(RESERVE.idempotency_key)) is Verdict.RUN


def test_what_was_answered_is_answered_again_under_the_attempt_that_asks() -> None:
    """Nothing is done twice, and the saga recognises the answer as that to its latest attempt."""
    ledger = Ledger([])
    ledger.record(read(RESERVE), "T", b"reply", refused=False)
    again = read(RESERVE.again())
    row = ledger.row(again.idempotency_key)
    assert row is not None
    assert decide(row) is Verdict.REPLAY
    message = reply_message(again, row)
    assert (message.attempt, message.type, message.payload) == (2, "T", b"reply")
    assert (message.topic, message.key, message.step, message.direction) == (
        "place_order.replies",
        "o-1",
        "stock",
        "do",
    )


@pytest.mark.parametrize("number", [2**31, 99_999_999_999])
@pytest.mark.parametrize("header", ["attempt", "round"])
def test_a_number_past_32_bits_cannot_be_read(header: str, number: int) -> None:
    """Written with others, by binary COPY, it came out as another number, and the command was answered under it."""
    with pytest.raises(Malformed, match="past 32 bits"):
        read(RESERVE, **{header: str(number)})


def test_a_refusal_is_answered_again_too() -> None:
    """It is a final outcome."""
    ledger = Ledger([])
    ledger.record(read(RESERVE), "T", b"no", refused=True)
    assert decide(ledger.row(RESERVE.idempotency_key)) is Verdict.REPLAY


def test_after_its_undo_a_command_is_passed_over() -> None:
    """Whether it was done before the undo ..."""
    ledger = Ledger([])
    ledger.record(read(RESERVE), "T", b"", refused=False)
    ledger.record(read(RELEASE), "U", b"", refused=False)
    assert decide(ledger.row(RESERVE.idempotency_key)) is Verdict.IGNORE
    assert decide(ledger.row(RELEASE.idempotency_key)) is Verdict.REPLAY


def test_an_undo_that_comes_first_leaves_a_mark() -> None:
    """... or never."""
    ledger = Ledger([])
    assert ledger.to_undo(read(RELEASE)) is None
    ledger.record(read(RELEASE), "U", b"", refused=False)
    mark = ledger.row(RESERVE.idempotency_key)
    assert mark is not None
    assert (mark.undone, mark.type, mark.direction) == (True, None, "do")
    assert decide(mark) is Verdict.IGNORE


def test_only_what_was_really_done_is_there_to_be_undone() -> None:
    """A refusal, by contract, left nothing."""
    ledger = Ledger([])
    ledger.record(read(RESERVE), "T", b"", refused=True)
    assert ledger.to_undo(read(RELEASE)) is None


def test_an_undo_that_was_refused_finds_what_it_undoes_in_its_next_round() -> None:
    """A person asked for it again after it was answered that it cannot be done: it was answered as if undone."""
    ledger = Ledger([])
    done = ledger.record(read(RESERVE), "T", b"", refused=False)
    assert ledger.to_undo(read(RELEASE)) == done
    ledger.record(read(RELEASE), "U", b"no", refused=True)
    again = ledger.to_undo(read(replace(RELEASE, round=2)))
    assert again is not None
    assert again.payload == done.payload


def test_an_operators_next_round_is_a_new_command() -> None:
    """Its key differs, so a recorded failure does not stand in its way."""
    ledger = Ledger([])
    ledger.record(read(RESERVE), "T", b"", refused=True)
    assert decide(ledger.row(replace(RESERVE, round=2).idempotency_key)) is Verdict.RUN


def test_rows_are_added_once_and_stored_ones_only_marked() -> None:
    """One statement for each."""
    stored = Ledger([])
    row = stored.record(read(RESERVE), "T", b"", refused=False)
    ledger = Ledger([row])
    ledger.record(read(RELEASE), "U", b"", refused=False)
    assert [one.idempotency_key for one in ledger.added] == [RELEASE.idempotency_key]
    assert ledger.marked == [RESERVE.idempotency_key]


def test_a_row_that_is_added_and_marked_in_one_batch_is_added_as_marked() -> None:
    """The database has no row to mark yet."""
    ledger = Ledger([])
    ledger.record(read(RESERVE), "T", b"", refused=False)
    ledger.record(read(RELEASE), "U", b"", refused=False)
    assert {one.idempotency_key: one.undone for one in ledger.added} == {
        RESERVE.idempotency_key: True,
        RELEASE.idempotency_key: False,
    }
    assert ledger.marked == []


def test_the_answer_to_one_attempt_is_one_message() -> None:
    """Delivered twice, it is answered with the same id, which the saga drops; another attempt is another message."""
    row = Ledger([]).record(read(RESERVE), "T", b"", refused=False)
    first, second = (reply_message(read(RESERVE), row).id for _ in range(2))
    assert first == second
    assert reply_message(read(RESERVE.again()), row).id != first


@pytest.mark.parametrize(
    "header", ["type", "saga_id", "saga", "step", "direction", "attempt", "round", "idempotency_key", "reply_to"]
)
def test_a_command_without_one_of_its_headers_is_its_senders_mistake(header: str) -> None:
    """It is dead-lettered, never guessed at."""
    with pytest.raises(Malformed, match=header):
        read(RESERVE, **{header: None})


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("saga_id", "x"),
        ("idempotency_key", "7"),
        ("attempt", "two"),
        ("attempt", "-1"),
        ("attempt", "1_0"),
        ("attempt", "9" * 5_000),
        ("round", ""),
        ("step", "a\0b"),
        ("tenant", "\0"),
        ("deadline", "soon"),
        ("deadline", "2026-01-01T00:00:00"),
    ],
)
def test_a_header_that_cannot_be_read_is_its_senders_mistake(header: str, text: str) -> None:
    """Likewise."""
    with pytest.raises(Malformed):
        read(RESERVE, **{header: text})


def test_a_command_of_another_service_is_its_senders_mistake() -> None:
    """Nobody here answers it."""
    with pytest.raises(Malformed, match=r"nobody here answers x\.Y"):
        read(RESERVE, type="x.Y")


def test_an_undo_must_say_of_what() -> None:
    """Without that it could leave no mark."""
    with pytest.raises(Malformed, match="is an undo"):
        read(RELEASE, undoes=None)


def test_commands_of_one_key_are_never_in_one_wave() -> None:
    """So what concerns one order is done in its order, and the rest together."""
    askings = [replace(RESERVE, key=key) for key in ("a", "b", "a", "c", "a")]
    cut = [[command.key for command in wave] for wave in waves([read(asking) for asking in askings])]
    assert cut == [["a", "b"], ["a", "c"], ["a"]]


def test_one_effect_stands_once_in_a_wave_whatever_its_key() -> None:
    """Two commands of one idempotency key under two keys: side by side, the handler would run for both."""
    first = read(Asking(ReserveStock(order_id="o-1", lines=()), key="o-1", step="stock"))
    second = replace(first, key="o-2")
    assert [[command.key for command in wave] for wave in waves([first, second])] == [["o-1"], ["o-2"]]
    undoing = replace(read(RELEASE), key="o-3", undoes=first.idempotency_key)
    assert [len(wave) for wave in waves([first, undoing])] == [1, 1]


@pytest.mark.parametrize("replies", [[], [StockReleased(order_id="o-1")]], ids=["too few", "undeclared"])
def test_replies_must_be_one_for_each_command_and_declared(replies: list[Record]) -> None:
    """A saga would wait for ever for the one, and could do nothing with the other."""
    with pytest.raises(UndeclaredReply):
        check_replies(HANDLINGS[ReserveStock.SCHEMA_NAME], replies, 1)


def test_a_service_has_one_handler_for_each_command() -> None:
    """Which of two would it be?"""
    with pytest.raises(ConfigurationError, match="two handlers for ReserveStock"):
        Service("catalog", handlers=[handle(ReserveStock, never, succeeds=StockReserved)] * 2)


async def awaited(*_: object) -> list[Record]:
    """Stand for a handler that nobody awaits."""
    raise AssertionError


def yielding(*_: object) -> Iterator[Record]:
    """Stand for a handler that yields its replies."""
    yield StockReleased(order_id="o-1")


class Awaited:
    """Stands for an object whose call is awaited."""

    __call__ = awaited


@pytest.mark.parametrize(
    "form", [handle, handle_each, partial(undo, of=ReserveStock), partial(undo_each, of=ReserveStock)]
)
@pytest.mark.parametrize("handler", [awaited, yielding, Awaited()], ids=["async", "yields", "object"])
def test_a_handler_that_does_not_return_its_reply_is_refused(form: Callable[..., Handling], handler: object) -> None:
    """Each command of production would have been a dead letter."""
    with pytest.raises(ConfigurationError, match=r"asynchronous|yields"):
        form(ReleaseStock, handler, succeeds=StockReleased)


@pytest.mark.parametrize(
    "form", [handle, handle_each, partial(undo, of=ReserveStock), partial(undo_each, of=ReserveStock)]
)
def test_a_reply_cannot_both_say_that_it_was_done_and_refused(form: Callable[..., Handling]) -> None:
    """What was done would be rolled back, and the saga told that it was done."""
    with pytest.raises(ConfigurationError, match="StockReleased says both"):
        form(ReleaseStock, never, succeeds=StockReleased, fails=(OutOfStock, StockReleased))


def test_an_undo_needs_a_handler_of_what_it_undoes() -> None:
    """In the same database, or the mark would protect nothing."""
    with pytest.raises(ConfigurationError, match="undoes ReserveStock"):
        Service("catalog", handlers=[undo(ReleaseStock, never, of=ReserveStock, succeeds=StockReleased)])


def test_a_service_is_named_by_its_topics() -> None:
    """Commands in, events out."""
    service = Service("catalog", handlers=[])
    assert (service.commands_topic, service.events_topic) == ("catalog.commands", "catalog.events")


def test_a_deadline_that_has_passed_is_told_and_forbids_nothing() -> None:
    """The handler gets it as a time with its zone."""
    context = Context(
        command=RESERVE.command,
        connection=None,
        now=None,  # type: ignore[arg-type]
        key="o-1",
        saga="place_order",
        saga_id=UUID(int=1),
        step="stock",
        item="",
        attempt=1,
        round=1,
        idempotency_key=UUID(int=2),
        deadline_text="2026-01-01T00:00:00+00:00",
    )
    assert context.deadline is not None
    assert context.deadline.utcoffset() is not None
