"""A recorded run, decided again from its history alone, becomes a golden history; or it is said where it differs."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sagas import place_order
from schemas.records.catalog import ItemsRestocked, OutOfStock, StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderApproved, OrderConfirmed, OrderRejected
from schemas.records.payment import PaymentAuthorised
from tests.unit.orchestrator.desktop import CODEC, Desktop, Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import Family, buy, hold_goods
from tests.unit.orchestrator.test_subsagas import DECLINED, RELEASED, answered, by_participant, goods_held
from towpath.orchestrator import records as wire
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.recording import NotAsRecorded, entries_of, golden_of
from towpath.saga.definition import Definition
from towpath.saga.testing import read_history, replay, write_history
from towpath.stream.broker.record import ConsumedRecord

DEFINITION = place_order.saga.definition
VERIFIED = CustomerVerified(order_id="order-1", customer_id="customer-1")
RESERVED = StockReserved(order_id="order-1", reservation_id="r-1")


class Tape:
    """A worker whose history is kept."""

    def __init__(self) -> None:
        self.context: Desktop = desktop(place_order.saga)
        self.entries: list[wire.HistoryEntry] = []

    def note(self, sent: list[Sent]) -> dict[str, Sent]:
        """Keep what was written into the history; return the commands sent, by step."""
        self.entries += history(sent)
        return {command.headers["step"]: command for command in commands(sent)}

    def place(self, total_cents: int = 20_00) -> dict[str, Sent]:
        """Let an order be placed, with headers that are carried on."""
        event = order_placed(total_cents=total_cents)
        return self.note(self.context.give("order.events", event, id="event-1", traceparent="00-1", tenant="t-1"))


def confirmed() -> Tape:
    """Return a run with a signal that came before its saga, much that is repeated, and an approval too many."""
    tape = Tape()
    tape.note(tape.context.give("place_order.signals", OrderApproved(order_id="order-1", approver="grace"), id="s-1"))
    first = tape.place(2_000_00)
    tape.place(2_000_00)
    tape.note(tape.context.reply(first["verify_customer"], VERIFIED))
    tape.note(tape.context.reply(first["verify_customer"], VERIFIED))
    paid = PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=2_000_00)
    payment = tape.note(tape.context.reply(first["reserve_stock"], RESERVED))["authorise_payment"]
    confirm = tape.note(tape.context.reply(payment, paid))["confirm_order"]
    tape.note(tape.context.give("place_order.signals", OrderApproved(order_id="order-1", approver="ada"), id="s-2"))
    tape.note(tape.context.reply(confirm, OrderConfirmed(order_id="order-1", confirmed_at=tape.context.clock.now())))
    return tape


def out_of_stock() -> Tape:
    """Return a run in which timers fire, a person asks (once in vain), and a strange reply comes."""
    tape = Tape()
    first = tape.place()
    tape.note(tape.context.reply(first["verify_customer"], ItemsRestocked(order_id="order-1")))
    tape.note(tape.context.reply(first["verify_customer"], VERIFIED))
    for _ in range(2):
        tape.context.clock.advance(11)
        tape.note(tape.context.fire_timers())
    stock = OutOfStock(order_id="order-1", sku="chair", requested=1, available=0)
    reject = tape.note(tape.context.reply(first["reserve_stock"], stock))["start"]
    saga_id = first["reserve_stock"].headers["saga_id"]
    for action in (wire.OperatorAction.CANCEL, wire.OperatorAction.RETRY):
        asked = wire.OperatorAsked(saga_id=saga_id, action=action, step="start", actor="grace", reason="a look at it")
        tape.note(tape.context.give("place_order.operator", asked, id=f"asked-{action.value}"))
    rejected = OrderRejected(order_id="order-1", reason="none left", rejected_at=tape.context.clock.now())
    tape.note(tape.context.reply(reject, rejected))
    return tape


RUNS: dict[str, Callable[[], Tape]] = {"confirmed": confirmed, "out of stock": out_of_stock}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_a_recorded_run_becomes_a_golden_history(run: Callable[[], Tape], tmp_path: Path) -> None:
    """Written, read and replayed: every input that came, the refused ones too."""
    tape = run()
    golden = golden_of(DEFINITION, tape.entries, CODEC)
    write_history(tmp_path / "run.jsonl", golden)
    replay(DEFINITION, read_history(tmp_path / "run.jsonl"))
    assert [entry["input"]["id"] for entry in golden["entries"]] == [entry.input_id for entry in tape.entries]
    assert any(entry.happened == "refused" for entry in tape.entries)


def test_what_a_person_said_in_vain_is_in_it_too() -> None:
    """The history has the reason of the refusal, and the person's own."""
    golden = golden_of(DEFINITION, out_of_stock().entries, CODEC)
    asked = [entry["input"] for entry in golden["entries"] if entry["input"]["input"] == "OperatorAsked"]
    assert [(input_["action"], input_["reason"]) for input_ in asked] == [
        ("cancel", "a look at it"),
        ("retry", "a look at it"),
    ]
    started = golden["entries"][0]["input"]
    assert started["headers"] == [["traceparent", "00-1"], ["tenant", "t-1"]]


