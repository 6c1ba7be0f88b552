"""Sub-sagas that never begin: refused, or asked back before they came. No parent is left waiting, nothing is late."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from sagas import catalog
from sagas.place_order import reserve_stock
from schemas.records.catalog import StockReleased, StockReserved
from schemas.records.order import OrderCancellationRequested, OrderPlaced
from tests.unit.orchestrator.desktop import HOUR_MILLISECONDS, Desktop, Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import Family, buy, hold_goods
from tests.unit.orchestrator.test_subsagas import begun, statuses
from towpath.clock import ManualClock
from towpath.contract.record import Record
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.instances import BeyondDedupHorizon, MissingVersion
from towpath.orchestrator.mapping import parent_to_wire
from towpath.saga import Saga, SecondStart, hours, seconds
from towpath.saga.effects import CompensateSaga, StartSaga
from towpath.saga.keys import saga_id_of
from towpath.stream.broker.record import ConsumedRecord

PARENT = saga_id_of("buy", "event-1")
STARTS = StartSaga("buy", PARENT, "order-1", "goods", 1, 1, "hold_goods", 1, order_placed())
ASKS = CompensateSaga("buy", PARENT, "order-1", "goods", 1, 1, "hold_goods")
RESERVED = StockReserved(order_id="order-1", reservation_id="r-1")
RELEASED = StockReleased(order_id="order-1")
COMPLETED, COMPENSATED = "SubsagaCompleted", "SubsagaCompensated"

SIGNALS = "hold_goods.signals"
NEVER = "its parent was told already that it left nothing behind"


def child() -> Desktop:
    """Return a worker of the sub-saga."""
    return desktop(hold_goods())


def texts(headers: Any) -> dict[str, str]:
    """Return headers as text."""
    return {name: (value or b"").decode() for name, value in headers}


def start(context: Desktop, event: Record | None = None, **changes: Any) -> list[Sent]:
    """Let the start of the sub-saga arrive."""
    record = event or order_placed()
    headers = texts(envelope.start_headers(STARTS, record.SCHEMA_NAME, {"traceparent": "00-1"}))
    return context.give(f"{context.orchestrator.name}.signals", record, **{**headers, **changes})


def ask(context: Desktop, asks: CompensateSaga = ASKS, **changes: Any) -> list[Sent]:
    """Let the parent's wish that it be undone arrive."""
    record = wire.ParentAsked(parent=parent_to_wire(asks.parent))
    headers = texts(envelope.compensate_headers(asks, record.SCHEMA_NAME, {"traceparent": "00-1"}))
    return context.give(SIGNALS, record, **{**headers, **changes})


def let_go(context: Desktop) -> list[Sent]:
    """Let the word arrive that the parent is over."""
    record = wire.ParentEnded(saga="buy", saga_id=PARENT)
    return context.give(SIGNALS, record, id=f"{STARTS.start_id}:ended", saga_id=STARTS.child_saga_id)


def served(context: Desktop, sent: list[Sent]) -> list[Sent]:
    """Answer every command, and what follows from that; return all that was sent."""
    everything = list(sent)
    for command in commands(sent):
        undo = command.headers["direction"] == "undo"
        everything += served(context, context.reply(command, RELEASED if undo else RESERVED))
    return everything


def answers(sent: list[Sent]) -> list[tuple[str, str]]:
    """Return what the parent is told, each as what it answers and how."""
    told = [message for message in sent if message.topic == "buy.replies"]
    assert all(message.headers["saga_id"] == PARENT and message.headers["traceparent"] == "00-1" for message in told)
    return [(message.headers["direction"], type(message.record).__name__) for message in told]


def with_another() -> Desktop:
    """Return a worker in which the key has an instance already, so that another start is refused."""
    context = child()
    context.give("order.events", order_placed(), id="alone")
    return context


# --- A start that is refused ------------------------------------------------------------------------------------------


def test_a_start_is_refused_where_the_key_has_an_instance_and_the_parent_is_told() -> None:
    """It is a business failure of the parent's step, once for each time it is asked, and never begins."""
    context = with_another()
    for reason in ("the key has an instance already", NEVER):
        sent = start(context)
        assert answers(sent) == [("do", COMPENSATED)]
        (entry,) = history(sent)
        assert entry.reason.startswith(reason)
        assert [message.type.rpartition(".")[2] for message in entry.sent] == [COMPENSATED]
    assert sum(key.startswith(b"i") for key in context.stored()) == 1


def test_a_repeated_refusal_is_the_same_message() -> None:
    """Its id is derived, so whoever removes duplicates by id removes it."""
    context = with_another()
    first, second = ([sent for sent in start(context) if sent.topic == "buy.replies"] for _ in range(2))
    assert first == second


def test_what_was_refused_does_not_begin_when_the_obstacle_is_gone() -> None:
    """The parent has gone on since: a second attempt of its start would run for nobody."""
    context = with_another()
    start(context)
    (alone,) = (key[1:].decode() for key in context.stored() if key.startswith(b"i"))
    asked = wire.OperatorAsked(saga_id=alone, action=wire.OperatorAction.CANCEL, actor="grace", reason="test")
    served(context, context.give("hold_goods.operator", asked, id="cancel"))
    context.clock.advance(2 * HOUR_MILLISECONDS / 1000)
    context.fire_timers()
    assert not any(key.startswith(b"i") for key in context.stored())
    sent = start(context)
    assert (answers(sent), commands(sent)) == ([("do", COMPENSATED)], [])


