"""A message that comes twice, as one does that was handed over directly and captured, costs nothing the second time."""

from dataclasses import replace

import pytest

from sagas import catalog, identity, place_order
from schemas.records.catalog import OutOfStock, StockReleased, StockReserved
from schemas.records.identity import CustomerRefused, CustomerVerified
from schemas.records.order import OrderPlaced, OrderRejected
from tests.unit.orchestrator.desktop import Desktop, Sent, commands, desktop, history, order_placed
from towpath.contract.record import Record
from towpath.orchestrator import repetition
from towpath.orchestrator.repetition import repeats_reply
from towpath.saga import Saga, Undo, hours, seconds
from towpath.saga.advance import advance
from towpath.saga.inputs import Replied, Started
from towpath.saga.state import Direction, SagaState, StepStatus

VERIFIED = CustomerVerified(order_id="order-1", customer_id="customer-1")
RESERVED = StockReserved(order_id="order-1", reservation_id="r-1")
REFUSED = CustomerRefused(order_id="order-1", customer_id="customer-1", reason="unknown")
DEFINITION = place_order.saga.definition


def begun() -> tuple[Desktop, dict[str, Sent]]:
    """Return a worker with one order placed, and the commands sent, by step."""
    context = desktop(place_order.saga)
    sent = context.give("order.events", order_placed(), id="event-1")
    return context, {command.headers["step"]: command for command in commands(sent)}


def nothing_happens(context: Desktop, command: Sent, reply: object) -> None:
    """Give a reply once more: no message, no entry in the history, not a byte of state."""
    before = context.stored()
    assert context.reply(command, reply) == []  # type: ignore[arg-type]
    assert context.stored() == before


def test_the_twin_of_a_reply_costs_neither_an_entry_nor_a_write() -> None:
    """Whichever of the two came first, the second says what the step holds already."""
    context, first = begun()
    context.reply(first["verify_customer"], VERIFIED)
    nothing_happens(context, first["verify_customer"], VERIFIED)
    context.reply(first["reserve_stock"], RESERVED)
    nothing_happens(context, first["verify_customer"], VERIFIED)
    nothing_happens(context, first["reserve_stock"], RESERVED)


def test_the_twin_of_a_refusal_and_those_of_what_is_undone_cost_nothing_either() -> None:
    """A business failure turns the saga round once; while it compensates, and after, its replies are known."""
    context, first = begun()
    context.reply(first["reserve_stock"], RESERVED)
    (release,) = (one for one in commands(context.reply(first["verify_customer"], REFUSED)) if "undoes" in one.headers)
    nothing_happens(context, first["verify_customer"], REFUSED)
    nothing_happens(context, first["reserve_stock"], RESERVED)
    context.reply(release, StockReleased(order_id="order-1"))
    nothing_happens(context, release, StockReleased(order_id="order-1"))
    nothing_happens(context, first["reserve_stock"], RESERVED)


def test_a_late_reply_that_says_something_new_is_recorded() -> None:
    """A step that was given up unanswered holds no outcome: what comes after all is refused, for people to see."""
    context, first = begun()
    context.reply(first["verify_customer"], REFUSED)
    (entry,) = history(context.reply(first["reserve_stock"], RESERVED))
    assert entry.happened == "refused"


def late(context: Desktop, command: Sent, reply: Record = RESERVED, id_: str = "late") -> list[str]:
    """Give a late reply; return what the history says of it."""
    return [entry.happened for entry in history(context.reply(command, reply, id=id_))]


def undone(context: Desktop, release: Sent) -> None:
    """Let the order be undone to its end, from the release of its stock on."""
    (reject,) = commands(context.reply(release, StockReleased(order_id="order-1")))
    rejected = OrderRejected(order_id="order-1", reason="unknown", rejected_at=context.clock.now())
    (entry,) = history(context.reply(reject, rejected))
    assert entry.status == "compensated"


def test_a_late_reply_is_recorded_once() -> None:
    """Handed over and captured, or replayed, it comes again: while the saga compensates, and when that is over."""
    context, first = begun()
    (release,) = commands(context.reply(first["verify_customer"], REFUSED))
    assert late(context, first["reserve_stock"]) == ["refused"]
    assert late(context, first["reserve_stock"]) == []
    assert late(context, first["reserve_stock"], id_="late-2") == ["refused"], "the answer to another attempt"
    undone(context, release)
    before = context.stored()
    assert late(context, first["reserve_stock"]) == []
    assert late(context, first["reserve_stock"], id_="late-2") == []
    assert context.stored() == before


