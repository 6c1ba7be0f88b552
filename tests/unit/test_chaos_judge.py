"""The judge of the chaos test: content with what is right, and not with any one wrong that is planted in it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest

from pipelines.demo.demo import CraftyGoods
from schemas.records.catalog import ReserveStock, StockLine
from tests.chaos.evidence import Evidence, Place
from tests.chaos.judge import Case
from tests.chaos.poison import READERS, SERVICES, Poison
from tests.commands import CODEC
from tests.stack_fixture import ROOT
from tests.unit.orchestrator.desktop import order_placed
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.demo import Check
from towpath.demo.verdict import fold_topics
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import sagas_view
from towpath.project import load_sagas, view_workers
from towpath.settings import load_settings
from towpath.stack.config import captured_databases
from towpath.stack.groups import Application, applications
from towpath.stream.broker.record import ConsumedRecord
from towpath.view import View

SETTINGS = load_settings(ROOT, environment=False)
ORDER, GONE = "order-run-1", "order-run-2"
SAGA_ID, COMMAND = "5a1e0000-0000-4000-8000-000000000001", UUID(int=7)
POISON = Poison("no Avro", "catalog.commands", 0, b"poison", b"x", (), frozenset({"service:catalog"}))
GROUPS = applications(SETTINGS)
BY_WORKER = {one.worker: name for name, one in GROUPS.items()}
DEAD = (BY_WORKER["service:catalog"], "catalog.commands[0]@1")
VIEWS = [*view_workers(SETTINGS).values(), sagas_view(load_sagas(SETTINGS))]


@dataclass
class Told(Evidence):
    """What the parts say, as plain values that a test can change."""

    standing: dict[str, str] = field(default_factory=lambda: {ORDER: "confirmed"})
    asked_back: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, set[UUID]] = field(default_factory=lambda: {"catalog": {COMMAND}})
    outboxes: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {"order": [("event-0", "order.events")]})
    stepped_over: dict[str, int] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=lambda: [Check("money_conserved", True, "")])
    twice: int = 0
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    member_counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GROUPS, 1))
    stands: dict[str, dict[Place, int]] = field(default_factory=dict)
    log_ends: dict[Place, tuple[int, int]] = field(default_factory=lambda: {("order.events", 0): (1, 1)})

    def orders(self, prefix: str) -> dict[str, str]:
        """Return the orders of the run."""
        return {key: status for key, status in self.standing.items() if key.startswith(prefix)}

    def cancellations(self, prefix: str) -> dict[str, str]:
        """Return those that were cancelled."""
        return {key: status for key, status in self.asked_back.items() if key.startswith(prefix)}

    def answered(self, service: str, prefix: str) -> set[UUID]:
        """Return the commands that have an outcome."""
        return self.outcomes.get(service, set())

    def outbox(self, database: str) -> list[tuple[str, str]]:
        """Return the messages of an outbox."""
        return self.outboxes.get(database, [])

    def skipped(self, database: str) -> int:
        """Return how many were stepped over."""
        return self.stepped_over.get(database, 0)

    def books(self) -> list[Check]:
        """Return the checks."""
        return self.checks

    def executed_twice(self) -> int:
        """Return second effects."""
        return self.twice

    def rows(self, views: Iterable[View[Any]]) -> dict[str, dict[str, Any]]:
        """Return the rows of the views."""
        return {view.table: self.kept.get(view.table, {}) for view in views}

    def members(self) -> dict[str, int]:
        """Return the members of each group."""
        return self.member_counts

    def positions(self, group: Application) -> dict[Place, int]:
        """Return where a group stands."""
        return self.stands.get(group.name, {})

    def ends(self) -> dict[Place, tuple[int, int]]:
        """Return how far the topics go."""
        return self.log_ends


def lies(topic: str, offset: int, record: Record, key: str, **headers: str) -> ConsumedRecord:
    """Return a record as it lies in a topic."""
    said = {"id": f"event-{offset}", "type": record.SCHEMA_NAME, **headers}
    return ConsumedRecord(topic, 0, offset, 1_000, key.encode(), CODEC.encode(record), headers_of(**said))


def entry(status: str, offset: int, *, key: str = ORDER, saga_id: str = SAGA_ID) -> ConsumedRecord:
    """Return an entry of the history of place_order."""
    written = HistoryEntry(
        saga="place_order", version=1, saga_id=saga_id, key=key, input_id=f"{offset}", at_milliseconds=offset,
        happened="replied", step="", direction="do", status=status,
    )  # fmt: skip
    return lies("place_order.history", offset, written, key, id=f"{saga_id}-{offset}")


def letter(position: str = DEAD[1], *, value: bytes = b"x", times: int = 1) -> ConsumedRecord:
    """Return a dead letter of the catalog service."""
    topic, _, offset = position.partition("[0]@")
    said = {"application": DEAD[0], "topic": topic, "partition": 0, "offset": int(offset), "cause": "c", "n": times}
    return ConsumedRecord(f"{topic}.dead", 0, times, 1_000, b"poison", value, (("dead", json.dumps(said).encode()),))


def all_well() -> Told:
    """Return the evidence of one order that ended well, beside one record of poison."""
    told = Told(SETTINGS, list(Catalogue.load(SETTINGS).topics))
    told.records = {topic: [] for topic in told.topics}
    told.records["order.events"] = [lies("order.events", 0, order_placed(ORDER), ORDER)]
    told.records["place_order.history"] = [entry("running", 0), entry("completed", 1)]
    reserve = ReserveStock(order_id=ORDER, lines=(StockLine(sku="vase", quantity=1),))
    poison = ConsumedRecord("catalog.commands", 0, 1, 1_000, POISON.key, POISON.value, ())
    command = lies("catalog.commands", 0, reserve, ORDER, idempotency_key=str(COMMAND))
    told.records["catalog.commands"] = [command, poison]
    told.records["catalog.commands.dead"] = [letter()]
    folded = [record for name in ("order.events", "place_order.history") for record in told.records[name]]
    told.kept = {view.table: fold_topics(view, folded, CODEC) for view in VIEWS}
    for topic, workers in READERS.items():
        for worker in workers:
            last = [record.offset for record in told.records[topic]]
            told.stands.setdefault(BY_WORKER[worker], {})[topic, 0] = max(last, default=-1) + 1
    return told


def wrongs(told: Told, **changes: Any) -> list[str]:
    """Return what the judge says."""
    case = Case(
        settings=SETTINGS, codec=CODEC, run_id="run", placed={ORDER}, cancelled=set(), expected={DEAD: POISON},
        poisoned={DEAD[1]}, before=frozenset(),
    )  # fmt: skip
    told.__dict__.pop("letters", None)
    return replace(case, **changes).wrongs(told)


def test_what_is_right_is_called_right() -> None:
    """One order that ended once, its command with one outcome, its message in its topic, the poison in quarantine."""
    told = all_well()
    assert any(told.kept.values())
    assert set(SERVICES) < set(captured_databases(SETTINGS))
    assert CraftyGoods.saga == "place_order"
    assert wrongs(told) == []


def _a_second_row(told: Told) -> None:
    rows = next(rows for rows in told.kept.values() if rows)
    key, row = next(iter(rows.items()))
    rows[f"{key} again"] = row


PLANTED: dict[str, tuple[Callable[[Told], object], str]] = {
    "a lost order": (lambda told: told.standing.clear(), "orders were committed and are not there: order-run-1"),
    "an order without an instance": (lambda told: told.standing.update({GONE: "placed"}), "its instances: none"),
    "an order that never ended": (
        lambda told: told.records["place_order.history"].pop(),
        "order order-run-1 is confirmed; its instances",
    ),
    "an order with two instances": (
        lambda told: told.records["place_order.history"].append(entry("completed", 2, saga_id="another")),
        "order order-run-1 is confirmed; its instances",
    ),
    "an order that ended twice": (
        lambda told: told.records["place_order.history"].extend([entry("running", 2), entry("completed", 3)]),
        "order order-run-1 is confirmed; its instances",
    ),
    "an order whose owner says otherwise": (
        lambda told: told.standing.update({ORDER: "rejected"}),
        "order order-run-1 is rejected; its instances",
    ),
    "a cancellation without an instance": (
        lambda told: told.asked_back.update({ORDER: "cancelled"}),
        "the cancellation of order-run-1, which is cancelled: its instances: none",
    ),
    "a doubled effect": (lambda told: setattr(told, "twice", 1), "1 commands had a second effect"),
    "money that is gone": (
        lambda told: told.checks.append(Check("money_conserved", False, "1 cent")),
        "money_conserved: 1 cent",
    ),
    "a command without an outcome": (
        lambda told: told.outcomes["catalog"].clear(),
        f"1 commands to catalog have no outcome: {COMMAND}",
    ),
    "an outcome without a command": (
        lambda told: told.outcomes["catalog"].add(UUID(int=8)),
        f"1 outcomes of catalog have no command: {UUID(int=8)}",
    ),
    "a missing outbox row": (
        lambda told: told.outboxes["order"].append(("event-1", "order.events")),
        "1 messages of the outbox of order are not in order.events",
    ),
    "an outbox row that came by another way alone": (
        lambda told: told.records["order.events"].__setitem__(
            0, told.records["order.events"][0]._replace(headers=headers_of(id="event-0", handed_over="1"))
        ),
        "1 messages of the outbox of order are not in order.events",
    ),
    "a row that was stepped over": (
        lambda told: told.stepped_over.update(order=2),
        "2 messages of order were stepped over",
    ),
    "a row of a view that nothing made": (_a_second_row, "are not the fold of the log"),
    "a row of a view that is gone": (
        lambda told: next(rows for rows in told.kept.values() if rows).clear(),
        "are not the fold of the log",
    ),
    "a group without a member": (
        lambda told: told.member_counts.update({DEAD[0]: 0}),
        f"group {DEAD[0]} has no member",
    ),
    "a member with lag": (
        lambda told: told.stands[DEAD[0]].update({("catalog.commands", 0): 1}),
        f"group {DEAD[0]} stands at 1 of catalog.commands[0], which goes on to 1",
    ),
    "a member that never read a partition": (
        lambda told: told.stands.pop(DEAD[0]),
        f"group {DEAD[0]} stands at 0 of catalog.commands[0], which goes on to 1",
    ),
    "an open transaction": (
        lambda told: told.log_ends.update({("order.events", 0): (1, 3)}),
        "a transaction is open in order.events[0], at 1 of 3",
    ),
    "poison that is nowhere": (
        lambda told: told.records["catalog.commands.dead"].clear(),
        "1 records of poison are not in quarantine: no Avro: ",
    ),
    "a letter of what is no poison": (
        lambda told: told.records["catalog.commands.dead"].append(letter("catalog.commands[0]@0")),
        "is in quarantine, and is no poison",
    ),
    "poison that died twice": (
        lambda told: told.records["catalog.commands.dead"].append(letter(times=2)),
        "died 2 times",
    ),
    "a letter that is not what died": (
        lambda told: told.records["catalog.commands.dead"].__setitem__(0, letter(value=b"y")),
        "its letter has another value than it had",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_each_wrong_that_is_planted_is_found(planted: str) -> None:
    """And named."""
    told = all_well()
    plant, words = PLANTED[planted]
    plant(told)
    found = wrongs(told)
    assert any(words in one for one in found), found


def test_a_cancellation_that_was_committed_and_is_nowhere_is_found() -> None:
    """What traffic knows to be committed must stand in the order's own database."""
    assert wrongs(all_well(), cancelled={ORDER}) == ["1 cancellations were asked for and are not there: order-run-1"]


def test_what_was_in_quarantine_before_is_nobodys() -> None:
    """Letters of earlier tests on the same stack are neither missed nor counted."""
    told = all_well()
    told.records["catalog.commands.dead"].append(letter("catalog.commands[0]@0"))
    assert wrongs(told, before=frozenset({(DEAD[0], "catalog.commands[0]@0")})) == []
