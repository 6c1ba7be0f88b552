"""Sub-sagas in the orchestrator: carried by topics, kept while their parent may ask for them, then forgotten."""

import pytest

from sagas import catalog
from sagas.place_order import reserve_stock
from schemas.records.catalog import OutOfStock, StockReleased, StockReserved
from schemas.records.order import OrderApproved, OrderConfirmed, OrderPlaced
from schemas.records.payment import PaymentAuthorised, PaymentDeclined
from tests.unit.orchestrator.desktop import Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import Family, buy, hold_goods, pack
from towpath.orchestrator import records as wire
from towpath.saga import Saga, hours, seconds

RESERVED = StockReserved(order_id="order-1", reservation_id="r-1")
RELEASED = StockReleased(order_id="order-1")
AUTHORISED = PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=20_00)
OUT_OF_STOCK = OutOfStock(order_id="order-1", sku="chair", requested=1, available=0)
DECLINED = PaymentDeclined(order_id="order-1", reason="no money")


def begun(family: Family) -> dict[str, Sent]:
    """Let an order be placed; return the commands that follow, by participant."""
    return by_participant(family.carry(family["buy"].give("order.events", order_placed(), id="event-1")))


def by_participant(sent: list[Sent]) -> dict[str, Sent]:
    """Return the commands among what was sent."""
    return {command.topic.partition(".")[0]: command for command in commands(sent)}


def answered(family: Family, command: Sent, reply: object) -> list[Sent]:
    """Answer a command, and carry what follows."""
    saga = command.headers["saga"]
    return family.carry(family[saga].reply(command, reply))  # type: ignore[arg-type]


def statuses(sent: list[Sent]) -> dict[str, str]:
    """Return how each saga stands after its last entry."""
    return {entry.saga: entry.status for entry in history(sent)}


def goods_held(family: Family) -> Sent:
    """Let the sub-saga complete; return the parent's next command."""
    sent = answered(family, begun(family)["catalog"], RESERVED)
    assert "completed" in [entry.status for entry in history(sent)]
    return by_participant(sent)["payment"]


def confirmed(family: Family, payment: Sent) -> list[Sent]:
    """Let the parent complete."""
    confirm = by_participant(answered(family, payment, AUTHORISED))["order"]
    return answered(family, confirm, OrderConfirmed(order_id="order-1", confirmed_at=family["buy"].clock.now()))


def test_a_completed_child_is_kept_until_its_parent_has_ended() -> None:
    """Its own ending starts no clock; its parent's does, for both alike."""
    family = Family(buy(), hold_goods())
    payment = goods_held(family)
    assert family["hold_goods"].timers_set() == []
    family.pass_hours(50)
    assert family.kept("hold_goods") == 1
    sent = confirmed(family, payment)
    assert statuses(sent)["buy"] == "completed"
    assert [type(message.record).__name__ for message in sent if message.topic == "hold_goods.signals"] == [
        "ParentEnded"
    ]
    assert [len(family[saga].timers_set()) for saga in ("buy", "hold_goods")] == [1, 1]
    family.pass_hours(1)
    assert [family.kept(saga) for saga in ("buy", "hold_goods")] == [0, 0]
    assert [key[:1] for key in family["hold_goods"].stored()] == [b"f"]


def test_a_child_is_undone_long_after_its_own_retention() -> None:
    """The parent's payment is declined two days later: the child is still there, and gives the goods back."""
    family = Family(buy(), hold_goods())
    payment = goods_held(family)
    family.pass_hours(50)
    release = by_participant(answered(family, payment, DECLINED))["catalog"]
    assert release.headers["direction"] == "undo"
    sent = answered(family, release, RELEASED)
    assert statuses(sent) == {"hold_goods": "compensated", "buy": "compensated"}
    family.pass_hours(1)
    assert [family.kept(saga) for saga in ("buy", "hold_goods")] == [0, 0]


def test_a_child_that_failed_answers_its_parent_and_goes_with_it() -> None:
    """It compensates by itself; the parent has nothing to undo."""
    family = Family(buy(), hold_goods())
    assert statuses(answered(family, begun(family)["catalog"], OUT_OF_STOCK)) == {
        "hold_goods": "compensated",
        "buy": "compensated",
    }
    family.pass_hours(1)
    assert [family.kept(saga) for saga in ("buy", "hold_goods")] == [0, 0]


