"""Each situation that an order can hang in gets its sentence, and the command that acts on it."""

from dataclasses import replace

import pytest

from tests.unit.orchestrator.test_requests import state_of, stuck_capture
from towpath.orchestrator.why import Asked, Capture, Facts, Message, Reader, explain
from towpath.saga.state import Cause, CauseKind, SagaState, Status, StepState, StepStatus

NOW = 1_767_225_600_000
RUNNING = Capture("order", "there", "RUNNING", 4_096)
START = Message("OrderPlaced", "order.events", 2, None, "order", written=True)
COMMAND = Message("AuthorisePayment", "payment.commands", 1, 40)
READER = Reader("shop-service-payment", "service:payment", 1, 41, 41, "towpath restart service:payment")
STILL = replace(READER, way_back="towpath logs service:payment", still="waits: the registry is away")
RUN = "towpath run saga:place_order"
REPLY = Message("PaymentAuthorised", "place_order.replies", 1, None, "payment", written=True)


def state(*steps: StepState, status: Status = Status.RUNNING, cause: Cause | None = None) -> SagaState:
    """Return an order's state with these steps."""
    return replace(state_of(stuck_capture()), status=status, steps=steps, cause=cause, deadline_milliseconds=0)


def sent(status: StepStatus = StepStatus.SENT) -> SagaState:
    """Return an order that waits for its payment."""
    return state(StepState("authorise_payment", status, 1, 1, NOW + 30_000))


def facts(**known: object) -> Facts:
    """Return facts of one order."""
    return Facts("place_order", "order-1", NOW, **known)  # type: ignore[arg-type]


def asked(command: Message = COMMAND, **more: object) -> tuple[Asked, ...]:
    """Return the command that the order waits for."""
    one = Asked("authorise_payment", "", False, 1, NOW + 30_000, "payment", command)
    return (replace(one, **more),)  # type: ignore[arg-type]


def captured(**change: object) -> dict[str, Capture]:
    """Return how the order service's capture stands."""
    return {"order": replace(RUNNING, **change)}  # type: ignore[arg-type]


