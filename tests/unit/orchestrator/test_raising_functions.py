"""A function of the definition raises: what asked for it is refused in the history, and nothing else waits for that."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sagas import identity, orders
from schemas.records.identity import CustomerVerified
from schemas.records.order import ConfirmOrder, OrderApproved, OrderConfirmed, OrderPlaced
from tests.unit.orchestrator.desktop import CODEC, Desktop, Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.test_requests import give, now, state_of
from tests.unit.orchestrator.test_upgrading import ask, verify
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.recording import golden_of, input_of
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.requests import Request, preview, request_of, upgrade_of
from towpath.orchestrator.sagas_view import SagaInstance, answers_in, fold
from towpath.replay.shadow import world_of
from towpath.saga import HALT, Saga, hours, seconds
from towpath.saga.inputs import Action
from towpath.saga.keys import saga_id_of
from towpath.saga.testing import replay
from towpath.saga.testing.golden import inputs_of
from towpath.view import Occurrence

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


def confirm_nothing(_: OrderPlaced) -> ConfirmOrder:
    """Return what breaks its contract."""
    return ConfirmOrder(order_id=None)  # type: ignore[arg-type]


def buy() -> Saga[OrderPlaced]:
    """Return a saga that waits for an approval and confirms."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(100))
    approval = made.wait("approval", succeeds=OrderApproved, within=hours(1), on_timeout=HALT)
    made.pivot(orders, confirm, after=approval, succeeds=OrderConfirmed, within=seconds(10), key="confirm")
    return made


def verify_only(version: int, confirm: Callable[[OrderPlaced], ConfirmOrder] = confirm) -> Saga[OrderPlaced]:
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


def begin(desk: Desktop) -> list[Sent]:
    """Start the instance; return what that sent."""
    return desk.give("order.events", order_placed(), id="event-1", type=OrderPlaced.SCHEMA_NAME)


def test_a_start_is_not_to_blame_for_a_signal_that_came_before_it(desk: Desktop) -> None:
    """It begins; the signal is refused, and once that is mended it is given again."""
    desk.give("buy.signals", APPROVED, id="early")
    entries = history(desk.give("order.events", order_placed(), id="event-1"))
    assert [(entry.happened, entry.reason) for entry in entries] == [("started", ""), ("refused", RAISES)]
    broken[0] = False
    assert len(commands(desk.give("buy.signals", APPROVED, id="again"))) == 1


def stuck(desk: Desktop) -> list[Sent]:
    """Let an instance begin whose wait nobody answers; return what that sent."""
    return [*begin(desk), *later(desk)]


def later(desk: Desktop) -> list[Sent]:
    """Let the wait's hour pass."""
    desk.clock.advance(3600)
    return desk.fire_timers()


def skipping(desk: Desktop) -> Request:
    """Return a person's request that the instance as it stands goes on."""
    return request_of(state_of(desk), Action.SKIP, actor="ada", reason="it is", reply=APPROVED)


def test_a_request_that_raises_is_refused_and_what_is_asked_next_is_done(desk: Desktop) -> None:
    """So says the dry run, too. It is decided once, as any other; asked once that is mended, it is another."""
    stuck(desk)
    skip = skipping(desk)
    assert preview(buy().definition, state_of(desk), skip, now(desk)).refusal == RAISES
    (entry,) = history(give(desk, skip))
    assert (entry.happened, entry.reason) == ("refused", RAISES)
    broken[0] = False
    assert history(give(desk, skip))[0].reason == "the request was already applied"
    assert len(commands(give(desk, skipping(desk)))) == 1


def refused_twice(desk: Desktop) -> list[HistoryEntry]:
    """Return the run of an instance that refused a signal before its start and a request, and then went on."""
    desk.give("buy.signals", APPROVED, id="early")
    entries = history(stuck(desk) + give(desk, skipping(desk)))
    broken[0] = False
    return entries + history(give(desk, skipping(desk)))


def test_what_raises_is_refused_by_its_instance(desk: Desktop) -> None:
    """There people look for it; the row that applications wait on has the answer, and its waits and its cause stay."""
    run = refused_twice(desk)
    assert [entry.happened for entry in run] == ["started", "refused", "timer_fired", "refused", "operator_asked"]
    assert {(entry.saga_id, entry.version) for entry in run} == {(saga_id_of("buy", "event-1"), 1)}
    early = run[1]
    assert (early.status, early.waiting_for) == ("running", ("approval",))
    row: SagaInstance | None = None
    for entry in run:
        row = fold(row, entry, Occurrence("buy.history", "order-1", entry.input_id, desk.clock.now()))
    assert row is not None
    assert [one.refusal for one in answers_in(row)] == [RAISES, RAISES, None]


@pytest.mark.parametrize("mended", [True, False])
def test_a_run_in_which_a_function_raised_is_decided_again(desk: Desktop, mended: bool) -> None:
    """Whether that function still raises or not: what was refused changed nothing."""
    made = buy().definition
    run = refused_twice(desk)
    if not mended:
        run, broken[0] = run[:-1], True
    golden = golden_of(made, run, CODEC)
    replay(made, golden)
    inputs = [input_of(entry, Messages(CODEC)) for entry in run]
    assert inputs_of(made, golden) == inputs
    assert world_of(made, inputs).others == tuple(one for one in inputs if getattr(one, "action", "") == Action.SKIP)


def test_a_signal_that_was_refused_and_is_given_again_is_answered_by_what_became_of_it(desk: Desktop) -> None:
    """Under the same id, once the function is mended: a signal to a key has one id, by what it says."""
    desk.give("buy.signals", APPROVED, id="signal")
    entries = history(begin(desk))
    broken[0] = False
    entries += history(desk.give("buy.signals", APPROVED, id="signal"))
    row: SagaInstance | None = None
    for entry in [*entries, replace(entries[-1], happened="refused", reason="no wait is open")]:
        row = fold(row, entry, Occurrence("buy.history", "order-1", entry.input_id, desk.clock.now()))
    assert row is not None
    assert [(one.request_id, one.refusal) for one in answers_in(row)] == [("signal", None)]


def test_a_move_to_a_version_that_builds_what_breaks_its_contract_is_refused_by_its_instance() -> None:
    """Which stays as it was."""
    desk = desktop(verify_only(1))
    begin(desk)
    desk.orchestrator = desktop(verify_only(1), verify_only(2, confirm_nothing)).orchestrator
    before, moving = desk.stored(), upgrade_of(state_of(desk), 2, actor="ada", reason="it is out")
    (entry,) = history(ask(desk, moving))
    assert "order_id" in entry.reason
    assert (entry.happened, entry.saga_id, entry.status) == ("refused", moving.saga_id, "running")
    assert desk.stored() == before


def test_a_move_to_a_version_that_raises_is_refused() -> None:
    """The instance stays where it was."""
    desk = desktop(verify_only(1))
    begin(desk)
    desk.orchestrator = desktop(verify_only(1), verify_only(2)).orchestrator
    moving = upgrade_of(state_of(desk), 2, actor="ada", reason="it is out")
    (entry,) = history(ask(desk, moving))
    assert (entry.happened, entry.reason, entry.version, entry.saga_id) == ("refused", RAISES, 1, moving.saga_id)
    broken[0] = False
    assert [entry.happened for entry in history(ask(desk, moving))] == ["upgraded"]
