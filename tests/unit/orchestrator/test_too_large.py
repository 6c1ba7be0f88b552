"""What does not fit into its topic: a start is refused and told so, a saga under way is stuck with the reason.

Nothing of it is a dead letter, so no key is parked, and the next record of the partition is handled as ever.
"""

from bisect import bisect_left
from dataclasses import replace
from typing import Any

import pytest

from sagas import catalog, orders
from sagas.place_order import confirm_order, release_stock, reserve_stock
from schemas.records.catalog import ReserveStock, StockLine, StockReleased, StockReserved
from schemas.records.order import (
    ConfirmOrder,
    OrderApproved,
    OrderConfirmed,
    OrderDeclined,
    OrderPlaced,
    OrderRejected,
    RejectOrder,
)
from tests.unit.orchestrator.desktop import CODEC, Desktop, Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import Family, buy, hold_goods
from tests.unit.orchestrator.test_instance_status import changelog
from towpath.orchestrator import records as wire
from towpath.orchestrator.instance_status import instances_in
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.recording import golden_of
from towpath.orchestrator.requests import request_of, to_record
from towpath.orchestrator.sagas_view import answers_in, fold
from towpath.orchestrator.why import Facts, explain
from towpath.saga import COMPENSATE, HALT, Cause, CauseKind, Saga, SecondStart, Undo, UndoStart, hours, seconds
from towpath.saga.inputs import Action
from towpath.saga.keys import saga_id_of
from towpath.saga.state import SagaState
from towpath.saga.testing import replay
from towpath.stream.broker.port import OutputRefused
from towpath.stream.broker.record_limits import RecordLimits
from towpath.view import Occurrence

STATE_BYTES_MAX = 60_000
LIMITS = RecordLimits({"ship.state": STATE_BYTES_MAX, "catalog.commands": 40_000, "ship.history": 2_000_000})
FIRST = saga_id_of("ship", "event-1")


def reject(order: OrderPlaced, cause: Cause) -> RejectOrder:
    """Reject the order, and say why."""
    return RejectOrder(order_id=order.order_id, reason=f"{cause.kind.value}: {cause.reason}")


def reserve_as_told(order: OrderPlaced, approved: OrderApproved) -> ReserveStock:
    """Return a command that is as large as the name of who approved."""
    return ReserveStock(order_id=order.order_id, lines=(StockLine(sku=approved.approver, quantity=1),))


def ship(*, undo_start: bool = True) -> Saga[OrderPlaced]:
    """Return a saga of a step that can be undone, a wait, a step that needs its answer, and the pivot."""
    undo = UndoStart(reject, by=orders, succeeds=OrderRejected, within=seconds(10), when_refused=False)
    made = Saga(
        "ship",
        version=1,
        starts_on=OrderPlaced,
        deadline=hours(9),
        undo=undo if undo_start else None,
        second_start=SecondStart.INDEPENDENT,
    )
    undone = Undo(release_stock, succeeds=StockReleased)
    stock = made.step(catalog, reserve_stock, undo=undone, succeeds=StockReserved, within=seconds(10), attempts=2)
    approval = made.wait(
        "approval",
        after=stock,
        succeeds=OrderApproved,
        fails=OrderDeclined,
        within=hours(1),
        on_timeout=COMPENSATE,
    )
    more = made.step(
        catalog,
        reserve_as_told,
        key="reserve_more",
        needs=approval,
        undo=undone,
        succeeds=StockReserved,
        within=seconds(10),
    )
    made.pivot(orders, confirm_order, after=more, succeeds=OrderConfirmed, within=seconds(10))
    return made


def begun(event: str = "event-1", **order: Any) -> tuple[Desktop, list[Sent]]:
    """Return a worker to which an order was given, and what that sent."""
    context = desktop(ship(), limits=LIMITS)
    return context, context.give("order.events", order_placed(**order), id=event)


def wide(bytes_: int) -> OrderPlaced:
    """Return an order of so many bytes."""
    return replace(order_placed(), card_token="x" * bytes_)


def reserved(bytes_: int = 1) -> StockReserved:
    """Return a reply of so many bytes."""
    return StockReserved(order_id="order-1", reservation_id="r" * bytes_)


def approved(bytes_: int = 1) -> OrderApproved:
    """Return a signal of so many bytes."""
    return OrderApproved(order_id="order-1", approver="a" * bytes_)


