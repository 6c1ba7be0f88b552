"""A record in, commands, timers, history and state out, all in one unit of work."""

import uuid
from datetime import UTC, datetime

import pytest

from sagas import place_order
from schemas.records.catalog import OutOfStock, StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderApproved, OrderConfirmed, OrderDeclined, OrderRejected
from schemas.records.payment import PaymentAuthorised, PaymentCaptured
from tests.unit.orchestrator.desktop import (
    CODEC,
    HOUR_MILLISECONDS,
    Desktop,
    Sent,
    commands,
    desktop,
    history,
    order_placed,
)
from towpath.errors import PeerError
from towpath.orchestrator import records as wire
from towpath.orchestrator.envelope import MalformedHeaders
from towpath.orchestrator.instances import BeyondDedupHorizon, MissingVersion
from towpath.orchestrator.mapping import Messages, state_from_wire, state_to_wire
from towpath.saga.keys import saga_id_of


def placed(context: Desktop, **fields: object) -> dict[str, Sent]:
    """Let an order be placed; return the commands that follow, by step."""
    sent = context.give("order.events", order_placed(**fields), id="event-1")  # type: ignore[arg-type]
    return {command.headers["step"]: command for command in commands(sent)}


def authorised(context: Desktop, **fields: object) -> list[Sent]:
    """Bring an order to where its payment is authorised; return what that sends."""
    first = placed(context, **fields)
    context.reply(first["verify_customer"], CustomerVerified(order_id="order-1", customer_id="customer-1"))
    sent = context.reply(first["reserve_stock"], StockReserved(order_id="order-1", reservation_id="r-1"))
    (command,) = commands(sent)
    reply = PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=20_00)
    return context.reply(command, reply)


def test_a_start_event_sends_the_first_commands_and_keeps_the_instance() -> None:
    """Both branches begin at once, under the key of the order, with ids that anybody can derive."""
    context = desktop(place_order.saga)
    first = placed(context)
    saga_id = saga_id_of("place_order", "event-1")
    assert {step: command.topic for step, command in first.items()} == {
        "verify_customer": "identity.commands",
        "reserve_stock": "catalog.commands",
    }
    headers = first["reserve_stock"].headers
    assert first["reserve_stock"].key == "order-1"
    assert headers["saga_id"] == saga_id
    assert headers["reply_to"] == "place_order.replies"
    assert (headers["direction"], headers["attempt"], headers["round"]) == ("do", "1", "1")
    assert headers["id"] == str(uuid.uuid5(uuid.UUID(headers["idempotency_key"]), "1"))
    assert headers["deadline"].startswith("2026-01-01T00:00:10")
    assert f"i{saga_id}".encode() in context.stored()


def test_a_retry_keeps_the_key_and_raises_the_attempt() -> None:
    """It asks for the recorded reply, never for a second effect."""
    context = desktop(place_order.saga)
    first = placed(context)["reserve_stock"]
    again: list[Sent] = []
    for _ in range(3):
        context.clock.advance(11)
        again += [command for command in commands(context.fire_timers()) if command.headers["step"] == "reserve_stock"]
    assert again[0].headers["idempotency_key"] == first.headers["idempotency_key"]
    assert again[0].headers["attempt"] == "2"
    assert again[0].headers["id"] != first.headers["id"]
    assert again[0].record == first.record


def test_an_order_runs_to_its_end_and_is_forgotten_after_its_retention() -> None:
    """Only the forget timer is left at the end, and after it nothing but how far back memory reaches."""
    context = desktop(place_order.saga)
    (confirm,) = commands(authorised(context))
    (capture,) = commands(context.reply(confirm, OrderConfirmed(order_id="order-1", confirmed_at=context.clock.now())))
    sent = context.reply(capture, PaymentCaptured(order_id="order-1", capture_id="c-1", amount_cents=20_00))
    assert [entry.status for entry in history(sent)] == ["completed"]
    assert context.timers_set() == [f"forget:{saga_id_of('place_order', 'event-1')}"]
    context.clock.advance(HOUR_MILLISECONDS / 1000)
    context.fire_timers()
    assert [key[:1] for key in context.stored()] == [b"f"]
    context.clock = type(context.clock)()
    with pytest.raises(BeyondDedupHorizon):
        placed(context)


def test_a_refused_order_is_compensated_and_its_history_says_why() -> None:
    """What was sent is undone in reverse, the start event last; the undo names what it undoes."""
    context = desktop(place_order.saga)
    first = placed(context)
    context.reply(first["verify_customer"], CustomerVerified(order_id="order-1", customer_id="customer-1"))
    refusal = OutOfStock(order_id="order-1", sku="chair", requested=1, available=0)
    sent = context.reply(first["reserve_stock"], refusal)
    (reject,) = commands(sent)
    assert type(reject.record).__name__ == "RejectOrder"
    # An inbox may have forgotten what was done before then, and an undo of what came later is none of that.
    assert (reject.headers["started"], "started" in first["reserve_stock"].headers) == (
        "2026-01-01T00:00:00.000+00:00",
        False,
    )
    assert history(sent)[0].cause == "reserve_stock: OutOfStock"
    rejected = OrderRejected(order_id="order-1", reason="chair is out of stock", rejected_at=context.clock.now())
    assert history(context.reply(reject, rejected))[0].status == "compensated"


def test_a_start_from_the_far_future_is_of_an_hour_from_now() -> None:
    """Its deadlines come, and once it is forgotten starts are not refused until that future has come."""
    context = desktop(place_order.saga)
    sent = context.give_at(datetime(2090, 1, 1, tzinfo=UTC), "order.events", order_placed(), id="event-1")
    command = next(each for each in commands(sent) if each.headers["step"] == "reserve_stock")
    assert command.headers["deadline"].startswith("2026-01-01T01:00:10")


