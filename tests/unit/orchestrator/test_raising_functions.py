"""A function of the definition raises: what asked for it is refused in the history, and nothing else waits for that."""

import pytest

from sagas import identity, orders
from schemas.records.identity import CustomerVerified
from schemas.records.order import ConfirmOrder, OrderApproved, OrderConfirmed, OrderPlaced
from tests.unit.orchestrator.desktop import Desktop, commands, desktop, history, order_placed
from tests.unit.orchestrator.test_requests import give, now, state_of
from tests.unit.orchestrator.test_upgrading import ask, verify
from towpath.orchestrator.requests import preview, request_of, upgrade_of
from towpath.saga import HALT, Saga, hours, seconds
from towpath.saga.inputs import Action

RAISES = "saga buy, step confirm: confirm raised on the data of this instance"
APPROVED = OrderApproved(order_id="order-1", approver="approver-1")
broken = [True]


@pytest.fixture(autouse=True)
def _break() -> None:
    broken[0] = True


def confirm(order: OrderPlaced) -> ConfirmOrder:
    """Confirm, once that is mended."""
    if broken[0]:
        raise LookupError("what a customer wrote")
    return ConfirmOrder(order_id=order.order_id)


def buy() -> Saga[OrderPlaced]:
    """Return a saga that waits for an approval and confirms."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(100))
    approval = made.wait("approval", succeeds=OrderApproved, within=hours(1), on_timeout=HALT)
    made.pivot(orders, confirm, after=approval, succeeds=OrderConfirmed, within=seconds(10), key="confirm")
    return made


def verify_only(version: int) -> Saga[OrderPlaced]:
    """Return a saga that verifies the customer; version 2 confirms beside that."""
    made = Saga("buy", version=version, starts_on=OrderPlaced, deadline=hours(100))
    made.retriable(identity, verify, succeeds=CustomerVerified, within=seconds(10))
    if version > 1:
        made.retriable(orders, confirm, succeeds=OrderConfirmed, within=seconds(10), key="confirm")
    return made


@pytest.fixture
def desk() -> Desktop:
    """Return a worker."""
    return desktop(buy())


def begin(desk: Desktop) -> None:
    """Start the instance."""
    desk.give("order.events", order_placed(), id="event-1", type=OrderPlaced.SCHEMA_NAME)


def test_a_start_is_not_to_blame_for_a_signal_that_came_before_it(desk: Desktop) -> None:
    """It begins; the signal is refused, and once that is mended it is given again."""
    desk.give("buy.signals", APPROVED, id="early")
    entries = history(desk.give("order.events", order_placed(), id="event-1"))
    assert [(entry.happened, entry.reason) for entry in entries] == [("started", ""), ("refused", RAISES)]
    broken[0] = False
    assert len(commands(desk.give("buy.signals", APPROVED, id="again"))) == 1


def test_a_request_that_raises_is_refused_and_what_is_asked_next_is_done(desk: Desktop) -> None:
    """So says the dry run, too."""
    begin(desk)
    desk.clock.advance(3600)
    desk.fire_timers()
    skip = request_of(state_of(desk), Action.SKIP, actor="ada", reason="it is", reply=APPROVED)
    assert preview(buy().definition, state_of(desk), skip, now(desk)).refusal == RAISES
    (entry,) = history(give(desk, skip))
    assert (entry.happened, entry.reason) == ("refused", RAISES)
    broken[0] = False
    assert len(commands(give(desk, skip))) == 1


def test_a_move_to_a_version_that_raises_is_refused() -> None:
    """The instance stays where it was."""
    desk = desktop(verify_only(1))
    begin(desk)
    desk.orchestrator = desktop(verify_only(1), verify_only(2)).orchestrator
    moving = upgrade_of(state_of(desk), 2, actor="ada", reason="it is out")
    (entry,) = history(ask(desk, moving))
    assert (entry.happened, entry.reason, entry.version) == ("refused", RAISES, 1)
    broken[0] = False
    assert [entry.happened for entry in history(ask(desk, moving))] == ["upgraded"]
