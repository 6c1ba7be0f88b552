"""Instances in flight go on under the next version: exactly those that may, each by an input that its history tells."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from sagas import catalog, identity
from schemas.records.catalog import ReserveStock, StockReserved
from schemas.records.identity import CustomerVerified, VerifyCustomer
from schemas.records.order import OrderPlaced
from tests.reference_records import SETTINGS
from tests.unit.orchestrator.desktop import CODEC, Desktop, Sent, commands, desktop, history, order_placed
from towpath.cli import saga_versions
from towpath.cli.saga_versions import Moving, rows_of
from towpath.errors import NotFoundError
from towpath.orchestrator import records as wire
from towpath.orchestrator.instance_status import KeptInstance, instances_in
from towpath.orchestrator.recording import NotAsRecorded, golden_of
from towpath.orchestrator.requests import UpgradeRequest, to_record, upgrade_of
from towpath.orchestrator.time_travel import moments
from towpath.saga import Saga, hours, seconds
from towpath.saga.upgrade import Outcome, judge
from towpath.stream.broker.record import ConsumedRecord

INSTANCES = 200


def verify(order: OrderPlaced) -> VerifyCustomer:
    """Verify the customer."""
    return VerifyCustomer(order_id=order.order_id, customer_id=order.customer_id, total_cents=1, currency="EUR")


def verify_again(order: OrderPlaced) -> VerifyCustomer:
    """Verify the customer a second time, which version 2 does before it reserves stock."""
    return verify(order)


def reserve(order: OrderPlaced) -> ReserveStock:
    """Reserve the stock."""
    return ReserveStock(order_id=order.order_id, lines=())


def check_order(version: int) -> Saga[Any]:
    """Return a version of a saga: the second verifies twice before it reserves stock."""
    made = Saga("check_order", version=version, starts_on=OrderPlaced, deadline=hours(1))
    last = made.retriable(identity, verify, succeeds=CustomerVerified, within=seconds(10))
    if version > 1:
        last = made.retriable(identity, verify_again, after=last, succeeds=CustomerVerified, within=seconds(10))
    made.retriable(catalog, reserve, after=last, succeeds=StockReserved, within=seconds(10))
    return made


VERSION_1, VERSION_2 = check_order(1), check_order(2)


def verified(key: str) -> CustomerVerified:
    """Return the reply of the identity service."""
    return CustomerVerified(order_id=key, customer_id="customer-1")


def reserved(key: str) -> StockReserved:
    """Return the reply of the catalog service."""
    return StockReserved(order_id=key, reservation_id="r")


def start(desk: Desktop, key: str) -> Sent:
    """Start an instance; return its first command."""
    (sent,) = commands(desk.give("order.events", order_placed(key), key=key, id=f"e-{key}"))
    return sent


def standing(desk: Desktop) -> list[KeptInstance]:
    """Return how the instances stand."""
    records = (ConsumedRecord("check_order.state", 0, n, 0, k, v) for n, (k, v) in enumerate(desk.stored().items()))
    return list(instances_in(records, CODEC))


def ask(desk: Desktop, request: UpgradeRequest) -> list[Sent]:
    """Let a request arrive as its record says; return what that sent."""
    topic, key, value, headers = to_record(CODEC, request)
    return desk.give(topic, value, key=key.decode(), **{name: (text or b"").decode() for name, text in headers})


def moving(desk: Desktop, key: str, version: int = 2, reason: str = "version 2 is out") -> UpgradeRequest:
    """Return the request that the instance of a key is moved."""
    (one,) = (one for one in standing(desk) if one.state.key == key)
    return upgrade_of(one.state, version, actor="grace", reason=reason)


def test_200_instances_in_flight_are_moved_as_the_proof_says_and_all_end_well() -> None:
    """Every second one has reserved stock already, which version 2 does later: it stays, and ends under version 1."""
    desk = desktop(VERSION_1)
    out = {f"order-{n}": start(desk, f"order-{n}") for n in range(INSTANCES)}
    for key in list(out)[::2]:
        (out[key],) = commands(desk.reply(out[key], verified(key)))
    desk.orchestrator = desktop(VERSION_1, VERSION_2).orchestrator
    judged = {one.state.key: judge(VERSION_1.definition, VERSION_2.definition, one.state) for one in standing(desk)}
    told = {key: history(ask(desk, moving(desk, key)))[0] for key in out}
    for key, entry in told.items():
        if judged[key].outcome is Outcome.MIGRATE:
            assert (entry.happened, entry.detail, entry.version) == ("upgraded", "to version 2", 2)
            assert (entry.actor, entry.asked_because) == ("grace", "version 2 is out")
        else:
            assert (entry.happened, entry.version) == ("refused", 1)
            assert entry.reason == "; ".join(judged[key].reasons)
    assert Counter(entry.happened for entry in told.values()) == {"upgraded": 100, "refused": 100}
    assert Counter(one.state.version for one in standing(desk)) == {1: 100, 2: 100}
    fresh = start(desk, "order-new")
    for key, command in {**out, "order-new": fresh}.items():
        last = command
        while last.headers["step"] != "reserve":
            (last,) = commands(desk.reply(last, verified(key)))
        assert history(desk.reply(last, reserved(key)))[0].status == "completed"
    assert Counter(one.state.version for one in standing(desk)) == {1: 100, 2: 101}


def test_what_the_new_version_lets_begin_begins_with_the_move() -> None:
    """An instance that waited for nothing but what the new version dropped goes on at once."""
    old, new = check_order(2), Saga("check_order", version=3, starts_on=OrderPlaced, deadline=hours(1))
    new.retriable(identity, verify, succeeds=CustomerVerified, within=seconds(10))
    new.retriable(identity, verify_again, succeeds=CustomerVerified, within=seconds(10))
    new.retriable(catalog, reserve, succeeds=StockReserved, within=seconds(10))
    desk = desktop(old)
    start(desk, "order-1")
    desk.orchestrator = desktop(old, new).orchestrator
    sent = ask(desk, moving(desk, "order-1", 3))
    assert [command.headers["step"] for command in commands(sent)] == ["verify_again", "reserve"]
    assert history(sent)[0].happened == "upgraded"


@pytest.mark.parametrize(
    ("version", "reason", "refusal"),
    [
        (2, "", "names the actor and the reason"),
        (1, "why", "it is of version 1 already"),
        (7, "why", "not deployed with version 7"),
    ],
)
def test_a_move_that_cannot_be_is_refused_and_changes_nothing(version: int, reason: str, refusal: str) -> None:
    """The history says why."""
    desk = desktop(VERSION_1, VERSION_2)
    desk.orchestrator = desktop(VERSION_1).orchestrator
    start(desk, "order-1")
    desk.orchestrator = desktop(VERSION_1, VERSION_2).orchestrator
    before = desk.stored()
    (entry,) = history(ask(desk, moving(desk, "order-1", version, reason)))
    assert entry.happened == "refused"
    assert refusal in entry.reason
    assert desk.stored() == before


def test_a_move_back_is_refused() -> None:
    """Nothing was proved about it."""
    desk = desktop(VERSION_1, VERSION_2)
    start(desk, "order-1")
    (entry,) = history(ask(desk, moving(desk, "order-1", 1)))
    assert (entry.happened, entry.reason) == ("refused", "version 1 does not follow version 2")


def test_a_move_is_made_once() -> None:
    """The same question about the same standing is the same request; its repetition finds the instance moved."""
    desk = desktop(VERSION_1)
    start(desk, "order-1")
    desk.orchestrator = desktop(VERSION_1, VERSION_2).orchestrator
    request = moving(desk, "order-1")
    assert moving(desk, "order-1", reason="other words").id == request.id
    assert [history(ask(desk, request))[0].happened for _ in range(2)] == ["upgraded", "refused"]
    (entry,) = history(ask(desk, UpgradeRequest("x", "check_order", "nobody", "order-9", 2, "grace", "why")))
    assert (entry.happened, entry.saga_id, entry.reason) == ("refused", "", "no such saga has started")


def test_a_dry_run_lists_what_would_be_moved_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a reason, which only an act needs; and where nothing is left to move, that is said."""
    desk = desktop(VERSION_1)
    for number in range(3):
        sent = start(desk, f"order-{number}")
        if number == 0:
            desk.reply(sent, verified("order-0"))  # its stock is being reserved: it stays

    class Quiet:
        """A room without a broker: whoever sends, fails."""

        def __init__(self, *_: object) -> None:
            pass

        def instances(self, *, opened: bool) -> list[KeptInstance]:
            return standing(desk)

    monkeypatch.setattr(saga_versions, "Room", Quiet)
    said = Moving("", None, None, None, 0.0, yes=False, as_json=True, dry_run=True, said=("a", "b"))
    saga_versions.apply(SETTINGS, VERSION_1.definition, VERSION_2.definition, said)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["key"], row["status"], row["version"]) for row in rows] == [
        ("order-1", "running", 2),
        ("order-2", "running", 2),
    ]
    saga_versions.apply(SETTINGS, VERSION_1.definition, VERSION_2.definition, replace(said, as_json=False, limit=1))
    told = " ".join(capsys.readouterr().err.split())
    assert "1 instance of check_order would be moved from version 1 to 2, 1 cannot, and stay; nothing was sent" in told
    monkeypatch.setattr(Quiet, "instances", lambda *_, **__: [])
    with pytest.raises(NotFoundError, match="no live instance of check_order is of version 1: nothing is left to move"):
        saga_versions.apply(SETTINGS, VERSION_1.definition, VERSION_2.definition, said)


