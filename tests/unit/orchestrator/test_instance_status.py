"""Instances told by the state topic alone: each as it stands last, without a word of what its records hold."""

import json
from collections.abc import Sequence

import pytest

from sagas import place_order
from schemas.records.catalog import StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.payment import AuthorisationVoided
from tests.unit.orchestrator.desktop import CODEC, Desktop, commands, desktop, order_placed
from tests.unit.orchestrator.family import Family, buy, codec_of, hold_goods, paying_first
from tests.unit.orchestrator.test_subsagas import (
    AUTHORISED,
    OUT_OF_STOCK,
    answered,
    begun,
    by_participant,
    confirmed,
    goods_held,
)
from towpath.contract.catalogue import Catalogue
from towpath.errors import PeerError
from towpath.orchestrator.instance_status import KeptInstance, instances_in
from towpath.saga.state import Status
from towpath.saga.state_snapshot import state_from_tree, state_to_snapshot, tree_from_json, tree_to_json
from towpath.saga.upgrade import Outcome, judge
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord


def changelog(*desks: Desktop) -> list[ConsumedRecord]:
    """Return the state of workers as records of its topic, a partition each, the engine's own keys among them."""
    return [
        ConsumedRecord(f"{context.orchestrator.name}.state", partition, offset, 1_000 + offset, key, value)
        for partition, context in enumerate(desks)
        for offset, (key, value) in enumerate(context.stored().items())
    ]


def instances(records: Sequence[ConsumedRecord]) -> list[KeptInstance]:
    """Return the instances in these records."""
    return list(instances_in(records, CODEC))


def placed(context: Desktop, order_id: str, event_id: str) -> list[str]:
    """Let an order be placed, and its customer be verified; return the steps asked for first."""
    first = commands(context.give("order.events", order_placed(order_id), key=order_id, id=event_id))
    context.reply(first[0], CustomerVerified(order_id=order_id, customer_id="customer-1"))
    return [command.headers["step"] for command in first]


def test_every_instance_stands_as_its_last_record_says() -> None:
    """Older records of its key are overtaken, a removed one is gone, other kinds of keys are passed over."""
    one, two = desktop(place_order.saga), desktop(place_order.saga)
    placed(one, "order-1", "event-1")
    earlier = changelog(one)
    one.reply(
        commands(one.give("order.events", order_placed("order-2"), key="order-2", id="event-2"))[1],
        StockReserved(order_id="order-2", reservation_id="r"),
    )
    placed(two, "order-3", "event-3")
    found = instances([*earlier, *changelog(one, two)])
    assert sorted(instance.state.key for instance in found) == ["order-1", "order-2", "order-3"]
    assert {instance.state.key: instance.under_way for instance in found} == {
        "order-1": ("reserve_stock sent",),
        "order-2": ("verify_customer sent",),
        "order-3": ("reserve_stock sent",),
    }
    key = next(record.key for record in changelog(two) if (record.key or b"").startswith(b"i"))
    gone = ConsumedRecord("place_order.state", 1, 99, 9_999, key, None)
    assert len(instances([*changelog(one, two), gone])) == 2
    assert all(instance.changed_milliseconds >= 1_000 for instance in found)


def test_what_is_exported_reads_back_and_holds_no_data() -> None:
    """The tree of an instance, as JSON: the same steps and statuses; records by the names of their classes."""
    context = desktop(place_order.saga)
    placed(context, "order-1", "event-1")
    (instance,) = instances(changelog(context))
    text = json.dumps(tree_to_json(state_to_snapshot(instance.state)))
    assert "customer-1" not in text
    assert '{"record": "craftygoods.order.OrderPlaced"}' in text
    definition = place_order.saga.definition
    read = state_from_tree(definition, tree_from_json(json.loads(text)))
    assert [(step.key, step.status, step.attempt) for step in read.steps] == [
        (step.key, step.status, step.attempt) for step in instance.state.steps
    ]
    assert read.saga_id == instance.state.saga_id


def test_records_of_the_business_stay_closed() -> None:
    """The codec need know nothing but what the state topic itself carries."""
    context = desktop(place_order.saga)
    placed(context, "order-1", "event-1")
    codec = codec_of(("place_order.state",), Catalogue.load(load_settings()))
    (instance,) = instances_in(changelog(context), codec)
    assert type(instance.state.event).__name__ == "OrderPlaced"
    assert not hasattr(instance.state.event, "customer_id")


def test_the_result_of_a_sub_saga_has_the_name_that_definitions_give_it() -> None:
    """It travels as a record of the engine, and the machine knows it by another name."""
    family = Family(buy(), hold_goods())
    goods_held(family)
    (parent,) = instances(changelog(family["buy"]))
    definition = buy().definition
    tree = tree_from_json(json.loads(json.dumps(tree_to_json(state_to_snapshot(parent.state)))))
    newer = buy().definition
    object.__setattr__(newer, "version", 2)
    verdict = judge(definition, newer, state_from_tree(definition, tree))
    assert (verdict.outcome, verdict.reasons) == (Outcome.MIGRATE, ())


def test_a_completed_sub_saga_is_needed_until_its_parent_is_over() -> None:
    """Until then it may be asked back."""
    family = Family(buy(), hold_goods())
    payment = goods_held(family)
    (child,) = instances(changelog(family["hold_goods"]))
    assert (child.state.ended, child.needed, child.under_way) == (True, True, ())
    confirmed(family, payment)
    for saga in ("buy", "hold_goods"):
        (instance,) = instances(changelog(family[saga]))
        assert (instance.state.ended, instance.needed) == (True, False)


def test_a_sub_saga_that_has_compensated_is_needed_until_its_parent_is_over() -> None:
    """Its parent, which undoes something else yet, will tell it; that is a message for its version."""
    family = Family(paying_first(), hold_goods())
    out = by_participant(answered(family, begun(family)["payment"], AUTHORISED))
    void = by_participant(answered(family, out["catalog"], OUT_OF_STOCK))["payment"]
    (child,) = instances(changelog(family["hold_goods"]))
    assert (child.state.status, child.needed) == (Status.COMPENSATED, True)
    answered(family, void, AuthorisationVoided(order_id="order-1"))
    (child,) = instances(changelog(family["hold_goods"]))
    assert not child.needed


def test_a_record_that_is_no_state_is_its_writers_mistake() -> None:
    """Nothing is guessed about it."""
    with pytest.raises(PeerError):
        instances([ConsumedRecord("place_order.state", 0, 0, 0, b"i-someone", b"not avro")])
