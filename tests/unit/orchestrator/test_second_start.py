"""A second start for a key that has an instance: refused while that is open, refused always, or independent."""

import pytest

from sagas import catalog, orders
from sagas.place_order import reserve_stock
from schemas.records.catalog import StockReserved
from schemas.records.order import OrderApproved, OrderPlaced, OrderRejected, RejectOrder
from tests.unit.orchestrator.desktop import Desktop, Sent, commands, desktop, history, order_placed
from towpath.errors import PeerError
from towpath.orchestrator import record_context
from towpath.orchestrator.sagas_view import fold
from towpath.saga import Cause, Saga, SecondStart, UndoStart, hours, seconds
from towpath.saga.keys import saga_id_of
from towpath.view import Occurrence

FIRST, SECOND = saga_id_of("keep_stock", "event-1"), saga_id_of("keep_stock", "event-2")


def reject(order: OrderPlaced, cause: Cause) -> RejectOrder:
    """Reject the order, and say why."""
    return RejectOrder(order_id=order.order_id, reason=str(cause))


def keep_stock(second_start: SecondStart, *, when_refused: bool = True) -> Saga[OrderPlaced]:
    """Return a saga of one step whose start can be undone."""
    undo = UndoStart(
        reject, by=orders, succeeds=OrderRejected, within=seconds(10), attempts=2, when_refused=when_refused
    )
    made = Saga("keep_stock", version=1, starts_on=OrderPlaced, deadline=hours(1), undo=undo, second_start=second_start)
    made.pivot(catalog, reserve_stock, succeeds=StockReserved, within=seconds(10))
    return made


def start(context: Desktop, event: str) -> list[Sent]:
    """Let an order be placed; it is always the same order."""
    return context.give("order.events", order_placed(), id=event)


def end(context: Desktop, sent: list[Sent]) -> list[Sent]:
    """Let the one step of an instance succeed."""
    (command,) = commands(sent)
    return context.reply(command, StockReserved(order_id="order-1", reservation_id="r-1"))


@pytest.mark.parametrize("policy", [SecondStart.REFUSE_WHILE_OPEN, SecondStart.REFUSE_ALWAYS])
def test_while_the_first_is_open_the_second_is_refused_and_told(policy: SecondStart) -> None:
    """It is an instance that only undoes its start: history, view and the start's undo say how it ended, and why."""
    context = desktop(keep_stock(policy))
    start(context, "event-1")
    sent = start(context, "event-2")
    (entry,) = history(sent)
    assert (entry.saga_id, entry.status) == (SECOND, "compensating")
    assert FIRST in entry.cause
    (command,) = commands(sent)
    assert command.headers["direction"] == "undo"
    assert FIRST in command.record.reason
    rejected = OrderRejected(order_id="order-1", reason="a second one", rejected_at=context.clock.now())
    (ended,) = history(context.reply(command, rejected))
    standing = fold(None, ended, Occurrence("keep_stock.history", "order-1", "id", context.clock.now()))
    assert (standing.saga_id, standing.status) == (SECOND, "compensated")
    assert standing.reason is not None
    assert "the key has an instance already" in standing.reason


def test_a_start_whose_undo_says_so_is_not_undone_by_its_double() -> None:
    """The order was announced twice: it is not rejected for that. The second instance ends at once."""
    context = desktop(keep_stock(SecondStart.REFUSE_WHILE_OPEN, when_refused=False))
    start(context, "event-1")
    sent = start(context, "event-2")
    assert commands(sent) == []
    (entry,) = history(sent)
    assert (entry.saga_id, entry.status, entry.happened) == (SECOND, "compensated", "started")
    assert start(context, "event-2") == [], "once more, and it is known"


def test_the_next_start_begins_once_the_first_has_ended() -> None:
    """At once, not after the two weeks for which an ended instance is remembered."""
    context = desktop(keep_stock(SecondStart.REFUSE_WHILE_OPEN))
    end(context, start(context, "event-1"))
    sent = start(context, "event-2")
    assert [command.headers["direction"] for command in commands(sent)] == ["do"]
    assert history(end(context, sent))[0].status == "completed"


def test_refused_always_means_when_the_first_is_forgotten_too() -> None:
    """A key has one instance: that it had one is kept when the instance is not."""
    context = desktop(keep_stock(SecondStart.REFUSE_ALWAYS, when_refused=False))
    end(context, start(context, "event-1"))
    assert history(start(context, "event-2"))[0].status == "compensated"
    context.clock.advance(5 * 3600)
    context.fire_timers()
    assert not [key for key in context.stored() if key.startswith(b"i")]
    assert history(start(context, "event-3"))[0].cause.startswith("refused: the key has an instance already")


def test_refused_always_means_when_the_version_of_the_first_is_gone_too() -> None:
    """It has ended, so its version may be removed before it is forgotten; those that start now say REFUSE_ALWAYS."""
    saga = keep_stock(SecondStart.REFUSE_ALWAYS, when_refused=False)
    context = desktop(saga)
    end(context, start(context, "event-1"))
    object.__setattr__(saga.definition, "version", 2)
    context.orchestrator = desktop(saga).orchestrator
    context.clock.advance(5 * 3600)
    context.fire_timers()
    assert not [key for key in context.stored() if key.startswith(b"i")]
    assert history(start(context, "event-2"))[0].cause.startswith("refused: the key has an instance already")


def test_independent_starts_are_instances_of_their_own() -> None:
    """Both run."""
    context = desktop(keep_stock(SecondStart.INDEPENDENT))
    assert len(commands(start(context, "event-1") + start(context, "event-2"))) == 2


def test_a_key_has_so_many_open_instances_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next is a dead letter, until one of them ends: that one is no longer found by its key, but by its id."""
    monkeypatch.setattr(record_context, "INSTANCES_PER_KEY_MAX", 2)
    context = desktop(keep_stock(SecondStart.INDEPENDENT))
    first = start(context, "event-1")
    start(context, "event-2")
    with pytest.raises(PeerError, match="the key has 2 open instances already"):
        start(context, "event-3")
    end(context, first)
    assert len(commands(start(context, "event-4"))) == 1
    assert start(context, "event-1") == [], "it is known yet"


def test_an_instance_that_only_undoes_its_start_is_no_obstacle() -> None:
    """It has begun nothing; nor does a signal for the key concern it."""
    context = desktop(keep_stock(SecondStart.REFUSE_WHILE_OPEN))
    first = start(context, "event-1")
    start(context, "event-2")
    end(context, first)
    assert [command.headers["direction"] for command in commands(start(context, "event-3"))] == ["do"]
    approved = OrderApproved(order_id="order-1", approver="grace")
    told = {entry.saga_id for entry in history(context.give("keep_stock.signals", approved, id="s-1"))}
    assert told == {FIRST, saga_id_of("keep_stock", "event-3")}