def test_a_version_may_be_removed_once_nothing_needs_it() -> None:
    """Open instances keep it; ended ones do not, and what still comes for one is refused, not waited with."""
    desk = desktop(VERSION_1)
    first, second = start(desk, "order-1"), start(desk, "order-2")
    deployed = {1: VERSION_1.definition, 2: VERSION_2.definition}

    def row() -> dict[str, Any]:
        return rows_of("check_order", deployed, standing(desk))[0]

    assert (row()["need_it"], row()["may_be_removed"]) == (2, False)
    (stock,) = commands(desk.reply(first, verified("order-1")))
    desk.reply(stock, reserved("order-1"))
    assert (row()["need_it"], row()["ended"], row()["may_be_removed"]) == (1, 1, False)
    desk.orchestrator = desktop(VERSION_1, VERSION_2).orchestrator
    ask(desk, moving(desk, "order-2"))
    assert (row()["need_it"], row()["may_be_removed"]) == (0, True)
    desk.orchestrator = desktop(VERSION_2).orchestrator
    (entry,) = history(desk.reply(first, reserved("order-1"), id="late"))
    assert (entry.happened, entry.reason) == ("refused", "the saga has ended")
    assert desk.reply(first, reserved("order-1"), id="late") == [], "the same once more"
    (again,) = commands(desk.reply(second, verified("order-2")))
    assert again.headers["step"] == "verify_again"
    newest = rows_of("check_order", {2: VERSION_2.definition}, standing(desk))
    assert [(one["version"], one["may_be_removed"], one["because"]) for one in newest] == [
        (1, False, "it is removed already"),
        (2, False, "1 instances go on under it"),
    ]


