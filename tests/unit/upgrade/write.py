"""Write what this version of Towpath leaves behind: `python -m tests.unit.upgrade.write NAME` (a version, or a commit).

Walks of every shape through a world that does its worst, with the bytes of the state after each decision and of its
entry in the history; and whole partitions, at several points of their lives, with the commands that are out then.
Versions to come must decode all of it and go on from there (test_upgrade.py).
"""

import base64
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from sagas import place_order
from schemas.records.catalog import OutOfStock, StockLevelChanged, StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderApproved, OrderConfirmed, OrderDeclined, OrderLine, OrderPlaced
from schemas.records.payment import PaymentAuthorised, PaymentDeclined
from tests.unit.orchestrator.desktop import CODEC, Sent, commands, order_placed
from tests.unit.orchestrator.family import CONTRACTS, Family, buy, hold_goods
from tests.unit.upgrade.course_shapes import COURSE_SHAPES, agree, buy_lines, course, hold_line
from tests.unit.upgrade.shapes import SHAPES
from towpath.contract.codec import derived_id
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages, state_to_wire
from towpath.orchestrator.message_builder import MessageBuilder
from towpath.saga import Saga
from towpath.saga.effects import SubsagaCompleted
from towpath.saga.inputs import Input, ParentAsked, Started
from towpath.saga.state import Direction, ParentReference
from towpath.saga.testing.samples import sample
from towpath.saga.testing.world import World

FOLDER = Path(__file__).parent
WALKS = 12
MOVES_MAX = 45
PARENT = ParentReference("buy", "buy-1", "key", "goods", Direction.DO, 1, 1)
CHILDREN = ("hold_goods", "hold_line")
EVERY_SHAPE: dict[str, Callable[[], Saga[Any]]] = SHAPES | COURSE_SHAPES


class ChildWorld(World):
    """A world in which the saga has a parent."""

    def give(self, input_: Input) -> Any:
        """Let the start come from the parent."""
        return super().give(replace(input_, parent=PARENT) if isinstance(input_, Started) else input_)


def sampled(kind: Any) -> Any:
    """Return a sample of a class; a sub-saga comes to something."""
    if kind is SubsagaCompleted:
        return SubsagaCompleted("hold_line", "hold_line-1", sample(StockReserved))
    return sample(kind)


