"""payment on a real database, against its card network: no cent is lost or moved twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from psycopg import errors

from pipelines.services.payment import postgres, service
from pipelines.services.payment.card_network import ChangeRequest, HoldRequest
from pipelines.services.payment.card_network.postgres import unbalanced
from schemas.records.payment import (
    AuthorisationVoided,
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    RefundPayment,
    RefundRefused,
    VoidAuthorisation,
)
from tests.commands import Asking
from tests.integration.service_fixture import Asked, NewService
from towpath.saga.state import Direction
from towpath.stream.engine.failures import RecordFailed

pytestmark = pytest.mark.stack


def authorise(order_id: str, cents: int = 900, card: str = "card-1") -> Asking:
    """Return the command that blocks an amount."""
    command = AuthorisePayment(
        order_id=order_id, customer_id="c-1", amount_cents=cents, currency="EUR", card_token=card
    )
    return Asking(command, key=order_id, step="payment")


def void(order_id: str) -> Asking:
    """Return its undo."""
    return Asking(VoidAuthorisation(order_id=order_id), key=order_id, step="payment", direction=Direction.UNDO)


def capture(order_id: str, cents: int = 900) -> Asking:
    """Return the command that takes what is blocked."""
    command = CapturePayment(
        order_id=order_id, authorisation_id=str(authorise(order_id).idempotency_key), amount_cents=cents
    )
    return Asking(command, key=order_id, step="capture")


def refund(order_id: str, cents: int, step: str = "refund") -> Asking:
    """Return the command that gives money back."""
    command = RefundPayment(
        order_id=order_id, authorisation_id=str(authorise(order_id).idempotency_key), amount_cents=cents, reason="r"
    )
    return Asking(command, key=order_id, step=step, saga="cancel_order")


HOLD: UUID = authorise("o-1").idempotency_key


@pytest.fixture
def payment(new_service: NewService) -> Iterator[Asked]:
    """Return the service; afterwards both books agree to the cent, and nothing was moved twice."""
    asked = new_service(service)
    yield asked
    assert unbalanced(asked.connection) == []
    assert postgres.executed_twice(asked.connection) == 0


def network(payment: Asked) -> list[tuple[int, bool, int, int]]:
    """Return amount, voided, captured and refunded of each hold that the network knows."""
    return payment.rows(
        "SELECT amount_cents, voided, captured_cents, refunded_cents FROM card_network.hold"
        " WHERE amount_cents > 0 ORDER BY 1"
    )


def presented(payment: Asked) -> int:
    """Return how often the network was asked the same thing again."""
    return int(payment.rows("SELECT coalesce(sum(presented - 1), 0) FROM card_network.request")[0][0])


def test_money_is_blocked_and_taken(payment: Asked) -> None:
    """The network's books and ours say the same."""
    authorised, captured = payment.ask(authorise("o-1"), capture("o-1"))
    assert isinstance(authorised, PaymentAuthorised)
    assert captured == PaymentCaptured(order_id="o-1", capture_id=str(capture("o-1").idempotency_key), amount_cents=900)
    assert network(payment) == [(900, False, 900, 0)]


def test_a_declined_card_blocks_nothing(payment: Asked) -> None:
    """A refusal leaves nothing anywhere."""
    assert payment.ask(authorise("o-1", card="declined-1")) == [
        PaymentDeclined(order_id="o-1", reason="the card was declined")
    ]
    assert network(payment) == []


def test_cards_of_one_batch_are_judged_one_by_one(payment: Asked) -> None:
    """Some go through, some do not."""
    replies = payment.ask(authorise("o-1"), authorise("o-2", card="expired-1"), authorise("o-3", cents=100))
    assert [type(reply) for reply in replies] == [PaymentAuthorised, PaymentDeclined, PaymentAuthorised]
    assert [hold[0] for hold in network(payment)] == [100, 900]


@contextmanager
def crash(payment: Asked) -> Iterator[None]:
    """Roll back what is done inside, as a killed worker does: the network has it, we do not."""
    yield
    payment.connection.rollback()


@pytest.mark.parametrize(
    ("before", "asking", "after"),
    [
        ([], authorise("o-1"), (900, False, 0, 0)),
        ([authorise("o-1")], void("o-1"), (900, True, 0, 0)),
        ([authorise("o-1")], capture("o-1"), (900, False, 900, 0)),
        ([authorise("o-1"), capture("o-1")], refund("o-1", 300), (900, False, 900, 300)),
    ],
    ids=["authorise", "void", "capture", "refund"],
)
def test_a_crash_after_the_network_was_asked_moves_nothing_twice(
    payment: Asked, before: list[Asking], asking: Asking, after: tuple[int, bool, int, int]
) -> None:
    """The network is asked again under the same key, and does it once."""
    payment.batch(*before)
    payment.sent()
    with crash(payment):
        payment.answer([asking])
    assert len(payment.ask(asking)) == 1
    assert network(payment) == [after]
    assert presented(payment) == 1