def test_a_start_on_something_else_is_refused_and_the_parent_is_told() -> None:
    """No version of the child starts on that, whatever version the parent means."""
    cancellation = OrderCancellationRequested(
        order_id="order-1",
        customer_id="customer-1",
        reason="",
        requested_by="customer",
        lines=(),
        total_cents=1,
        refund_cents=1,
        currency="EUR",
        authorisation_id="a-1",
    )
    sent = start(child(), cancellation)
    assert answers(sent) == [("do", COMPENSATED)]
    assert history(sent)[0].reason == "no version of this saga starts on that"


def test_a_version_that_starts_on_something_else_is_not_taken() -> None:
    """The number is the parent's; where it does not fit, the version that starts on this does."""
    other = Saga("hold_goods", version=2, starts_on=OrderCancellationRequested, deadline=hours(1))
    other.retriable(catalog, reserve_cancelled, succeeds=StockReserved, within=seconds(10))
    sent = start(desktop(hold_goods(), other), saga_version="2")
    assert [(entry.version, entry.status) for entry in history(sent)] == [(1, "running")]


def reserve_cancelled(event: OrderCancellationRequested) -> Any:
    """Reserve."""
    raise AssertionError(event)


def test_a_repetition_of_a_start_of_a_version_that_was_taken_away_waits_for_it() -> None:
    """There is an instance: to say that nothing was left behind would be a lie."""
    old = Saga("hold_goods", version=2, starts_on=OrderCancellationRequested, deadline=hours(1))
    old.retriable(catalog, reserve_cancelled, succeeds=StockReserved, within=seconds(10))
    context = child()
    start(context)
    context.orchestrator = desktop(old).orchestrator
    with pytest.raises(MissingVersion):
        start(context)


def test_a_start_that_cannot_fail_is_refused_and_may_be_tried_again() -> None:
    """The step is retriable: its parent knows no failure, and a person's retry begins it once that is possible."""
    made = Saga("hold_goods", version=1, starts_on=OrderPlaced, deadline=hours(1))
    made.retriable(catalog, reserve_stock, succeeds=StockReserved, within=seconds(10))
    context = desktop(made)
    alone = context.give("order.events", order_placed(), id="alone")
    refused = start(context)
    assert (answers(refused), history(refused)[0].happened) == ([], "refused")
    served(context, alone)
    assert answers(served(context, start(context))) == [("do", COMPLETED)]


def test_a_refused_start_that_no_parent_sent_has_nobody_to_tell() -> None:
    """As before."""
    context = with_another()
    sent = context.give("order.events", order_placed(), id="alone-2")
    assert [message.topic for message in sent] == ["hold_goods.history"]
    assert not any(key.startswith(b"w") for key in context.stored())


def test_the_parent_of_a_refused_child_compensates_at_once() -> None:
    """Two orders of one key, each with a child: the second one's is refused, and its parent knows why it ends."""
    family = Family(buy(second_start=SecondStart.INDEPENDENT), hold_goods())
    begun(family)
    sent = family.carry(family["buy"].give("order.events", order_placed(), id="event-2"))
    entries = [entry for entry in history(sent) if entry.saga == "buy"]
    assert [(entry.status, entry.cause) for entry in entries] == [
        ("running", ""),
        ("compensated", f"goods: {COMPENSATED}"),
    ]
    family.pass_hours(1)
    assert [len(family[saga].stored()) for saga in ("buy", "hold_goods")] == [3, 3]


# --- An undo that is asked for before anything began ------------------------------------------------------------------


def test_a_parent_is_told_at_once_that_nothing_is_left_to_undo() -> None:
    """Of a child that nobody has heard of."""
    sent = ask(child())
    assert answers(sent) == [("undo", COMPENSATED)]
    (entry,) = history(sent)
    assert (entry.input, entry.reason) == ("ParentAsked", "no such saga has started: nothing is left to undo")


def test_only_the_saga_that_would_have_started_it_can_ask() -> None:
    """The child's id is derived from its parent: a stranger cannot keep a child from beginning."""
    context = child()
    for asks in (replace(ASKS, saga_id=saga_id_of("buy", "event-2")), replace(ASKS, step="other")):
        sent = ask(context, asks, saga_id=ASKS.child_saga_id)
        assert (answers(sent), history(sent)[0].reason) == ([], "the saga that asks is not the parent of this one")
    assert commands(start(context)) != []


def test_each_attempt_to_undo_is_answered_by_its_own_number() -> None:
    """A parent that a person lets try again hears of that attempt."""
    context = child()
    ask(context)
    (told,) = [message for message in ask(context, replace(ASKS, attempt=2)) if message.topic == "buy.replies"]
    assert told.headers["attempt"] == "2"