def test_a_signal_that_is_read_before_its_saga_starts_is_not_lost() -> None:
    """Start event and decision lie in different topics: either may be read first."""
    context = desktop(place_order.saga)
    approval = OrderApproved(order_id="order-1", approver="approver-1")
    assert context.give("place_order.signals", approval, id="signal-1") == []
    context.give("place_order.signals", approval, id="signal-1")
    sent = authorised(context, total_cents=2_000_00)
    assert [type(command.record).__name__ for command in commands(sent)] == ["ConfirmOrder"]
    assert not any(key.startswith(b"e") for key in context.stored())


def test_a_signal_whose_saga_never_starts_is_given_up_in_the_history() -> None:
    """It is kept for a day, then recorded as refused."""
    context = desktop(place_order.saga)
    context.give("place_order.signals", OrderApproved(order_id="order-1", approver="approver-1"), id="signal-1")
    context.clock.advance(24 * 3600)
    (entry,) = history(context.fire_timers())
    assert (entry.happened, entry.reason) == ("refused", "its saga never started")
    assert context.stored() == {}


def test_the_history_names_the_waits_that_are_open() -> None:
    """So that a person can be asked."""
    entry = history(authorised(desktop(place_order.saga), total_cents=2_000_00))[0]
    assert entry.waiting_for == ("approval",)


def test_the_same_start_event_twice_is_one_saga() -> None:
    """Debezium may repeat it; its id says so."""
    context = desktop(place_order.saga)
    placed(context)
    sent = context.give("order.events", order_placed(), id="event-1")
    assert sent == []


def test_a_second_start_for_a_key_is_refused_where_the_definition_says_so() -> None:
    """Two events about one order do not make two payments."""
    context = desktop(place_order.saga)
    placed(context)
    sent = context.give("order.events", order_placed(), id="event-2")
    assert commands(sent) == []
    assert "has an instance already" in history(sent)[0].reason


def test_other_events_of_the_start_topic_are_passed_over() -> None:
    """They cost a look at one header, no decoding."""
    context = desktop(place_order.saga)
    assert context.give("order.events", b"not even avro", type="craftygoods.order.OrderConfirmed") == []


def test_state_survives_a_worker_and_an_aborted_unit_leaves_nothing() -> None:
    """What is remembered is believed only while the stored bytes agree."""
    context = desktop(place_order.saga)
    first = placed(context)["verify_customer"]
    verified = CustomerVerified(order_id="order-1", customer_id="customer-1")
    headers = {name: first.headers[name] for name in ("saga_id", "step", "direction", "attempt", "round")}
    before = context.stored()
    context.give_and_abort("place_order.replies", verified, id="r", **headers)
    assert context.stored() == before
    assert history(context.reply(first, verified))[0].happened == "replied"
    context.orchestrator = desktop(place_order.saga).orchestrator
    assert context.reply(first, verified) == []


def test_an_instance_of_a_version_that_the_worker_lacks_makes_it_wait() -> None:
    """Guessing would strand it: the partition waits for the version."""
    context = desktop(place_order.saga)
    first = placed(context)["verify_customer"]
    state = context.stored()[f"i{first.headers['saga_id']}".encode()]
    assert state
    context.orchestrator._definitions = {2: place_order.saga.definition}
    with pytest.raises(MissingVersion, match="version 1"):
        context.reply(first, CustomerVerified(order_id="order-1", customer_id="customer-1"))


def test_a_request_to_a_saga_that_never_started_is_recorded_as_refused() -> None:
    """Nobody's request disappears."""
    asked = wire.OperatorAsked(
        saga_id="none", action=wire.OperatorAction.CANCEL, actor="operator-1", reason="wrong order"
    )
    (entry,) = history(desktop(place_order.saga).give("place_order.operator", asked))
    assert (entry.happened, entry.reason) == ("refused", "no such saga has started")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "no header 'step'"),
        ({"step": "s", "direction": "sideways"}, "neither do nor undo"),
        ({"step": "s", "direction": "do", "attempt": "one"}, "'attempt' is not a number"),
        ({"step": "s", "direction": "do", "attempt": "1", "round": "1"}, "no header 'saga_id'"),
    ],
)
def test_a_reply_without_its_headers_is_its_senders_mistake(headers: dict[str, str], words: str) -> None:
    """It goes to the dead-letter topic with these words."""
    with pytest.raises(MalformedHeaders, match=words):
        desktop(place_order.saga).give(
            "place_order.replies", CustomerVerified(order_id="order-1", customer_id="c"), **headers
        )


def test_a_record_that_is_not_avro_is_its_senders_mistake() -> None:
    """Whatever is wrong with it, it is a PeerError."""
    with pytest.raises(PeerError):
        desktop(place_order.saga).give("order.events", b"not avro")
    with pytest.raises(PeerError, match="no key"):
        desktop(place_order.saga).give("order.events", order_placed(), key=None)


def test_state_round_trips_byte_for_byte() -> None:
    """Bytes -> state -> bytes is the identity, also in a process that has seen neither."""
    context = desktop(place_order.saga)
    authorised(context, total_cents=2_000_00)
    declined = OrderDeclined(order_id="order-1", approver="approver-1", reason="too much")
    context.give("place_order.signals", declined, id="signal-1")
    for key, content in context.stored().items():
        if key.startswith(b"i"):
            stranger = Messages(CODEC)
            decoded = CODEC.decode(content)
            assert isinstance(decoded, wire.SagaState)
            state = state_from_wire(decoded, stranger)
            assert state.cause is not None
            assert CODEC.encode(state_to_wire(state, Messages(CODEC), decoded.definition)) == content