def ask(context: Desktop, action: wire.OperatorAction, step: str = "", id_: str = "ask", **more: Any) -> list[Sent]:
    """Let a person ask something."""
    asked = wire.OperatorAsked(saga_id=FIRST, action=action, step=step, actor="grace", reason="it fits now", **more)
    return context.give("ship.operator", asked, id=id_)


def state_of(context: Desktop) -> SagaState:
    """Return the first instance."""
    found = instances_in(changelog(context), CODEC, Messages(CODEC))
    return next(one.state for one in found if one.state.saga_id == FIRST)


def standing(context: Desktop, step: str) -> tuple[str, str]:
    """Return how the first instance stands, and a step of it."""
    state = state_of(context)
    return state.status.value, state.step(step).status.value


def test_a_start_whose_state_would_not_fit_is_refused_and_told() -> None:
    """The start is undone with the reason, whatever the undo says of doubles; the next order is taken as ever."""
    context, _ = begun()
    sent = context.give("order.events", wide(STATE_BYTES_MAX - 5_000), id="event-2")
    (entry,) = history(sent)
    (command,) = commands(sent)
    assert (entry.happened, entry.status) == ("started", "compensating")
    assert "is too large for ship.state, which takes 60000" in entry.cause
    assert command.record.reason.startswith(f"refused: {entry.reason}")
    answer = OrderRejected(order_id="x", reason="x", rejected_at=context.clock.now())
    (ended,) = history(context.reply(command, answer))
    assert ended.status == "compensated"
    assert len(commands(context.give("order.events", order_placed(), id="event-3"))) == 1


def test_a_start_that_nothing_undoes_ends_at_once() -> None:
    """Whoever awaits it finds it compensated, with the reason."""
    context = desktop(ship(undo_start=False), limits=LIMITS)
    (entry,) = history(context.give("order.events", wide(STATE_BYTES_MAX - 5_000), id="event-1"))
    assert (entry.status, state_of(context).cause.kind) == ("compensated", CauseKind.REFUSED)  # type: ignore[union-attr]
    assert context.give("order.events", wide(STATE_BYTES_MAX - 5_000), id="event-1") == [], "a repetition is known"


def test_a_start_too_large_even_to_be_refused_is_the_records_fault() -> None:
    """Its topic takes more than the state does: a dead letter, and nothing of it is half done."""
    context, _ = begun()
    before = context.stored()
    with pytest.raises(OutputRefused):
        context.give("order.events", wide(STATE_BYTES_MAX), id="event-2")
    context.state("ship.state", 0).forget()
    assert context.stored() == before


def test_an_entry_is_weighed_with_its_headers() -> None:
    """One byte too many, and nothing goes out: neither the entry, nor the commands of the decision that it is about."""

    def given(bytes_max: int) -> tuple[Desktop, bool]:
        context = desktop(ship(), limits=RecordLimits({"ship.history": bytes_max}))
        try:
            return context, bool(context.give("order.events", wide(20_000), id="event-1"))
        except OutputRefused:
            return context, False

    least = bisect_left(range(40_000), True, key=lambda bytes_max: given(bytes_max)[1])
    assert 20_000 < least < 40_000
    context, _ = given(least - 1)
    assert context.sent == []
    assert context.stored() == {}
    assert context.timers_set() == []


def test_a_reply_that_would_not_fit_leaves_its_step_stuck() -> None:
    """With the reason in state, history and `saga why`; others go on, and a retry takes a smaller answer."""
    context, sent = begun()
    (command,) = commands(sent)
    (entry,) = history(context.reply(command, reserved(STATE_BYTES_MAX)))
    assert (entry.happened, entry.status, entry.step) == ("replied", "stuck", "reserve_stock")
    assert standing(context, "reserve_stock") == ("stuck", "stuck")
    assert "reserve_stock cannot go on: a state of 6" in str(state_of(context).cause)
    said = explain(Facts("ship", FIRST, 0, state=state_of(context)))
    assert "because of reserve_stock cannot go on" in said[0].sentence
    assert any("retry; the recorded reply comes again" in line.sentence for line in said)
    other = context.give("order.events", order_placed(), id="event-2")
    assert [each.status for each in history(other)] == ["running"]
    (again,) = commands(ask(context, wire.OperatorAction.RETRY, "reserve_stock"))
    assert again.headers["idempotency_key"] == command.headers["idempotency_key"]
    (taken,) = history(context.reply(again, reserved()))
    assert (taken.status, taken.cause) == ("running", "")


