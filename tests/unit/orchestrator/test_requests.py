"""What a person asks: about what was seen, tried before it is sent, taken once, and answered by the history."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sagas import place_order
from schemas.records.catalog import StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderConfirmed
from schemas.records.payment import PaymentAuthorised, PaymentCaptured
from tests.unit.orchestrator.desktop import CODEC, Desktop, commands, desktop, history, order_placed
from tests.unit.orchestrator.test_instance_status import changelog
from tests.unit.orchestrator.village import Village
from towpath.cli.saga_room import Room
from towpath.clock import ManualClock, SystemClock
from towpath.errors import PartlyDoneError, RefusedError, WorldError
from towpath.orchestrator.asking import Answers, ask, send
from towpath.orchestrator.core import Observe
from towpath.orchestrator.instance_status import instances_in
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.requests import Request, preview, request_of, to_record
from towpath.orchestrator.selection import Selection
from towpath.saga.inputs import Action
from towpath.saga.state import SagaState
from towpath.settings import load_settings
from towpath.stream.broker.port import BrokerAway

DAY_SECONDS = 86_400


def state_of(context: Desktop) -> SagaState:
    """Return the one instance, with its records open."""
    (instance,) = instances_in(changelog(context), CODEC, Messages(CODEC))
    return instance.state


def now(context: Desktop) -> int:
    """Return the clock of a worker, in milliseconds."""
    return int(context.clock.now().timestamp() * 1000)


def stuck_capture(observe: Observe | None = None) -> Desktop:
    """Return an order whose payment could not be captured for two days: it is confirmed, so it is stuck there."""
    context = desktop(place_order.saga, observe=observe)
    first = {sent.headers["step"]: sent for sent in commands(context.give("order.events", order_placed(), id="e-1"))}
    context.reply(first["verify_customer"], CustomerVerified(order_id="order-1", customer_id="customer-1"))
    (paying,) = commands(context.reply(first["reserve_stock"], StockReserved(order_id="order-1", reservation_id="r-1")))
    authorised = PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=20_00)
    (confirming,) = commands(context.reply(paying, authorised))
    context.reply(confirming, OrderConfirmed(order_id="order-1", confirmed_at=ManualClock().now()))
    for _ in range(200):
        if state_of(context).status.value == "stuck":
            return context
        context.clock.advance(DAY_SECONDS / 24)
        context.fire_timers()
    raise AssertionError("it never got stuck")


def give(context: Desktop, request: Request) -> list[Any]:
    """Let a request arrive as its record says; return what that sent."""
    topic, key, value, headers = to_record(CODEC, request)
    texts = {name: (text or b"").decode() for name, text in headers}
    return context.give(topic, value, key=key.decode(), **texts)


def asking(state: SagaState, action: Action, **more: Any) -> Request:
    """Return a request of one person."""
    return request_of(state, action, actor="grace", reason="the card network is back", **more)


def captured() -> PaymentCaptured:
    """Return the reply that the stuck step waits for."""
    return PaymentCaptured(order_id="order-1", capture_id="c-1", amount_cents=20_00)


@pytest.mark.parametrize(
    ("action", "reply", "sends", "status"),
    [
        (Action.RETRY, None, ("CapturePayment to payment: do capture_payment",), "running"),
        (Action.RESUME, None, ("CapturePayment to payment: do capture_payment",), "running"),
        (Action.SKIP, captured(), (), "completed"),
    ],
    ids=["retry", "resume", "skip"],
)
def test_what_a_preview_says_is_what_happens(action: Action, reply: Any, sends: tuple[str, ...], status: str) -> None:
    """The preview is the machine's own decision on the present state; the record that follows is decided alike."""
    context = stuck_capture()
    state = state_of(context)
    request = asking(state, action, reply=reply)
    seen = preview(place_order.saga.definition, state, request, now(context))
    assert (seen.refusal, seen.status_before, seen.status_after, seen.sends) == (None, "stuck", status, sends)
    assert seen.changes[0][:2] == ("capture_payment", "stuck")
    sent = give(context, request)
    assert state_of(context).status.value == status
    assert [message.record.__class__.__name__ for message in commands(sent)] == [word.split()[0] for word in sends]
    (entry,) = history(sent)
    assert (entry.input_id, entry.actor, entry.asked_because) == (request.id, "grace", "the card network is back")


@pytest.mark.parametrize("action", [Action.CANCEL, Action.COMPENSATE])
def test_a_preview_gives_the_reason_for_which_the_machine_would_refuse(action: Action) -> None:
    """A confirmed order is not undone: the dry run says so in the words that the history would have."""
    context = stuck_capture()
    state = state_of(context)
    request = asking(state, action)
    seen = preview(place_order.saga.definition, state, request, now(context))
    assert seen.refusal == "the saga is past its point of no return: what was done stays done"
    (entry,) = history(give(context, request))
    assert (entry.happened, entry.reason) == ("refused", seen.refusal)


def test_asking_again_about_the_same_situation_is_the_same_request() -> None:
    """So a run that was killed in the middle is run again; once the step stands otherwise it is another request."""
    context = stuck_capture()
    request = asking(state_of(context), Action.RETRY)
    assert asking(state_of(context), Action.RETRY).id == request.id
    assert request_of(state_of(context), Action.RETRY, actor="ada", reason="again").id == request.id
    assert asking(state_of(context), Action.SKIP, reply=captured()).id != request.id
    assert len(commands(give(context, request))) == 1
    assert commands(give(context, request)) == []
    assert asking(state_of(context), Action.CANCEL).id != asking(state_of(stuck_capture()), Action.CANCEL).id