def test_parent_and_child_are_recorded_each() -> None:
    """The child's start and its parent's request carry where to answer."""
    family = Family(buy(), hold_goods())
    entries: list[wire.HistoryEntry] = []
    original = family.carry

    def carry(sent: list[Sent]) -> list[Sent]:
        everything = original(sent)
        entries.extend(history(everything))
        return everything

    family.carry = carry  # type: ignore[method-assign]
    payment = goods_held(family)
    answered(family, by_participant(answered(family, payment, DECLINED))["catalog"], RELEASED)
    for made in (buy(), hold_goods()):
        own = [entry for entry in entries if entry.saga == made.name]
        golden = golden_of(made.definition, own, CODEC)
        replay(made.definition, json.loads(json.dumps(golden)))
        assert len(golden["entries"]) == 4


def changed(**values: Any) -> Definition:
    """Return the definition, its step reserve_stock changed under the same version."""
    steps = tuple(replace(step, **values) if step.key == "reserve_stock" else step for step in DEFINITION.steps)
    return replace(DEFINITION, steps=steps)


def test_a_definition_that_changed_without_a_new_version_is_found() -> None:
    """Nothing golden is written of a run that today's definition decides differently."""
    with pytest.raises(NotAsRecorded, match=r"entry 1 .* started OrderPlaced is decided differently now: sent was"):
        golden_of(changed(participant="warehouse"), out_of_stock().entries, CODEC)


LIES: dict[str, dict[str, Any]] = {
    "status": {"status": "completed"},
    "reason": {"reason": "because"},
    "cause": {"cause": "out of luck"},
    "sent": {"sent": ()},
    "waiting for": {"waiting_for": ("nobody",)},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_every_fact_of_an_entry_must_come_out_again(lie: dict[str, Any]) -> None:
    """Whatever the history says of a decision is compared."""
    entries = copy.copy(out_of_stock().entries)
    at = next(number for number, entry in enumerate(entries) if entry.cause and entry.sent)
    entries[at] = replace(entries[at], **lie)
    with pytest.raises(NotAsRecorded, match=f"entry {at + 1} .*{next(iter(lie))} was"):
        golden_of(DEFINITION, entries, CODEC)


def test_a_run_whose_beginning_is_gone_is_said_to_be_so() -> None:
    """The topic keeps its entries for a time."""
    with pytest.raises(NotAsRecorded, match="not the start") as raised:
        golden_of(DEFINITION, confirmed().entries[1:], CODEC)
    assert raised.value.next_step == "record a younger run"


def test_a_history_is_found_by_id_and_by_key() -> None:
    """A key may have several instances; entries about no instance belong to none."""
    tape = confirmed()
    saga_id = tape.entries[0].saga_id
    other = [replace(entry, saga_id="another") for entry in tape.entries[:2]]
    nobody = [replace(tape.entries[0], saga_id="", happened="refused")]
    records = [
        ConsumedRecord(
            "place_order.history", 0, offset, 0, b"order-1", CODEC.encode(entry), headers_of(saga_id=entry.saga_id)
        )
        for offset, entry in enumerate([*tape.entries, *other, *nobody])
    ]
    assert entries_of(records, CODEC, saga_id) == {saga_id: tape.entries}
    assert entries_of(records, CODEC, "order-1") == {saga_id: tape.entries, "another": other}
    assert entries_of(records, CODEC, "order-2") == {}