def text(content: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(content).decode()


def walks() -> Iterator[dict[str, Any]]:
    """Yield random walks of every shape."""
    for name, build in EVERY_SHAPE.items():
        definition = build().definition
        messages = Messages(CODEC)
        writer = MessageBuilder(name, messages)
        for number in range(WALKS):
            dice = Random(f"{name} {number}")
            total = 500_000 if number % 2 else 2_000
            event = replace(order_placed(total_cents=total)) if definition.starts_on is OrderPlaced else None
            if event is not None and name in ("wholesale", "buy_lines", "agree"):
                event = replace(event, lines=event.lines * (number % 4))
            world = (ChildWorld if name in CHILDREN else World)(definition, sampled, event)
            for _ in range(MOVES_MAX):
                moves = world.moves()
                if not moves or (world.state is not None and world.state.ended):
                    break
                chosen = [move for move in moves if move.adverse is (dice.random() < 0.3)] or moves
                dice.choice(chosen).happen()
            if name in CHILDREN and number % 3 == 0:
                asks = replace(PARENT, direction=Direction.UNDO)
                world.give(ParentAsked("parent-asks", world.now, asks))
            entries = []
            for input_, decision in world.log:
                state = decision.state
                assert state is not None
                entry = writer.entry(definition, state, input_, decision, writer.outgoing(decision, state))
                content = CODEC.encode(state_to_wire(state, messages))
                entries.append([text(CODEC.encode(entry)), text(content)])
            yield {"walk": number, "saga": name, "entries": entries}


class Recorder:
    """Keeps every command that was sent and is not answered."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.out: dict[str, Sent] = {}
        self.dumps: list[dict[str, Any]] = []

    def note(self, sent: list[Sent]) -> None:
        """Keep what is out."""
        for command in commands(sent):
            self.out[command.headers["idempotency_key"]] = command

    def answer(self, step: str, reply: Any) -> None:
        """Answer the command of a step."""
        key = next(key for key, command in self.out.items() if command.headers["step"] == step)
        command = self.out.pop(key)
        self.note(self.family.carry(self.family[command.headers["saga"]].reply(command, reply)))

    def dump(self, name: str) -> None:
        """Write everything down."""
        self.dumps.append(
            {
                "dump": name,
                "at": max(desk.clock.now().timestamp() for desk in self.family.desks.values()),
                "state": {
                    saga: [[text(key), text(value)] for key, value in desk._state.scan_reserved(b"")]
                    for saga, desk in self.family.desks.items()
                },
                "out": [
                    {"topic": c.topic, "key": c.key, "headers": c.headers, "payload": text(CODEC.encode(c.record))}
                    for c in self.out.values()
                ],
            }
        )


VERIFIED = CustomerVerified(order_id="order-1", customer_id="customer-1")
RESERVED = StockReserved(order_id="order-1", reservation_id="r-1")
NOT_RESERVED = OutOfStock(order_id="order-1", sku="chair", requested=1, available=0)
APPROVED = OrderApproved(order_id="order-1", approver="grace")
PAID = PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=2_000_00)
DECLINED = PaymentDeclined(order_id="order-1", reason="no money")


def of_place_order() -> Iterator[dict[str, Any]]:
    """Yield the partition of an order's saga at points of its life."""
    tape = Recorder(Family(place_order.saga))
    desk = tape.family["place_order"]
    desk.give("place_order.signals", APPROVED, id="s-1")
    tape.dump("an approval that came early")
    started = desk.give("order.events", order_placed(total_cents=2_000_00), id="event-1", tenant="t-1")
    tape.note(started)
    tape.dump("begun")
    desk.clock.advance(11)
    tape.note(desk.fire_timers())
    desk.clock.advance(5)
    tape.note(desk.fire_timers())
    tape.dump("asked again")
    tape.answer("verify_customer", VERIFIED)
    tape.answer("reserve_stock", RESERVED)
    tape.dump("to be paid")
    asked = wire.OperatorAsked(
        saga_id=started[0].headers["saga_id"], action=wire.OperatorAction.CANCEL, actor="grace", reason="a test"
    )
    tape.answer("authorise_payment", PAID)
    tape.dump("to be confirmed")
    tape.answer("confirm_order", OrderConfirmed(order_id="order-1", confirmed_at=desk.clock.now()))
    tape.dump("to be captured")
    desk.clock.advance(4 * 24 * 3600)
    tape.note(desk.fire_timers())
    tape.dump("stuck past the pivot")
    yield from tape.dumps
    tape = Recorder(Family(place_order.saga))
    desk = tape.family["place_order"]
    tape.note(desk.give("order.events", order_placed(), id="event-1"))
    tape.note(desk.give("place_order.operator", asked, id="asked-1"))
    tape.dump("cancelled")
    yield from tape.dumps


def of_a_family() -> Iterator[dict[str, Any]]:
    """Yield the partitions of a parent and its child."""
    for refused in (False, True):
        tape = Recorder(Family(buy(), hold_goods()))
        parent = tape.family["buy"]
        tape.note(tape.family.carry(parent.give("order.events", order_placed(), id="event-1")))
        tape.dump("the child has begun")
        tape.answer("reserve_stock", NOT_RESERVED if refused else RESERVED)
        tape.dump("the child has failed" if refused else "the child has completed")
        if not refused:
            tape.family.pass_hours(2)
            tape.answer("authorise_payment", DECLINED)
            tape.dump("the child is asked back")
        yield from tape.dumps


VOTE = OrderApproved(order_id="order-1", approver="ada")
OFFERS = tuple(OrderLine(sku=sku, quantity=1, unit_price_cents=10_00) for sku in ("desk", "lamp", "sofa"))


def of_courses() -> Iterator[dict[str, Any]]:
    """Yield partitions of sagas that say more than a row of steps."""
    tape = Recorder(Family(course()))
    desk = tape.family["course"]
    tape.note(desk.give("order.events", order_placed(total_cents=2_000_00), id="event-1"))
    desk.clock.advance(3 * 3600)
    tape.note(desk.fire_timers())
    tape.dump("reminded")
    tape.note(desk.give("course.signals", sample(StockLevelChanged), id="longer"))
    tape.note(desk.give("course.signals", APPROVED, id="approved"))
    tape.answer("authorise_payment", DECLINED)
    tape.dump("the second stands in")
    tape.answer("reserve_stock", RESERVED)
    tape.dump("waiting for the next day")
    yield from tape.dumps
    tape = Recorder(Family(agree()))
    desk = tape.family["agree"]
    placed = replace(order_placed(), customer_id="order-1", lines=OFFERS)
    tape.note(desk.give("agree.signals", VOTE, id="early"))
    tape.note(desk.give("order.events", placed, id="event-1", type=placed.SCHEMA_NAME))
    tape.dump("one vote of two")
    tape.note(desk.give("agree.signals", replace(VOTE, approver="grace"), id="second"))
    tape.dump("offered to three")
    tape.answer("offer_line", RESERVED)
    tape.dump("the others are withdrawn")
    yield from tape.dumps
    tape = Recorder(Family(buy_lines(), hold_line()))
    parent = tape.family["buy_lines"]
    tape.note(tape.family.carry(parent.give("order.events", replace(order_placed(), lines=OFFERS), id="event-1")))
    tape.answer("reserve_stock", NOT_RESERVED)
    tape.dump("one line of three has failed")
    tape.answer("reserve_stock", RESERVED)
    tape.answer("reserve_stock", RESERVED)
    tape.dump("two lines of three are held")
    tape.answer("confirm_order", OrderDeclined(order_id="order-1", approver="grace", reason="a test"))
    tape.dump("two lines are asked back")
    yield from tape.dumps


def main(name: str) -> None:
    """Write all of it into one file, and the schemas that it was written under into another."""
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps(each, separators=(",", ":")) for each in (*walks(), *of_place_order(), *of_a_family(), *of_courses())
    ]
    (folder / "bytes.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))
    names = [record.name for record in CONTRACTS.schemas.records()]
    writers = {
        record: [derived_id(CONTRACTS.schemas, record), CONTRACTS.schemas.avro(record, docs=False)] for record in names
    }
    (folder / "writers.json").write_text(json.dumps(writers, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(lines)} walks and partitions in {folder}\n")


if __name__ == "__main__":
    main(sys.argv[1])
