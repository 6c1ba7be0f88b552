"""order and identity on real databases: doors, steps, and who may order."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from psycopg import errors

from pipelines.services import identity
from pipelines.services.identity.rules import Customer
from pipelines.services.order import approve_order, decline_order, place_order, postgres, request_cancellation, service
from schemas.records.identity import CustomerRefused, CustomerRegistered, CustomerVerified, VerifyCustomer
from schemas.records.order import (
    BeginCancellation,
    CancellationBegun,
    CancellationRefused,
    CompleteCancellation,
    ConfirmOrder,
    OrderApproved,
    OrderCancellationRequested,
    OrderCancelled,
    OrderConfirmed,
    OrderDeclined,
    OrderLine,
    OrderPlaced,
    OrderRejected,
    OrderResumed,
    RejectOrder,
    ResumeOrder,
)
from tests.commands import CODEC, Asking
from tests.integration.service_fixture import NOW, Asked, NewService
from towpath.contract.record import Record
from towpath.errors import NotFoundError, ProgrammerError, RefusedError
from towpath.saga.state import Direction
from towpath.stream.engine.failures import RecordFailed

pytestmark = pytest.mark.stack
LINES = (
    OrderLine(sku="vase", quantity=2, unit_price_cents=450),
    OrderLine(sku="bowl", quantity=1, unit_price_cents=99),
)
ORDER = OrderPlaced(
    order_id="o-1",
    customer_id="c-1",
    lines=LINES,
    total_cents=999,
    currency="EUR",
    card_token="card-1",
    placed_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def asking(command: Record, step: str, *, saga: str = "place_order", direction: Direction = Direction.DO) -> Asking:
    """Return a command about the order."""
    return Asking(command, key="o-1", step=step, saga=saga, direction=direction)


CONFIRM = asking(ConfirmOrder(order_id="o-1"), "confirm")
REJECT = asking(RejectOrder(order_id="o-1", reason="vase is out of stock"), "start", direction=Direction.UNDO)
BEGIN = asking(BeginCancellation(order_id="o-1", reason="changed my mind"), "hold", saga="cancel_order")
RESUME = asking(ResumeOrder(order_id="o-1"), "hold", saga="cancel_order", direction=Direction.UNDO)
COMPLETE = asking(CompleteCancellation(order_id="o-1"), "complete", saga="cancel_order")


@pytest.fixture
def order(new_service: NewService) -> Asked:
    """Return the service with one order placed."""
    asked = new_service(service)
    with asked.connection.transaction():
        place_order(asked.connection, CODEC, ORDER, event_id=uuid4())
    return asked


def messages(asked: Asked) -> list[tuple[str, Record]]:
    """Return topic and record of what left since the last call."""
    return [(topic, CODEC.decode(payload)) for topic, payload in asked.sent()]


def cancel(asked: Asked, refund_cents: int | None = None) -> None:
    """Ask for the order to be cancelled."""
    with asked.connection.transaction():
        request_cancellation(
            asked.connection,
            CODEC,
            "o-1",
            reason="changed my mind",
            requested_by="c-1",
            authorisation_id="a-1",
            event_id=uuid4(),
            refund_cents=refund_cents,
        )


def test_an_order_is_accepted_with_its_event(order: Asked) -> None:
    """Row and event are one."""
    assert messages(order) == [("order.events", ORDER)]
    assert postgres.standing(order.connection, "o-1") == ("placed", None)
    assert postgres.lines_of(order.connection, "o-1") == LINES


def test_an_order_is_accepted_once(order: Asked) -> None:
    """A second one of that id is refused by the database, event and all."""
    with pytest.raises(errors.UniqueViolation), order.connection.transaction():
        place_order(order.connection, CODEC, ORDER, event_id=uuid4())
    assert len(messages(order)) == 1


def test_a_total_that_is_not_that_of_the_lines_is_a_mistake(order: Asked) -> None:
    """Before anything is written."""
    wrong = OrderPlaced(**{name: getattr(ORDER, name) for name in ORDER.__slots__} | {"total_cents": 998})
    with pytest.raises(ProgrammerError, match="999 cents"):
        place_order(order.connection, CODEC, wrong, event_id=uuid4())


def test_a_confirmed_order_tells_the_saga_and_the_world(order: Asked) -> None:
    """Reply and event carry the same record."""
    order.sent()
    order.batch(CONFIRM)
    confirmed = OrderConfirmed(order_id="o-1", confirmed_at=NOW)
    assert messages(order) == [("order.events", confirmed), ("place_order.replies", confirmed)]
    assert postgres.standing(order.connection, "o-1") == ("confirmed", None)


def test_a_rejected_order_knows_why(order: Asked) -> None:
    """So do the saga and the world. It is the undo of the start, which was no command of ours."""
    order.sent()
    order.batch(REJECT, REJECT.again())
    rejected = OrderRejected(order_id="o-1", reason="vase is out of stock", rejected_at=NOW)
    assert messages(order) == [("order.events", rejected), *[("place_order.replies", rejected)] * 2]
    assert postgres.standing(order.connection, "o-1") == ("rejected", "vase is out of stock")
    assert postgres.executed_twice(order.connection) == 0


def test_a_rejected_order_cannot_be_confirmed(order: Asked) -> None:
    """A saga that asks for it has its own rules wrong."""
    order.ask(REJECT)
    with pytest.raises(RecordFailed) as failed:
        order.batch(CONFIRM)
    assert "cannot confirm" in str(failed.value.cause)


def test_a_confirmed_order_can_be_cancelled(order: Asked) -> None:
    """In part or whole: the order remembers what is given back."""
    order.ask(CONFIRM)
    cancel(order, refund_cents=500)
    ((topic, requested),) = messages(order)
    assert topic == "order.events"
    assert isinstance(requested, OrderCancellationRequested)
    assert (requested.lines, requested.total_cents, requested.refund_cents) == (LINES, 999, 500)
    assert order.ask(BEGIN, COMPLETE) == [
        CancellationBegun(order_id="o-1"),
        OrderCancelled(order_id="o-1", refunded_cents=500, cancelled_at=NOW),
    ]
    assert postgres.standing(order.connection, "o-1") == ("cancelled", "changed my mind")


def test_an_order_that_is_held_can_go_on_and_be_cancelled_later(order: Asked) -> None:
    """As if nobody had asked."""
    order.ask(CONFIRM)
    cancel(order)
    assert order.ask(BEGIN, RESUME) == [CancellationBegun(order_id="o-1"), OrderResumed(order_id="o-1")]
    assert postgres.standing(order.connection, "o-1") == ("confirmed", None)
    cancel(order)


def test_resuming_what_was_never_held_changes_nothing(order: Asked) -> None:
    """The undo may come first, and the hold never."""
    order.ask(CONFIRM)
    cancel(order)
    assert order.ask(RESUME) == [OrderResumed(order_id="o-1")]
    assert order.ask(BEGIN) == []
    assert postgres.standing(order.connection, "o-1") == ("confirmed", None)


def test_an_order_that_cannot_be_cancelled_is_refused_at_the_door(order: Asked) -> None:
    """Not confirmed yet, asked for already, or not there."""
    with pytest.raises(RefusedError, match="it is placed"):
        cancel(order)
    order.ask(CONFIRM)
    cancel(order)
    with pytest.raises(RefusedError, match="asked for already"):
        cancel(order)
    with pytest.raises(NotFoundError):
        request_cancellation(
            order.connection, CODEC, "o-2", reason="", requested_by="", authorisation_id="", event_id=uuid4()
        )


def test_a_cancellation_that_nobody_asked_for_at_the_door_is_refused(order: Asked) -> None:
    """In words: it is a business outcome."""
    order.ask(CONFIRM)
    assert order.ask(BEGIN) == [CancellationRefused(order_id="o-1", reason="the order is confirmed")]


def test_a_persons_decision_goes_to_the_saga(order: Asked) -> None:
    """Through the same outbox."""
    order.sent()
    with order.connection.transaction():
        approve_order(order.connection, CODEC, "o-1", approver="ann", event_id=uuid4())
        decline_order(order.connection, CODEC, "o-1", approver="ann", reason="too large", event_id=uuid4())
    assert messages(order) == [
        ("place_order.signals", OrderApproved(order_id="o-1", approver="ann")),
        ("place_order.signals", OrderDeclined(order_id="o-1", approver="ann", reason="too large")),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda asked: asked.rows("UPDATE customer_order SET status = 'lost' RETURNING 1"),
        lambda asked: asked.rows("UPDATE customer_order SET status = 'rejected' RETURNING 1"),
        lambda asked: asked.rows("UPDATE customer_order SET status = 'cancelled', reason = 'r' RETURNING 1"),
        lambda asked: asked.rows("UPDATE customer_order SET refund_cents = total_cents + 1 RETURNING 1"),
    ],
    ids=["no such status", "rejected without reason", "cancelled without refund", "give back more than it cost"],
)
def test_no_code_can_break_an_order(order: Asked, wrong: Callable[[Asked], object]) -> None:
    """The database itself refuses."""
    with pytest.raises(errors.CheckViolation):
        wrong(order)


def test_customers_are_registered_and_verified(new_service: NewService) -> None:
    """By what the database says of them."""
    asked = new_service(identity.service)
    with asked.connection.transaction():
        for name, verified in (("ann", True), ("bob", False)):
            customer = Customer(name, verified, 1_000)
            identity.register_customer(asked.connection, CODEC, customer, name.title(), event_id=uuid4())
    assert messages(asked)[0] == (
        "identity.events",
        CustomerRegistered(customer_id="ann", name="Ann", verified=True),
    )
    verify = [
        Asking(VerifyCustomer(order_id=key, customer_id=who, total_cents=cents, currency="EUR"), key=key)
        for key, who, cents in (("o-1", "ann", 1_000), ("o-2", "bob", 1), ("o-3", "eve", 1), ("o-4", "ann", 1_001))
    ]
    replies = asked.ask(*verify)
    assert [type(reply) for reply in replies] == [CustomerVerified, *[CustomerRefused] * 3]
    assert identity.postgres.executed_twice(asked.connection) == 0
    assert asked.rows("SELECT order_id FROM verification") == [("o-1",)]
