"""A parent and a sub-saga that cannot begin, on the memory broker: dead letters, every order of arrival."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from sagas.place_order import reserve_stock
from schemas.records.catalog import ReserveStock, StockReleased, StockReserved
from schemas.records.order import OrderConfirmed, OrderPlaced
from schemas.records.payment import AuthorisationVoided, PaymentAuthorised
from tests.unit.orchestrator.desktop import order_placed
from tests.unit.orchestrator.family import buy, hold_goods
from tests.unit.orchestrator.village import Village
from towpath.clock import SystemClock
from towpath.contract.record import Record
from towpath.deadletter.quarantine import Fate
from towpath.deadletter.redrive import Outcome, Redrive
from towpath.deadletter.redrive_plan import drop_plan, redrive_plan
from towpath.saga import Saga, SecondStart
from towpath.saga.keys import saga_id_of
from towpath.stream.broker.record import ConsumedRecord

ANSWERS: dict[str, Record] = {
    "ReserveStock": StockReserved(order_id="order-1", reservation_id="r-1"),
    "ReleaseStock": StockReleased(order_id="order-1"),
    "AuthorisePayment": PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=20_00),
    "VoidAuthorisation": AuthorisationVoided(order_id="order-1"),
    "ConfirmOrder": OrderConfirmed(order_id="order-1", confirmed_at=order_placed().placed_at),
}
DEAD = ("hold_goods.signals.dead",)
SIGNALS = "hold_goods.signals"


def village_of(folder: Path, *sagas: Saga[Any]) -> Village:
    """Return a village in which every service does what it is asked."""
    return Village(folder, ANSWERS, *sagas)


def parent_is(village: Village, status: str, event: str = "event-1") -> bool:
    """Say whether the parent that `event` started stands so."""
    own = [entry.status for entry in village.history("buy") if entry.saga_id == saga_id_of("buy", event)]
    return own[-1:] == [status]


def asked(village: Village) -> list[str]:
    """Return what the catalog was asked."""
    return [type(command).__name__ for command in village.sent("catalog.commands")]


def test_two_parents_of_one_key_and_the_child_of_one_is_refused(tmp_path: Path) -> None:
    """The first confirms its order, the second compensates: neither waits for the other's child."""
    village = village_of(tmp_path, buy(second_start=SecondStart.INDEPENDENT))
    village.place("event-1")
    village.place("event-2")
    village.run(lambda: parent_is(village, "completed") and parent_is(village, "compensated", "event-2"))
    assert asked(village) == ["ReserveStock"]


# --- every order of arrival -------------------------------------------------------------------------------------------


def said_by_parent(folder: Path) -> tuple[Village, list[ConsumedRecord]]:
    """Return a parent that was cancelled while it waited, and what it said to its child: start and undo."""
    village = village_of(folder)
    village.place()
    village.run(lambda: parent_is(village, "running"), workers=["buy"])
    village.cancel()
    village.run(lambda: parent_is(village, "compensating"), workers=["buy"])
    return village, village.broker.records(SIGNALS)


@pytest.mark.parametrize("order", sorted(set(permutations((0, 0, 1, 1)))), ids=str)
def test_whatever_comes_first_the_parent_ends_and_the_stock_is_as_it_was(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Start (0) and undo (1), each twice, in any order; what the child answers reaches the parent that is waiting."""
    village, said = said_by_parent(tmp_path / "above")
    below = village_of(tmp_path / "below")
    for index in order:
        below.broker.append(SIGNALS, said[index].value, key=said[index].key, headers=said[index].headers)
    begins = order[0] == 0
    below.run(lambda: len(below.history("hold_goods")) == (6 if begins else 4), workers=["hold_goods"])
    assert asked(below) == (["ReserveStock", "ReleaseStock"] if begins else [])
    for answer in below.broker.records("buy.replies"):
        village.broker.append("buy.replies", answer.value, key=answer.key, headers=answer.headers)
    village.run(lambda: parent_is(village, "compensated"), workers=["buy"])


# --- a start that is dead ---------------------------------------------------------------------------------------------


class Grumpy:
    """A builder that fails until it is told to behave."""

    def __init__(self) -> None:
        self.fails = True

    def saga(self) -> Saga[OrderPlaced]:
        """Return the child that cannot begin."""

        def reserve(order: OrderPlaced) -> ReserveStock:
            if self.fails:
                raise ZeroDivisionError
            return reserve_stock(order)

        return hold_goods(reserve)


def settle(village: Village, *, drop: bool) -> Outcome:
    """Redrive the dead start with what is parked behind it, or drop it alone."""
    run = Redrive(
        village.broker, SystemClock(), transactional_id="dead", dead_topics=DEAD, actor="grace", reason="fixed"
    )
    try:
        quarantine = run.start()
        letters = [dead for dead in quarantine.letters() if dead.letter.behind is None]
        requests = drop_plan(quarantine, letters, followers=False) if drop else redrive_plan(quarantine, letters)
        return run.run(requests, wait_seconds=0)
    finally:
        run.close()


def with_a_dead_start(folder: Path) -> tuple[Village, Grumpy]:
    """Return a village in which the child's start is dead, and its parent's wish to undo it is parked behind it."""
    grumpy = Grumpy()
    village = village_of(folder, grumpy.saga())
    village.place()
    village.run(lambda: len(village.broker.records(DEAD[0])) == 1)
    village.cancel()
    village.run(lambda: len(village.broker.records(DEAD[0])) == 2)
    assert parent_is(village, "compensating")
    grumpy.fails = False
    return village, grumpy


def test_a_dead_start_that_is_dropped_lets_its_parent_end(tmp_path: Path) -> None:
    """What is parked behind it goes on: the wish to undo what never was. Played again, the start does nothing."""
    village, _ = with_a_dead_start(tmp_path)
    start = village.broker.records(SIGNALS)[0]
    outcome = settle(village, drop=True)
    assert [dead.fate for dead in (*outcome.dropped, *outcome.redriven)] == [Fate.DROPPED, Fate.REDRIVEN]
    village.run(lambda: parent_is(village, "compensated"))
    village.broker.append(SIGNALS, start.value, key=start.key, headers=start.headers)
    village.run(lambda: village.history("buy")[-1].happened == "refused")
    assert (asked(village), parent_is(village, "compensated")) == ([], True)
    assert [entry.happened for entry in village.history("hold_goods")] == ["refused", "refused"]


def test_a_dead_start_that_is_redriven_begins_and_is_undone(tmp_path: Path) -> None:
    """Both come in their turn, and the parent, which waited, ends."""
    village, _ = with_a_dead_start(tmp_path)
    settle(village, drop=False)
    village.run(lambda: parent_is(village, "compensated"))
    assert asked(village) == ["ReserveStock", "ReleaseStock"]


def test_a_dead_start_that_is_dropped_before_anybody_asks(tmp_path: Path) -> None:
    """The parent learns nothing of the drop; once it gives up, it is answered at once."""
    village = village_of(tmp_path, Grumpy().saga())
    village.place()
    village.run(lambda: len(village.broker.records(DEAD[0])) == 1)
    settle(village, drop=True)
    village.cancel()
    village.run(lambda: parent_is(village, "compensated"))
    assert asked(village) == []