def expected(order: Sequence[str], *, refused: bool) -> tuple[list[tuple[str, str]], int]:
    """Return what a parent must be told when its messages come in this order, and how often stock is reserved."""
    told, stands, reserved = [], "", 0
    for message in order:
        if message == "start" and not stands and not refused:
            stands, reserved = "begun", 1
            told.append(("do", COMPLETED))
        elif message == "start" and stands != "begun":
            stands = "withdrawn"
            told.append(("do", COMPENSATED))
        elif message == "ask":
            stands = stands or "withdrawn"
            told.append(("undo", COMPENSATED))
    return told, reserved


@pytest.mark.parametrize("refused", [False, True], ids=["free", "refused"])
def test_every_order_of_arrival_leaves_all_or_nothing(refused: bool) -> None:
    """Start, undo and the parent's end, up to four in any order, each as often as one likes: 240 runs."""
    deliver: dict[str, Callable[[Desktop], list[Sent]]] = {"start": start, "ask": ask, "end": let_go}
    for order in (names for length in range(1, 5) for names in product(deliver, repeat=length)):
        context = with_another() if refused else child()
        sent = [message for name in order for message in served(context, deliver[name](context))]
        told, reserved = expected(order, refused=refused)
        assert answers(sent) == told, order
        counts = [sum(c.headers["direction"] == way for c in commands(sent)) for way in ("do", "undo")]
        assert counts == [reserved, reserved * ("ask" in order[order.index("start") :] if reserved else 0)], order


@pytest.mark.parametrize("refused", [False, True], ids=["free", "refused"])
def test_a_unit_that_aborts_leaves_no_mark(refused: bool) -> None:
    """The mark and the answer are one act: what is told was noted, and what was not told was not."""
    context = with_another() if refused else child()
    before = context.stored()
    record = wire.ParentAsked(parent=parent_to_wire(ASKS.parent))
    headers = texts(envelope.compensate_headers(ASKS, record.SCHEMA_NAME, {}))
    context.give_and_abort(SIGNALS, record, **headers)
    assert context.stored() == before
    assert answers(served(context, start(context))) == [("do", COMPENSATED if refused else COMPLETED)]


# --- How long that is remembered --------------------------------------------------------------------------------------


def test_a_mark_is_kept_until_the_parent_is_over_and_then_for_its_time() -> None:
    """However long the parent takes; a start from before its end that comes after that is not guessed at."""
    context = child()
    early = context.clock.now()
    ask(context)
    context.clock.advance(100 * HOUR_MILLISECONDS / 1000)
    assert (context.fire_timers(), context.timers_set()) == ([], [])
    assert answers(start(context)) == [("do", COMPENSATED)]
    context.clock.advance(60)
    between = context.clock.now()
    context.clock.advance(60)
    let_go(context)
    context.clock.advance(HOUR_MILLISECONDS / 1000 - 1)
    let_go(context)
    assert context.fire_timers() == []
    context.clock.advance(1)
    context.fire_timers()
    assert [key[:1] for key in context.stored()] == [b"f"]
    now = context.clock
    for then in (early, between):
        context.clock = ManualClock(then)
        with pytest.raises(BeyondDedupHorizon):
            start(context)
    context.clock = now
    assert commands(start(context)) != []


def test_only_the_parent_ends_a_mark() -> None:
    """Another saga's word about it is refused, as it is about an instance."""
    context = child()
    ask(context)
    stranger = wire.ParentEnded(saga="buy", saga_id="another")
    (entry,) = history(context.give(SIGNALS, stranger, id="e", saga_id=STARTS.child_saga_id))
    assert (entry.reason, context.timers_set()) == ("it started no such sub-saga", [])


def test_a_parent_asks_a_child_that_never_came_and_both_are_forgotten() -> None:
    """The start is lost on its way; cancelled, the parent ends, tells so, and nothing is kept of either."""
    family = Family(buy(), hold_goods())
    family["buy"].give("order.events", order_placed(), id="event-1")
    asked = wire.OperatorAsked(saga_id=PARENT, action=wire.OperatorAction.CANCEL, actor="grace", reason="late")
    sent = family.carry(family["buy"].give("buy.operator", asked, id="cancel"))
    assert statuses(sent)["buy"] == "compensated"
    family.pass_hours(1)
    assert [[key[:1] for key in family[saga].stored()] for saga in ("buy", "hold_goods")] == [[b"f"], [b"f"]]


@pytest.mark.parametrize("changes", [{"attempt": "1"}, {"saga": []}, {"surplus": 1}, None], ids=str)
def test_a_header_that_names_no_parent_is_malformed(changes: dict[str, Any] | None) -> None:
    """Whatever its parts are, nested without end included: a dead letter at once, and no handler's bug."""
    (said,) = (value for name, value in envelope.start_headers(STARTS, "Type", {}) if name == "parent")
    text = b"[" * 100_000 if changes is None else json.dumps({**json.loads(said or b""), **changes}).encode()
    with pytest.raises(envelope.MalformedHeaders, match="names no parent"):
        envelope.parent(ConsumedRecord("t", 0, 0, 1, b"k", b"v", (("parent", text),)))