def test_a_stuck_step_before_the_pivot_owes_its_undo() -> None:
    """The command was sent, and answered: it may well have been carried out."""
    context, sent = begun()
    context.reply(commands(sent)[0], reserved(STATE_BYTES_MAX))
    (undo,) = commands(ask(context, wire.OperatorAction.COMPENSATE))
    assert (undo.headers["step"], undo.headers["direction"]) == ("reserve_stock", "undo")


def test_a_person_can_skip_with_an_answer_that_fits() -> None:
    """One that does not is refused, and says why."""
    context, sent = begun()
    context.reply(commands(sent)[0], reserved(STATE_BYTES_MAX))
    messages = Messages(CODEC)
    large, small = (messages.wrap(reserved(size)) for size in (STATE_BYTES_MAX, 1))
    (refused,) = history(ask(context, wire.OperatorAction.SKIP, "reserve_stock", "ask-1", reply=large))
    assert refused.happened == "refused"
    assert "too large for ship.state" in refused.reason
    row = fold(None, refused, Occurrence("ship.history", "order-1", "ask-1", context.clock.now()))
    assert [one.refusal for one in answers_in(row)] == [refused.reason], "so it is told to whoever awaits it"
    (taken,) = history(ask(context, wire.OperatorAction.SKIP, "reserve_stock", "ask-2", reply=small))
    assert taken.status == "running"
    (again,) = history(ask(context, wire.OperatorAction.SKIP, "reserve_stock", "ask-1", reply=small))
    assert again.reason == "the request was already applied", "one that was refused is remembered, too"


def test_what_was_refused_can_be_asked_again_once_the_topic_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another request by then, though the saga stands where it stood."""
    context, sent = begun()
    context.reply(commands(sent)[0], reserved(STATE_BYTES_MAX))

    def skip() -> list[wire.HistoryEntry]:
        reply = reserved(STATE_BYTES_MAX)
        request = request_of(state_of(context), Action.SKIP, actor="ada", reason="it is there", reply=reply)
        topic, key, value, headers = to_record(CODEC, request)
        said = {name: (text or b"").decode() for name, text in headers}
        return history(context.give(topic, value, key=key.decode(), **said))

    (refused,) = skip()
    assert "too large for ship.state" in refused.reason
    monkeypatch.setitem(LIMITS._bytes_max, "ship.state", 500_000)
    (done,) = skip()
    assert done.happened != "refused", done.reason


def test_an_answer_to_a_wait_that_would_not_fit_leaves_it_stuck() -> None:
    """Its timer no longer runs; a smaller answer is still taken."""
    context, sent = begun()
    context.reply(commands(sent)[0], reserved())
    (entry,) = history(context.give("ship.signals", approved(STATE_BYTES_MAX), id="s-1"))
    assert (entry.happened, entry.status) == ("signalled", "stuck")
    assert standing(context, "approval") == ("stuck", "stuck")
    assert not any("approval" in key for key in context.timers_set())
    sent = context.give("ship.signals", approved(), id="s-2")
    assert [command.headers["step"] for command in commands(sent)] == ["reserve_more"]


def test_an_answer_that_comes_before_its_wait_is_refused() -> None:
    """Nothing waits for it yet, so nothing is stuck; before its saga, too."""
    context, _ = begun()
    (entry,) = history(context.give("ship.signals", approved(STATE_BYTES_MAX), id="s-1"))
    assert (entry.happened, standing(context, "approval")[0]) == ("refused", "running")
    early = context.give("ship.signals", approved(1_100_000), id="s-2", key="order-2")
    assert "the signals that wait for it would not fit" in history(early)[0].reason


def test_an_answer_before_its_saga_that_the_history_does_not_take_is_refused_at_once() -> None:
    """Without what it carried; the saga starts as ever, and nothing is kept."""
    context = desktop(ship(), limits=RecordLimits({"ship.history": 100_000}))
    (entry,) = history(context.give("ship.signals", approved(120_000), id="early"))
    assert entry.reason.startswith("no such saga has started, and a signal of 1200")
    assert (entry.message, context.stored()) == (None, {})
    (begun_,) = history(context.give("order.events", order_placed(), id="event-1"))
    assert begun_.happened == "started"


def kept_since_the_history_took_more() -> Desktop:
    """Return a worker that keeps a signal which its history does not take any more."""
    context = desktop(ship(), limits=LIMITS)
    context.give("ship.signals", approved(STATE_BYTES_MAX - 1_000), id="early")
    context.limits = RecordLimits({"ship.history": 50_000})
    context.orchestrator = desktop(ship(), limits=context.limits).orchestrator
    return context


def test_a_start_is_not_to_blame_for_a_signal_before_it_that_does_not_fit() -> None:
    """It begins; the signal is refused, once."""
    context = kept_since_the_history_took_more()
    sent = context.give("order.events", order_placed(), id="event-1")
    assert [entry.happened for entry in history(sent)] == ["started", "refused"]
    assert "is too large for ship.history, which takes 50000" in history(sent)[1].reason
    assert len(commands(sent)) == 1
    assert not any(key.startswith(b"e") for key in context.stored())


def test_a_signal_before_its_saga_that_does_not_fit_is_given_up_after_its_day() -> None:
    """As any other: its timer does not fail."""
    context = kept_since_the_history_took_more()
    context.clock.advance(24 * 3600)
    (entry,) = history(context.fire_timers())
    assert (entry.happened, entry.reason, entry.message) == ("refused", "its saga never started", None)
    assert context.stored() == {}


@pytest.mark.parametrize("raises", [False, True])
def test_a_person_is_told_that_the_history_does_not_take_their_answer(*, raises: bool) -> None:
    """Also where a function raises on it; what they ask next does not wait behind it."""

    def confirm(order: OrderPlaced, approved: OrderApproved) -> ConfirmOrder:
        assert not raises or len(approved.approver) < 1_000
        return ConfirmOrder(order_id=order.order_id)

    made = Saga("ship", version=1, starts_on=OrderPlaced, deadline=hours(100))
    approval = made.wait("approval", succeeds=OrderApproved, within=hours(1), on_timeout=HALT)
    made.pivot(orders, confirm, needs=approval, succeeds=OrderConfirmed, within=seconds(10), key="confirm")
    context = desktop(made, limits=RecordLimits({"ship.history": 100_000}))
    context.give("order.events", order_placed(), id="event-1")
    context.clock.advance(3600)
    context.fire_timers()
    large, small = (Messages(CODEC).wrap(approved(size)) for size in (120_000, 1))
    (refused,) = history(ask(context, wire.OperatorAction.SKIP, "approval", "ask-1", reply=large))
    assert (refused.input_id, refused.happened, refused.message) == ("ask-1", "refused", None)
    assert "too large for ship.history, which takes 100000" in refused.reason
    (taken,) = history(ask(context, wire.OperatorAction.SKIP, "approval", "ask-2", reply=small))
    assert (taken.happened, taken.status) == ("operator_asked", "running")


def test_a_command_that_would_not_fit_leaves_what_led_to_it_stuck() -> None:
    """The state takes the answer, the participant's topic does not take the command made of it."""
    context, sent = begun()
    context.reply(commands(sent)[0], reserved())
    sent = context.give("ship.signals", approved(45_000), id="s-1")
    assert (commands(sent), history(sent)[0].status) == ([], "stuck")
    assert "too large for catalog.commands, which takes 40000" in str(state_of(context).cause)
    assert standing(context, "approval") == ("stuck", "stuck")


