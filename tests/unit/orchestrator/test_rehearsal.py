"""A signal tried before it is sent: what the rehearsal says is what happens when it comes."""

from dataclasses import replace

import pytest

from sagas import place_order
from schemas.records.catalog import StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderApproved, OrderConfirmed, OrderDeclined
from schemas.records.payment import PaymentAuthorised, PaymentCaptured
from tests.unit.orchestrator.desktop import CODEC, Desktop, Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.test_raising_functions import RAISES, begin, broken, buy
from towpath.clock import ManualClock
from towpath.orchestrator.buffered_signals import EARLY_SIGNALS_MAX
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.rehearsal import Rehearsed, rehearse
from towpath.saga.definition import Definition
from towpath.saga.errors import BuilderError
from towpath.stream.broker.record import ConsumedRecord

SIGNALS = "place_order.signals"
LARGE_CENTS = 5_000_00
APPROVED = OrderApproved(order_id="order-1", approver="grace")
DECLINED = OrderDeclined(order_id="order-1", approver="grace", reason="too dear")
ONE = place_order.saga.definition


def waiting() -> Desktop:
    """Return a worker with an order above the limit that waits for a clerk."""
    context = desktop(place_order.saga)
    first = {one.headers["step"]: one for one in commands(placed(context))}
    context.reply(first["verify_customer"], CustomerVerified(order_id="order-1", customer_id="customer-1"))
    (paying,) = commands(context.reply(first["reserve_stock"], StockReserved(order_id="order-1", reservation_id="r-1")))
    authorised = PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=LARGE_CENTS)
    context.reply(paying, authorised)
    return context


def placed(context: Desktop) -> list[Sent]:
    """Let the order be placed."""
    return context.give("order.events", order_placed(total_cents=LARGE_CENTS), id="e-1")


def tried(
    context: Desktop, signal: OrderApproved | OrderDeclined, definitions: dict[int, Definition] | None = None
) -> Rehearsed:
    """Rehearse a signal over what the worker keeps, and see that it keeps the same afterwards."""
    before = context.stored()
    headers = headers_of(id="s-1", type=signal.SCHEMA_NAME)
    saga = context.orchestrator.name
    topic, at = f"{saga}.signals", context.now_milliseconds
    record = ConsumedRecord(topic, 0, 0, at, b"order-1", CODEC.encode(signal), headers)
    seen = rehearse(definitions or {1: ONE}, CODEC, record, before, history_topic=f"{saga}.history")
    assert context.stored() == before
    return seen


@pytest.mark.parametrize(
    ("signal", "status", "sends"),
    [(APPROVED, "running", ["ConfirmOrder"]), (DECLINED, "compensating", ["VoidAuthorisation"])],
    ids=["approved", "declined"],
)
def test_what_is_told_is_what_happens(signal: OrderApproved | OrderDeclined, status: str, sends: list[str]) -> None:
    """The step that is answered, the status after it, and the messages that leave."""
    context = waiting()
    ((saga_id, seen),) = tried(context, signal).decided.items()
    assert (seen.refusal, seen.status_before, seen.status_after) == (None, "running", status)
    assert "waiting" in [was for step, was, _ in seen.changes if step == "approval"]
    sent = context.give(SIGNALS, signal, id="s-1")
    (entry,) = history(sent)
    assert (entry.saga_id, entry.status) == (saga_id, status)
    named = [one.record.__class__.__name__ for one in commands(sent)]
    assert [word.split()[0] for word in seen.sends] == named
    assert set(sends) <= set(named)


def test_a_signal_that_comes_too_late_is_told_to_be_refused() -> None:
    """In the words that the history has then: the wait has its answer, and in the end the saga has ended."""
    context = waiting()
    (confirming,) = commands(context.give(SIGNALS, APPROVED, id="s-0"))
    for end in (False, True):
        if end:
            done = OrderConfirmed(order_id="order-1", confirmed_at=ManualClock().now())
            (capturing,) = commands(context.reply(confirming, done))
            context.reply(capturing, PaymentCaptured(order_id="order-1", capture_id="c-1", amount_cents=LARGE_CENTS))
        (seen,) = tried(context, DECLINED).decided.values()
        (entry,) = history(context.give(SIGNALS, DECLINED, id="s-1"))
        assert seen.refusal == entry.reason
        assert "ended" in entry.reason or not end


def test_before_the_saga_starts_it_would_be_kept_and_one_too_many_refused() -> None:
    """As the worker keeps it: sixteen for a key, and no more."""
    context = desktop(place_order.saga)
    for number in range(EARLY_SIGNALS_MAX):
        seen = tried(context, APPROVED)
        assert (seen.decided, seen.refusal, seen.kept) == ({}, None, True)
        assert history(context.give(SIGNALS, APPROVED, id=f"early-{number}")) == []
    seen = tried(context, APPROVED)
    (entry,) = history(context.give(SIGNALS, APPROVED, id="s-1"))
    assert (seen.decided, seen.refusal, seen.kept) == ({}, entry.reason, False)
    assert "16 signals wait for it already" in entry.reason


def test_an_instance_of_a_version_that_is_not_there_makes_it_wait() -> None:
    """The worker waits rather than guess, and so does the rehearsal."""
    seen = tried(waiting(), APPROVED, {2: replace(ONE, version=2)})
    assert seen.decided == {}
    assert not seen.kept
    assert seen.waits is not None
    assert "is of version 1; this worker has [2]" in seen.waits


def test_a_signal_on_which_a_function_raises_is_told_to_be_a_dead_letter() -> None:
    """No traceback: with the words of the dead letter, which the worker then makes of it."""
    broken[0], context = True, desktop(buy())
    begin(context)
    seen = tried(context, APPROVED, {1: buy().definition})
    assert seen == Rehearsed({}, f"{RAISES}; it would be a dead letter")
    with pytest.raises(BuilderError, match=RAISES):
        context.give("buy.signals", APPROVED, id="s-1")