def test_a_void_frees_what_reached_the_network_and_never_our_books(payment: Asked) -> None:
    """The command itself is gone (a dead letter, say), its effect outside is not: the undo asks the network."""
    with crash(payment):
        payment.answer([authorise("o-1")])
    assert payment.ask(void("o-1")) == [AuthorisationVoided(order_id="o-1")]
    assert payment.rows("SELECT voided FROM card_network.hold") == [(True,)]
    # Our books do not have this hold at all, which is right: a void hold holds no money.
    payment.rows("DELETE FROM card_network.hold RETURNING 1")


def test_a_void_before_its_authorise_makes_the_late_one_harmless(payment: Asked) -> None:
    """Here it is passed over; and should it reach the network, it is declined there."""
    assert payment.ask(void("o-1")) == [AuthorisationVoided(order_id="o-1")]
    assert payment.ask(authorise("o-1")) == []
    key = authorise("o-1").idempotency_key
    answer = payment.outside.authorise([HoldRequest(key, "card-1", 900, "EUR")])
    assert answer == {key: "the authorisation was voided before it came"}
    assert network(payment) == []


def test_the_network_answers_a_decline_the_same_way_again(payment: Asked) -> None:
    """As it does with what it did."""
    request = HoldRequest(authorise("o-1").idempotency_key, "declined-1", 900, "EUR")
    assert payment.outside.authorise([request]) == payment.outside.authorise([request])


def test_a_network_that_lost_its_connection_connects_again(payment: Asked) -> None:
    """The worker need not be restarted."""
    payment.ask(authorise("o-1"))
    payment.outside.close()
    assert len(payment.ask(authorise("o-2"))) == 1


def test_money_is_given_back_in_parts_and_never_more_than_was_taken(payment: Asked) -> None:
    """What cannot be given back is refused in words."""
    payment.ask(authorise("o-1"), capture("o-1"))
    (first,) = payment.ask(refund("o-1", 600, "first"))
    assert isinstance(first, PaymentRefunded)
    assert payment.ask(refund("o-1", 301, "second")) == [
        RefundRefused(order_id="o-1", reason="300 cents of the payment are left to give back")
    ]
    payment.ask(refund("o-1", 300, "third"))
    assert network(payment) == [(900, False, 900, 900)]


def test_a_voided_amount_cannot_be_taken(payment: Asked) -> None:
    """Whoever asks for it has its own rules wrong: the command is dead, and a person looks."""
    payment.ask(authorise("o-1"), void("o-1"))
    with pytest.raises(RecordFailed) as failed:
        payment.batch(capture("o-1"))
    assert "voided already" in str(failed.value.cause)


def test_an_operators_next_round_is_a_new_hold(payment: Asked) -> None:
    """After a recorded decline, with another card."""
    payment.ask(authorise("o-1", card="declined-1"))
    (reply,) = payment.ask(replace(authorise("o-1"), round=2))
    assert isinstance(reply, PaymentAuthorised)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda asked: asked.rows("UPDATE authorisation SET captured_cents = amount_cents + 1 RETURNING 1"),
        lambda asked: asked.rows("UPDATE authorisation SET refunded_cents = captured_cents + 1 RETURNING 1"),
        lambda asked: asked.rows("UPDATE authorisation SET voided = true, captured_cents = 1 RETURNING 1"),
        lambda asked: asked.rows("UPDATE card_network.hold SET refunded_cents = 1 RETURNING 1"),
        lambda asked: asked.outside.capture([ChangeRequest(capture("o-1").idempotency_key, HOLD, 901)]),
    ],
    ids=["take too much", "give back too much", "take what is void", "give what was not taken", "ask for too much"],
)
def test_no_code_can_break_the_money(payment: Asked, wrong: Callable[[Asked], object]) -> None:
    """The databases themselves refuse."""
    payment.ask(authorise("o-1"))
    with pytest.raises(errors.CheckViolation):
        wrong(payment)


def test_books_that_do_not_agree_are_found(new_service: NewService) -> None:
    """The invariant that the demo checks can fail, in both directions."""
    payment = new_service(service)
    payment.ask(authorise("o-1"), authorise("o-2"))
    payment.rows("UPDATE card_network.hold SET captured_cents = 1 RETURNING 1")
    assert unbalanced(payment.connection) == ["o-1", "o-2"]
    payment.rows("DELETE FROM authorisation RETURNING 1")
    assert len(unbalanced(payment.connection)) == 2