def test_that_something_cannot_be_undone_is_recorded_once() -> None:
    """A step that waits for a person holds its outcome, not what was said of its undo."""
    made = Saga("keep_stock", version=1, starts_on=OrderPlaced, deadline=hours(1))
    undo = Undo(place_order.release_stock, succeeds=StockReleased, fails=OutOfStock)
    stock = made.step(catalog, place_order.reserve_stock, undo=undo, succeeds=StockReserved, within=seconds(10))
    made.pivot(
        identity,
        place_order.verify_customer,
        after=stock,
        succeeds=CustomerVerified,
        fails=CustomerRefused,
        within=seconds(10),
    )
    context = desktop(made)
    (reserve,) = commands(context.give("order.events", order_placed(), id="event-1"))
    (verify,) = commands(context.reply(reserve, RESERVED))
    (release,) = commands(context.reply(verify, REFUSED))
    gone = OutOfStock(order_id="order-1", sku="chair", requested=1, available=0)
    (entry,) = history(context.reply(release, gone, id="gone"))
    assert (entry.happened, entry.status) == ("replied", "stuck")
    before = context.stored()
    assert context.reply(release, gone, id="gone") == []
    assert context.stored() == before
    assert late(context, release, StockReleased(order_id="order-1"), "gone") == ["refused"]


def test_a_late_reply_under_a_known_id_that_says_something_else_is_recorded() -> None:
    """A participant that has lost its inbox answers anew, under the id of its first answer: that must not vanish."""
    context, first = begun()
    context.reply(first["verify_customer"], REFUSED)
    other = OutOfStock(order_id="order-1", sku="chair", requested=1, available=0)
    assert late(context, first["reserve_stock"]) == ["refused"]
    assert late(context, first["reserve_stock"], other) == ["refused"]
    assert late(context, first["reserve_stock"], other) == []


def test_late_replies_are_forgotten_with_their_saga() -> None:
    """Nothing is left of them in the state."""
    context, first = begun()
    (release,) = commands(context.reply(first["verify_customer"], REFUSED))
    late(context, first["reserve_stock"])
    undone(context, release)
    assert sorted(key[:1] for key in context.stored() if key[:1] in (b"i", b"r")) == [b"i", b"r"]
    context.clock.advance(2 * 3600)
    context.fire_timers()
    assert [key for key in context.stored() if key[:1] in (b"i", b"r")] == []


def test_of_many_late_replies_the_last_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded; an older one that comes again is recorded again."""
    monkeypatch.setattr(repetition, "REPLIES_KEPT_MAX", 2)
    context, first = begun()
    context.reply(first["verify_customer"], REFUSED)
    for number in range(3):
        assert late(context, first["reserve_stock"], id_=f"late-{number}") == ["refused"]
    assert late(context, first["reserve_stock"], id_="late-2") == []
    assert late(context, first["reserve_stock"], id_="late-1") == []
    assert late(context, first["reserve_stock"], id_="late-0") == ["refused"]


def test_a_reply_that_contradicts_what_the_step_holds_is_recorded() -> None:
    """A second, different outcome is a participant's fault, and must not vanish."""
    context, first = begun()
    context.reply(first["reserve_stock"], RESERVED)
    other = OutOfStock(order_id="order-1", sku="chair", requested=1, available=0)
    (entry,) = history(context.reply(first["reserve_stock"], other))
    assert entry.happened == "refused"


@pytest.mark.parametrize("status", [StepStatus.SENT, StepStatus.BACKOFF, StepStatus.STUCK], ids=lambda one: one.value)
def test_a_step_that_waits_again_takes_the_same_answer_again(status: StepStatus) -> None:
    """Where a person retries a step that holds a failure, the new round's reply counts, though it says the same."""
    event, at = order_placed(), 1_000
    state = advance(DEFINITION, None, Started("event-1", at, event, "order-1", None, ())).state
    assert state is not None
    reply = Replied("r", at, "verify_customer", Direction.DO, 1, 1, REFUSED, "")
    assert not repeats_reply(holding(state, status), reply)
    assert repeats_reply(holding(state, StepStatus.FAILED), reply)


def holding(state: SagaState, status: StepStatus) -> SagaState:
    """Return `state` with its first step in `status`, holding the refusal of an earlier round."""
    steps = tuple(
        replace(step, status=status, result=REFUSED) if step.key == "verify_customer" else step for step in state.steps
    )
    return replace(state, steps=steps)