def test_a_grandchild_is_kept_until_the_eldest_has_ended() -> None:
    """Its parent has completed, and may yet be asked to undo itself by its own."""
    family = Family(buy(pack()), pack(), hold_goods())
    payment = goods_held(family)
    family.pass_hours(50)
    assert [family.kept(saga) for saga in ("pack", "hold_goods")] == [1, 1]
    release = by_participant(answered(family, payment, DECLINED))["catalog"]
    sent = answered(family, release, RELEASED)
    assert statuses(sent) == {"hold_goods": "compensated", "pack": "compensated", "buy": "compensated"}
    family.pass_hours(1)
    assert [family.kept(saga) for saga in ("buy", "pack", "hold_goods")] == [0, 0, 0]


def test_a_child_that_outlives_its_parent_is_forgotten_after_its_own_ending() -> None:
    """A person skipped its undo, so the parent ended first; what is still under way is not cut short."""
    family = Family(buy(), hold_goods())
    payment = goods_held(family)
    release = by_participant(answered(family, payment, DECLINED))["catalog"]
    family.pass_hours(30)
    parent_id = next(key for key in family["buy"].stored() if key.startswith(b"i"))[1:].decode()
    asked = wire.OperatorAsked(
        saga_id=parent_id, action=wire.OperatorAction.SKIP, step="goods", actor="grace", reason="lost"
    )
    sent = family.carry(family["buy"].give("buy.operator", asked, id="asked-1"))
    assert statuses(sent)["buy"] == "compensated"
    family.pass_hours(1)
    assert [family.kept(saga) for saga in ("buy", "hold_goods")] == [0, 1]
    again = [command for command in commands(family.pass_hours(1)) if command.headers["direction"] == "undo"]
    answered(family, again[-1] if again else release, RELEASED)
    assert family.kept("hold_goods") == 1
    family.pass_hours(1)
    assert family.kept("hold_goods") == 0


@pytest.mark.parametrize("edited", [False, True], ids=["removed", "edited"])
def test_a_child_that_is_over_waits_for_no_version(*, edited: bool) -> None:
    """`saga versions` said that its version is free: whatever comes for it late is refused, and holds nothing up."""
    family = Family(buy(), hold_goods())
    sent = confirmed(family, goods_held(family))
    (over,) = [message for message in sent if isinstance(message.record, wire.ParentEnded)]
    child, saga_id = family["hold_goods"], over.headers["saga_id"]
    newer = Saga("hold_goods", version=1 if edited else 2, starts_on=OrderPlaced, deadline=hours(2))
    newer.retriable(catalog, reserve_stock, key="reserve", succeeds=StockReserved, within=seconds(10))
    child.orchestrator = desktop(newer).orchestrator
    approved = OrderApproved(order_id="order-1", approver="grace")
    late = [child.give("hold_goods.signals", approved, id="s-1")]
    for action in (wire.OperatorAction.CANCEL, wire.OperatorAction.UPGRADE):
        asked = wire.OperatorAsked(saga_id=saga_id, action=action, version=2, actor="grace", reason="late")
        late.append(child.give("hold_goods.operator", asked, id=action.value))
    assert [entry.reason for one in late for entry in history(one)] == ["the saga has ended"] * 3
    assert child.give(over.topic, over.record, key=over.key, **over.headers) == []
    family.pass_hours(1)
    assert family.kept("hold_goods") == 0


def test_only_the_parent_may_let_a_child_go() -> None:
    """Another saga's word, or one about no instance, changes nothing and is recorded."""
    family = Family(buy(), hold_goods())
    goods_held(family)
    child = family["hold_goods"]
    saga_id = next(key for key in child.stored() if key.startswith(b"i"))[1:].decode()
    before = child.stored()
    stranger = wire.ParentEnded(saga="buy", saga_id="another")
    for about in (saga_id, "none"):
        (entry,) = history(child.give("hold_goods.signals", stranger, id="e", saga_id=about))
        assert (entry.happened, entry.reason) == ("refused", "it started no such sub-saga")
    assert child.stored() == before


def test_a_parent_that_says_it_twice_sets_one_timer() -> None:
    """Whatever is repeated does no harm."""
    family = Family(buy(), hold_goods())
    sent = confirmed(family, goods_held(family))
    (told,) = [message for message in sent if message.topic == "hold_goods.signals"]
    family["hold_goods"].clock.advance(600)
    before = family["hold_goods"].timers_set()
    family.carry([told])
    family["hold_goods"].clock.advance(3_000)
    family["hold_goods"].fire_timers()
    assert (before, family.kept("hold_goods")) == (before, 0)