LETTER = (
    "towpath dead show payment.commands 1:3; after the fix: towpath dead redrive payment.commands 1:3; or give it up: "
    "towpath dead drop payment.commands 1:3 --reason '...'"
)
UNSEEN = "lies in the outbox of order, committed, and is not in order.events yet"
SITUATIONS = {
    "never asked for": (facts(), "no start event for it was found", "towpath saga list place_order"),
    "start refused": (
        facts(refused="the key has an instance already"),
        "its start was refused: the key has an instance already",
        "towpath saga history place_order order-1",
    ),
    "start not committed": (
        facts(start=replace(START, written=False)),
        "the outbox of order has no OrderPlaced: its transaction has not committed",
        None,
    ),
    "slot lost": (
        facts(start=START, capture=captured(slot="lost", next_step="towpath capture recover order")),
        "the replication slot of order is lost",
        "towpath capture recover order",
    ),
    "slot missing": (
        facts(start=START, capture=captured(slot="missing", next_step="towpath capture recover order")),
        "the replication slot of order does not exist",
        "towpath capture recover order",
    ),
    "connector failed": (
        facts(
            start=START,
            capture=captured(
                connector="FAILED", trace="no such topic", next_step="towpath capture recover order --dry-run"
            ),
        ),
        "the connector of order has failed: no such topic",
        "towpath capture recover order --dry-run",
    ),
    "connector paused": (
        facts(start=START, capture=captured(connector="PAUSED", next_step="towpath capture recover order")),
        "the connector of order is paused",
        "towpath capture recover order",
    ),
    "no connector": (
        facts(start=START, capture=captured(connector="missing", next_step="towpath provision")),
        "there is no connector for order",
        "towpath provision",
    ),
    "Connect away": (
        facts(start=START, capture=captured(connector=None, next_step="towpath status")),
        "Kafka Connect does not answer",
        "towpath status",
    ),
    "capture behind": (
        facts(start=START, capture=captured()),
        "capture is running, 4096 bytes of the write-ahead log behind",
        "towpath capture status",
    ),
    "start dead": (
        facts(start=replace(START, offset=7, letter="2:0", cause="no such schema id")),
        "OrderPlaced is a dead letter of saga place_order, 2:0: no such schema id",
        "towpath dead show order.events 2:0; after the fix: towpath dead redrive order.events 2:0",
    ),
    "version missing": (
        facts(state=sent(), version_known=False),
        "no worker's code has version 1 of place_order: its partition waits for one that does",
        "deploy version 1 beside the newer one, and see who waits: towpath saga list place_order",
    ),
    "participant not running": (
        facts(state=sent(), asked=asked(replace(COMMAND, reader=replace(READER, members=0, position=40)))),
        "AuthorisePayment lies at payment.commands[1]@40, and service:payment has no worker in its group",
        "towpath restart service:payment; towpath status shows how its process stands",
    ),
    "participant behind": (
        facts(state=sent(), asked=asked(replace(COMMAND, reader=replace(READER, position=12)))),
        "service:payment has read up to 12 there, 29 records behind",
        "towpath status, and towpath logs service:payment: it holds the partition, waits for a dependency, or is busy",
    ),
    "command dead": (
        facts(state=sent(), asked=asked(replace(COMMAND, letter="1:3", cause="ZeroDivisionError"))),
        "AuthorisePayment is a dead letter of payment, 1:3: ZeroDivisionError",
        LETTER,
    ),
    "command parked": (
        facts(state=sent(), asked=asked(replace(COMMAND, parked_behind="1:3"))),
        "AuthorisePayment is parked: its key waits behind the dead letter 1:3",
        LETTER,
    ),
    "clock of a dead command": (
        facts(state=sent(), asked=asked(replace(COMMAND, letter="1:3", cause="ZeroDivisionError"))),
        "(attempt 1; its clock stands still while AuthorisePayment is in quarantine)",
        None,
    ),
    "clock of a parked command": (
        facts(state=sent(), asked=asked(replace(COMMAND, parked_behind="1:3"))),
        "(attempt 1; its clock stands still while AuthorisePayment is in quarantine)",
        None,
    ),
    "clock of a dead command that holds none": (
        facts(state=sent(), asked=asked(replace(COMMAND, letter="1:3")), dead_hold_attempts=False),
        "(attempt 1; the attempt ends at 2026-01-01 00:00:30Z)",
        None,
    ),
    "handler at work": (
        facts(state=sent(), asked=asked(replace(COMMAND, reader=READER), recorded=False)),
        "payment has read it and recorded no outcome",
        "towpath logs service:payment",
    ),
    "reply not captured": (
        facts(
            state=sent(),
            asked=asked(replace(COMMAND, reader=READER), recorded=True, reply=REPLY),
            capture={"payment": replace(RUNNING, service="payment", connector="FAILED", next_step="towpath do this")},
        ),
        "the connector of payment has failed",
        "towpath do this",
    ),
    "reply unread": (
        facts(
            state=sent(),
            asked=asked(
                replace(COMMAND, reader=READER),
                recorded=True,
                reply=replace(REPLY, offset=9, reader=Reader("shop-saga", "saga:place_order", 0, 5, 10, RUN)),
            ),
        ),
        "PaymentAuthorised lies at place_order.replies[1]@9, and saga:place_order has no worker in its group",
        "towpath run saga:place_order; towpath status shows how its process stands",
    ),
    "waits for a person": (
        facts(
            state=state(StepState("approval", StepStatus.WAITING, due_milliseconds=NOW)),
            waits={"approval": ("OrderApproved", "OrderDeclined")},
        ),
        "approval waits for OrderApproved or OrderDeclined, until 2026-01-01 00:00:00Z",
        "towpath saga signal place_order order-1 OrderApproved --value '{...}'",
    ),
    "delay": (
        facts(state=state(StepState("cooling", StepStatus.WAITING, due_milliseconds=NOW))),
        "cooling is a delay, until 2026-01-01 00:00:00Z",
        None,
    ),
    "next attempt": (
        facts(state=sent(StepStatus.BACKOFF)),
        "authorise_payment was not answered in time; the next attempt goes out at 2026-01-01 00:00:30Z",
        "sends it now",
    ),
    "next attempt, whose service stands still": (
        facts(state=sent(StepStatus.BACKOFF), rests=asked(replace(COMMAND, reader=STILL))),
        "service:payment stands still, and will not answer the next attempt either: waits: the registry is away",
        "towpath logs service:payment",
    ),
    "next attempt, whose service does not run": (
        facts(state=sent(StepStatus.BACKOFF), rests=asked(replace(COMMAND, reader=replace(READER, members=0)))),
        "will not answer the next attempt either: it has no worker in its group",
        "towpath restart service:payment",
    ),
    "next attempt, the last one unread": (
        facts(state=sent(StepStatus.BACKOFF), rests=asked(replace(COMMAND, reader=replace(STILL, position=12)))),
        "lies at payment.commands[1]@40, and service:payment stands still: waits: the registry is away",
        "towpath logs service:payment",
    ),
    "next attempt, the last one parked behind what has expired": (
        facts(
            state=sent(StepStatus.BACKOFF),
            rests=asked(replace(COMMAND, parked_behind="payment.commands[1]@3", release="towpath dead release this")),
        ),
        "its key waits behind payment.commands[1]@3, whose dead letter retention has taken",
        "towpath dead release this",
    ),
    "participant stands still": (
        facts(state=sent(), asked=asked(replace(COMMAND, reader=replace(STILL, position=40)))),
        "service:payment stands still: waits: the registry is away",
        "towpath logs service:payment",
    ),
    "parked behind a letter of another topic": (
        facts(state=sent(), asked=asked(replace(COMMAND, parked_behind="1:3", parked_topic="other"))),
        "AuthorisePayment is parked: its key waits behind the dead letter 1:3",
        "towpath dead show other 1:3;",
    ),
    "stuck": (
        facts(state=state(StepState("capture_payment", StepStatus.STUCK), status=Status.STUCK)),
        "capture_payment is stuck: its attempts are used up past the pivot",
        "--step capture_payment --reason",
    ),
    "wait halted": (
        facts(
            state=state(StepState("approval", StepStatus.STUCK), status=Status.STUCK),
            waits={"approval": ("OrderApproved", "OrderDeclined")},
        ),
        "approval is stuck: no OrderApproved or OrderDeclined came in time, and a person must decide",
        "towpath saga signal place_order order-1 OrderApproved --value '{...}' (or cancel;",
    ),
    "list too long": (
        facts(
            state=state(StepState("parcels", StepStatus.STUCK), status=Status.STUCK),
            stuck={"parcels": "its list has more than 9 items"},
        ),
        "parcels is stuck: its list has more than 9 items, and a person must decide",
        "--step parcels --reason",
    ),
    "undo stuck": (
        facts(state=state(StepState("reserve_stock", StepStatus.UNDO_STUCK), status=Status.STUCK)),
        "the undo of reserve_stock is stuck",
        "--step reserve_stock --reason",
    ),
    "undo refused": (
        facts(state=state(StepState("reserve_stock", StepStatus.UNDO_FAILED), status=Status.STUCK)),
        "the undo of reserve_stock was refused by its participant",
        "--step reserve_stock --reason",
    ),
    "deadlines held": (
        facts(
            state=state(StepState("authorise_payment", StepStatus.SENT, 1, 1, NOW - 1)),
            capture_behind=("payment",),
        ),
        "deadlines are held: the capture of payment is behind",
        "towpath capture status",
    ),
    "sub-saga": (
        facts(state=sent(), asked=asked(child="child-id", participant="hold_goods")),
        "hold_goods is a saga of its own",
        "towpath saga why hold_goods child-id",
    ),
    "ended": (
        facts(state=state(status=Status.COMPENSATED, cause=Cause(CauseKind.DEADLINE))),
        "it has ended: nothing moves it any more",
        "towpath saga history place_order",
    ),
    "not looked up": (facts(unknown=("the outbox of order",)), "the outbox of order could not be looked up", None),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_gets_its_sentence(name: str) -> None:
    """The sentence is there, and with it the command."""
    known, sentence, command = SITUATIONS[name]
    found = [line for line in explain(known) if sentence in line.sentence]
    assert found, [line.sentence for line in explain(known)]
    if command is None:
        assert found[0].command is None
    else:
        assert command in (found[0].command or "")


def test_a_next_attempt_whose_service_works_is_told_alone() -> None:
    """Nothing holds it up."""
    known = facts(state=sent(StepStatus.BACKOFF), rests=asked(replace(COMMAND, reader=READER), recorded=None))
    assert len(explain(known)) == 2


def test_what_is_in_order_is_not_blamed() -> None:
    """A command that was read, and a reply that was read, hold nothing up: no sentence points at them."""
    known = facts(state=sent(), asked=asked(replace(COMMAND, reader=READER), recorded=None))
    assert len(explain(known)) == 2
    assert UNSEEN not in str(explain(facts(start=replace(START, offset=7, reader=replace(READER, position=8)))))
