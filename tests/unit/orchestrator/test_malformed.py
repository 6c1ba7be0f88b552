"""Whatever a record's headers, key or values are, it is applied or it is its sender's mistake: a PeerError."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.records.catalog import StockReserved
from tests.unit.orchestrator.desktop import CODEC, Desktop, commands, desktop, order_placed
from tests.unit.orchestrator.family import hold_goods
from tests.unit.orchestrator.test_cancelled_children import PARENT, STARTS, start
from towpath.errors import PeerError
from towpath.orchestrator import records as wire
from towpath.stream.broker.record import ConsumedRecord

INT4, INT8 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
KNOWN = ["do", "undo", "1", "attempt", "saga", "forget", "reserve_stock", PARENT, STARTS.child_saga_id, "hold_goods"]
NASTY = ["", "²", "-1", "1" * 5_000, str(2**31), "[" * 100_000, "x" * 36, "{}", "\0", "a:b", "\n", "é", "no saga"]
TEXT = st.sampled_from(KNOWN) | st.sampled_from(NASTY) | st.text(max_size=5)
JSON: st.SearchStrategy[Any] = st.recursive(
    TEXT | st.integers() | st.floats() | st.none() | st.booleans() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
PARENT_FIELDS = {
    "saga": "buy",
    "saga_id": PARENT,
    "key": "order-1",
    "step": "goods",
    "direction": "do",
    "attempt": 1,
    "round": 1,
}
PARENTS = st.dictionaries(st.sampled_from([*PARENT_FIELDS, "item", "further"]), JSON, max_size=2).map(
    lambda changes: json.dumps({**PARENT_FIELDS, **changes})
)
NAMES = ["id", "saga", "saga_id", "step", "item", "direction", "attempt", "round", "saga_version", "starts", "tenant"]
GOOD = {
    "saga_id": STARTS.child_saga_id,
    "step": "reserve_stock",
    "direction": "do",
    "attempt": "1",
    "round": "1",
}
HEADERS = st.fixed_dictionaries({}, optional={**dict.fromkeys(NAMES, TEXT), "parent": TEXT | PARENTS}).map(
    lambda changes: GOOD | changes
)


def nested(depth: int) -> wire.SubsagaCompleted:
    """Return the ending of a sub-saga whose result is one, whose result is one, and so on."""
    made = wire.SubsagaCompleted(saga="s", saga_id="x")
    for _ in range(depth):
        message = wire.Message(type=made.SCHEMA_NAME, payload=CODEC.encode(made))
        made = wire.SubsagaCompleted(saga="s", saga_id="x", result=message)
    return made


WIRE_PARENTS = st.builds(wire.ParentReference, **dict.fromkeys(PARENT_FIELDS, TEXT) | {"attempt": INT4, "round": INT4})
MESSAGES = st.builds(wire.Message, type=TEXT, payload=st.binary(max_size=9) | st.just(CODEC.encode(order_placed())))
TOLD = {"step": TEXT, "item": TEXT, "direction": TEXT, "attempt": INT4, "round": INT4}
IDS = st.just(STARTS.child_saga_id) | TEXT
RECORDS = st.one_of(
    st.sampled_from([order_placed(), StockReserved(order_id="order-1", reservation_id="r"), nested(0), nested(1_500)]),
    st.builds(wire.TimerFired, saga_id=IDS, kind=TEXT, due_milliseconds=INT8, **TOLD),
    st.builds(
        wire.OperatorAsked,
        saga_id=IDS,
        action=st.sampled_from(wire.OperatorAction),
        actor=TEXT,
        reason=TEXT,
        **{"reply": st.none() | MESSAGES, "version": INT4, **TOLD},
    ),
    st.builds(wire.ParentAsked, parent=WIRE_PARENTS),
    st.builds(wire.ParentEnded, saga=TEXT, saga_id=TEXT),
    st.builds(wire.SubsagaCompleted, saga=TEXT, saga_id=TEXT, result=st.none() | MESSAGES),
    st.builds(wire.EarlySignals, key=TEXT, signals=st.just(())),
)
TOPICS = ("order.events", *(f"hold_goods.{kind}" for kind in ("replies", "signals", "timers", "operator")))


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("topic", TOPICS)
@settings(max_examples=60, deadline=None)
@given(record=RECORDS, headers=HEADERS, key=TEXT, at=INT8)
@example(order_placed(), GOOD | {"parent": "[" * 100_000}, "order-1", 0)
@example(order_placed(), GOOD | {"parent": json.dumps(PARENT_FIELDS), "saga_version": "²"}, "order-1", 0)
@example(StockReserved(order_id="o", reservation_id="r"), GOOD | {"attempt": 2**31}, "order-1", 0)
@example(wire.SubsagaCompensated(saga="s", saga_id="x"), {"starts": "1"}, "order-1", 0)
def test_no_input_is_blamed_on_the_orchestrator(
    topic: str, begun: bool, record: Any, headers: dict[str, Any], key: str, at: int
) -> None:
    """Nothing but a PeerError is raised by it, nor by what comes due after it."""
    desk: Desktop = desktop(hold_goods())
    if begun:
        assert commands(start(desk))
    texts = tuple((name, str(value).encode("utf-8", "surrogatepass")) for name, value in headers.items())
    came = ConsumedRecord(topic, 0, 7, at, key.encode(), CODEC.encode(record), texts)
    try:
        desk.orchestrator.handle(came, desk)
    except PeerError:
        return
    for _ in range(3):
        desk.clock.advance(3600 * 24)
        desk.fire_timers()