def test_a_parent_is_told_of_a_sub_saga_that_was_too_large_to_start() -> None:
    """Nothing of it began, so nothing is left to undo."""
    family = Family(buy(), hold_goods())
    narrow = RecordLimits({"hold_goods.state": 30_000, "hold_goods.history": 90_000})
    family.desks["hold_goods"] = desktop(hold_goods(), limits=narrow)
    sent = family.carry(family["buy"].give("order.events", wide(30_000), id="event-1"))
    refused = [entry for entry in history(sent) if entry.saga == "hold_goods"]
    assert [entry.happened for entry in refused] == ["refused"]
    assert "too large for hold_goods.state" in refused[0].reason
    assert [entry.status for entry in history(sent) if entry.saga == "buy"][-1] == "compensated"


def test_a_recorded_run_with_what_did_not_fit_is_decided_again() -> None:
    """The history says which input it was and why, so a replay needs no topic and no limit."""
    context, sent = begun()
    entries = history(sent)
    (command,) = commands(sent)
    for more in (
        context.reply(command, reserved(STATE_BYTES_MAX)),
        ask(context, wire.OperatorAction.RETRY, "reserve_stock"),
    ):
        entries += history(more)
        sent = more
    entries += history(context.reply(commands(sent)[0], reserved()))
    entries += history(context.give("ship.signals", approved(STATE_BYTES_MAX), id="s-1"))
    golden = golden_of(ship().definition, entries, CODEC)
    assert [entry["input"]["input"] for entry in golden["entries"]].count("Unfit") == 2
    replay(ship().definition, golden)