def test_the_step_that_is_meant_is_found_or_asked_for() -> None:
    """One step that needs a person is the one; none is an error that says how the saga stands."""
    context = stuck_capture()
    assert asking(state_of(context), Action.RETRY).step == "capture_payment"
    running = desktop(place_order.saga)
    running.give("order.events", order_placed(), id="e-1")
    with pytest.raises(RefusedError, match=r"no step of .* can be asked to skip: the saga is running"):
        asking(state_of(running), Action.SKIP)


def test_a_selection_takes_what_fits_all_that_it_says() -> None:
    """Status, step, version, age, key and names each leave out what does not fit."""
    context = stuck_capture()
    (instance,) = instances_in(changelog(context), CODEC, Messages(CODEC))
    changed = instance.changed_milliseconds
    fitting = Selection(
        status="stuck",
        step="capture_payment",
        version=1,
        older_than_seconds=10,
        key_pattern="order-*",
        names=frozenset({"order-1"}),
        stuck=True,
        unfinished=True,
    )
    assert fitting.takes(instance, changed + 10_000)
    assert not fitting.takes(instance, changed + 9_000)
    for other in (
        Selection(status="running"),
        Selection(step="reserve_stock"),
        Selection(cause="declined"),
        Selection(version=2),
        Selection(key_pattern="invoice-*"),
        Selection(names=frozenset({"order-2"})),
    ):
        assert other.of([instance], changed) == []
    assert Selection().everything
    assert Selection().of([instance, instance], changed, limit=1) == [instance]


def test_requests_are_sent_and_answered_on_a_broker(tmp_path: Path) -> None:
    """The outcome is read from the history: applied with the saga's status, and refused with the machine's reason."""
    village = Village(tmp_path, {"ReserveStock": StockReserved(order_id="order-1", reservation_id="r-1")})
    village.place()
    village.run(lambda: bool(village.sent("payment.commands")))
    (found,) = [
        instance
        for instance in instances_in(village.broker.records("buy.state"), CODEC, Messages(CODEC))
        if instance.state.saga == "buy"
    ]
    village.serve = lambda: None  # type: ignore[method-assign]  # nobody answers the payment
    clock = SystemClock()
    cancelled, nothing = asking(found.state, Action.CANCEL), asking(found.state, Action.RESUME)
    answers = Answers(village.broker, CODEC, "buy", clock)
    told: list[int] = []
    send(
        village.broker,
        [to_record(CODEC, request) for request in (nothing, cancelled, cancelled)],
        transactional_id="grace",
        rate_per_second=2,
        sleep=lambda _: None,
        progress=told.append,
    )
    assert told == [2, 3]
    village.run(lambda: len(village.sent("buy.operator")) == 3 and "cancelled" in str(village.history("buy")[-1].cause))
    by_id = {answer.request_id: answer for answer in answers.wait([cancelled.id, nothing.id], seconds=10)}
    answers.close()
    assert by_id[nothing.id].refusal == "no step of this saga is stuck"
    assert (by_id[cancelled.id].refusal, by_id[cancelled.id].status) == (None, "compensating")
    assert ask(village.broker, CODEC, clock, [], transactional_id="grace", wait_seconds=1, sleep=lambda _: None) == {}


def test_a_run_that_gives_way_to_another_says_how_far_it_came(tmp_path: Path) -> None:
    """The same was begun by someone else in the middle of it: what was sent is sent, the other run does the rest."""
    village = Village(tmp_path, {})
    messages = [("buy.operator", b"order-1", b"value", ())] * 3

    def other_run(sent: int) -> None:
        village.broker.producer("grace").start()

    def run(progress: Callable[[int], None]) -> None:
        send(
            village.broker,
            messages,
            transactional_id="grace",
            rate_per_second=1,
            sleep=lambda _: None,
            progress=progress,
        )

    with pytest.raises(PartlyDoneError, match="1 of 3 were sent") as gave_way:
        run(other_run)
    assert gave_way.value.kept
    assert len(list(village.broker.records("buy.operator"))) == 1

    def away(sent: int) -> None:
        raise BrokerAway("no broker answers")

    with pytest.raises(WorldError, match="1 of 3 were sent for certain, the rest perhaps not: no broker") as stopped:
        run(away)
    assert "run this again" in str(stopped.value.next_step)


def test_runs_that_do_something_else_do_not_end_each_other() -> None:
    """A signal to one order, while many are resumed: each has a producer's id of its own, and the same run the same."""
    room = Room.__new__(Room)
    room.settings, room.saga = load_settings(), "place_order"
    runs = [("resume", None), ("cancel", None), ("resume", "order-1"), ("signal", "s-1"), ("signal", "s-2")]
    ids = [room.transactional_id("grace", action, which) for action, which in runs]
    assert len(set(ids)) == len(runs)
    assert ids[0] == room.transactional_id("grace", "resume", None)


def test_a_wait_for_answers_ends(tmp_path: Path) -> None:
    """Nobody runs the saga: the requests are sent, and nothing is known of them."""
    village = Village(tmp_path, {})
    state = state_of(stuck_capture())
    request = asking(state, Action.RETRY)
    lonely = Request(request.id, "buy", request.saga_id, request.key, Action.RETRY, "grace", "why", "goods")
    found = ask(
        village.broker,
        CODEC,
        SystemClock(),
        [lonely],
        transactional_id="grace",
        wait_seconds=0.3,
        sleep=lambda _: None,
    )
    assert found == {}
    assert len(village.sent("buy.operator")) == 1