def test_a_run_that_was_moved_makes_no_golden_history() -> None:
    """No one definition decided it."""
    desk = desktop(VERSION_1)
    entries: list[wire.HistoryEntry] = history(
        desk.give("order.events", order_placed("order-1"), key="order-1", id="e-1")
    )
    desk.orchestrator = desktop(VERSION_1, VERSION_2).orchestrator
    entries += history(ask(desk, moving(desk, "order-1")))
    with pytest.raises(NotAsRecorded, match="a person asked that it goes on to version 2"):
        golden_of(VERSION_1.definition, entries, CODEC)


def test_a_run_that_was_moved_is_shown_as_it_was_under_each_version() -> None:
    """Each entry is decided again by the version that decided it; what was asked in vain changed nothing."""
    one, both = desktop(VERSION_1), desktop(VERSION_1, VERSION_2)
    entries: list[wire.HistoryEntry] = history(
        one.give("order.events", order_placed("order-1"), key="order-1", id="e-1")
    )
    in_vain = history(ask(one, moving(one, "order-1")))
    entries += in_vain
    assert [entry.happened for entry in in_vain] == ["refused"]
    assert golden_of(VERSION_1.definition, entries, CODEC)
    one.orchestrator = both.orchestrator
    entries += history(ask(one, moving(one, "order-1")))
    placed = list(enumerate(entries))
    versions = {1: VERSION_1.definition, 2: VERSION_2.definition}
    found = list(moments(VERSION_1.definition, placed, CODEC, versions))
    assert [None if step.state is None else step.state.version for step in found] == [1, 1, 2]
    assert found[1].changes == ()
    assert "version: 1 -> 2" in found[2].changes
    with pytest.raises(NotAsRecorded, match="a person asked that it goes on to version 2"):
        list(moments(VERSION_1.definition, placed, CODEC))
